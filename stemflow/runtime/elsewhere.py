"""Tasks that are registered in other processes, as their workers have declared them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from stemflow.runtime.declarations import Declaration, newest, options_layer, published
from stemflow.runtime.registry import OptionsElsewhere
from stemflow.store.base import Store

FRESH_MS = 10_000
"""How long declarations that were read are taken for current by one who submits again and again."""


class Elsewhere:
    """What a process that submits knows of tasks that it has not registered."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[str, Declaration] = {}
        self._read_at_ms: int | None = None

    async def read(self) -> Mapping[str, Declaration]:
        """The declarations as they now are."""
        self.known = newest((await published(self.store)).values())
        self._read_at_ms = self.store.now_ms()
        return self.known

    async def look(self, missing: Set[str], allow_unknown: bool) -> OptionsElsewhere:
        """How `TaskRegistry.options_of` finds the options of `missing` tasks."""
        at_ms = self._read_at_ms
        if at_ms is None or self.store.now_ms() - at_ms >= FRESH_MS or not missing <= self.known.keys():
            await self.read()

        def options(name: str) -> Mapping[str, Any] | None:
            found = self.known.get(name)
            return options_layer(name, found) if found is not None else {} if allow_unknown else None

        return options
