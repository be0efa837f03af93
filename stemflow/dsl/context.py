"""What a step of a file is built with."""

from __future__ import annotations

from typing import NamedTuple

from stemflow.dsl.expressions import Names
from stemflow.dsl.findings import Position
from stemflow.model.records import child_path


class Context(NamedTuple):
    """What a step gets from the step around it; `siblings` are what `needs` may name, None outside `steps`."""

    path: str
    place: Position
    names: Names
    name: str | None = None
    siblings: frozenset[str] | None = None
    depth: int = 0

    def inner(self, segment: str, place: Position, names: Names, name: str | None = None,
              siblings: frozenset[str] | None = None) -> Context:  # fmt: skip
        """The context of a child of this step."""
        return Context(child_path(self.path, segment), place, names, name, siblings, self.depth + 1)
