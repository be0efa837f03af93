"""What a rule sees of a file: its steps by path, its expressions, and the edges between steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from stemflow.dsl.build import Spot
from stemflow.dsl.context import Context
from stemflow.dsl.expressions import Read
from stemflow.dsl.findings import Findings, Position
from stemflow.dsl.named_types import NamedTypes
from stemflow.dsl.rules.types import ANY, Type
from stemflow.dsl.source import Node
from stemflow.dsl.spans import place_inside
from stemflow.dsl.templates import HOME, Templates
from stemflow.dsl.vocabulary import BODIES, KINDS
from stemflow.model.records import child_path, parent_path

_FOLLOW_UP = re.compile(r"(?P<of>.*)!(?P<kind>catch\d*|finally|success|failure|cancel)(?=[.\[!]|$)")
"""The path of a follow-up, or of something in it."""


class TaskFacts(Protocol):
    """What is known of the tasks: a registry, or a lock file."""

    def __contains__(self, task: object) -> bool: ...

    def result_schema(self, task: str) -> Mapping[str, Any] | None:
        """The JSON Schema of the value that the task returns; None where it is not declared."""
        ...

    def parameter_schema(self, task: str, parameter: str) -> Mapping[str, Any] | None:
        """The JSON Schema of one argument of the task; None where it is not declared."""
        ...


class Step(NamedTuple):
    """One step of the file, or the file itself (path ``""``) seen as the step that its body is.

    `kind` and `body` are None where the step is broken; `names` are those that its expressions may use.
    """

    path: str
    node: Node
    place: Position
    kind: str | None
    body: Node | None
    context: Context | None

    @property
    def label(self) -> str:
        """The step as messages name it."""
        return self.path.removeprefix("!") or "the file"


class Callee(NamedTuple):
    """What is known of a workflow that a step calls. `inputs`: name -> JSON Schema; `output`: the type of its value.

    `steps` and `tasks`: the paths of its steps and the tasks that they call, with those of the workflows that it calls.
    """

    inputs: Mapping[str, Any]
    output: Type = ANY
    steps: Collection[str] = ()
    tasks: Collection[str] = ()


class Unusable(NamedTuple):
    """Why the workflow that a step calls cannot be called. `circle`: since it calls the file in turn."""

    message: str
    hint: str | None = None
    circle: bool = False


class Edge(NamedTuple):
    """`target` waits for `source`; `place` is the item of `needs` or the reference."""

    source: str
    target: str
    kind: str
    place: Position


@dataclass(slots=True)
class View:
    """A parsed file for the rules. Values that the schema refuses are absent from it."""

    text: str
    root: Node
    inputs: Mapping[str, Any]
    reads: Sequence[Read]
    whole: bool = True
    """Whether all of the file could be read, so that what is not in it is not there."""
    steps: dict[str, Step] = field(default_factory=dict)
    undos: dict[str, Step] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)
    follow_ups: dict[str, list[str]] = field(default_factory=dict)
    """Path of a step -> paths of what runs after it: its catches and its cleanup, and the hooks of the file."""
    graphs: dict[str, frozenset[str]] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    _keyed: dict[str, list[Step]] = field(default_factory=dict)
    _names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    types: NamedTypes = field(default_factory=lambda: NamedTypes(Findings("")))
    """The named types of the file, for the schemas in it."""
    templates: Templates = field(default_factory=lambda: Templates(Findings(""), NamedTypes(Findings(""))))
    tasks: TaskFacts | None = None
    callees: Mapping[str, Callee | Unusable] = field(default_factory=dict)
    """What is known of the workflows that steps call, by what `ref` says."""
    type_of: Callable[[Node], Type] = lambda node: ANY
    """The type of the expression in a node; anything until the types have been inferred."""
    found: frozenset[str] = frozenset()
    """Codes of what has been found in expressions."""

    @classmethod
    def of(
        cls,
        text: str,
        root: Node,
        inputs: Mapping[str, Any],
        reads: Sequence[Read],
        spots: Mapping[str, Spot],
        whole: bool,
        types: NamedTypes,
        templates: Templates,
    ) -> View:
        """Arrange what the reader of the file has found; `whole`: it has found no error."""
        view = cls(text, root, inputs, reads, whole, types=types, templates=templates)
        for path, spot in spots.items():
            kinds = KINDS if path else BODIES
            kind = next((kind for kind in kinds if kind in spot.node.members), None)
            body = None if kind is None else spot.node.get(kind)
            step = Step(path, spot.node, spot.place, kind, body, spot.context)
            if path.endswith("!compensate"):
                view.undos[path] = step
                continue
            view.steps[path] = step
            for key in spot.node.members:
                view._keyed.setdefault(key, []).append(step)
            if path:
                below = view.follow_ups if _FOLLOW_UP.fullmatch(path) else view.children
                below.setdefault(parent_path(path), []).append(path)
            if spot.context is not None and spot.context.siblings is not None:
                view.graphs[parent_path(path)] = spot.context.siblings
        view.edges = [*view._needs(), *view._references()]
        return view

    def having(self, key: str) -> Sequence[Step]:
        """The steps that have `key`, the file among them, in their order; the key may be refused."""
        return self._keyed.get(key, ())

    def refs(self) -> Iterator[tuple[Step, Node, str]]:
        """Each step that calls a workflow: with the place of its `ref`, and what that says."""
        for step in self.having("workflow"):
            ref = None if step.kind != "workflow" or step.body is None else step.body.get("ref")
            if ref is not None and isinstance(ref.value, str) and not ref.flawed:
                yield step, ref, ref.value

    def callee(self, step: Step) -> Callee | None:
        """What is known of the workflow that a step calls."""
        ref = None if step.kind != "workflow" or step.body is None else step.body.text("ref")
        found = None if ref is None else self.callees.get(ref)
        return found if isinstance(found, Callee) else None

    def at(self, read: Read, column: int, end: int) -> Position:
        """The position of a part of an expression in the file."""
        return place_inside(self.text, read.node, column, end)

    def owner(self, path: str, name: str) -> tuple[str, str] | None:
        """The step that `steps.NAME` means at `path`, and the sibling of it that holds `path` (or is it).

        The innermost graph that has the name wins; the path of the file itself is the outermost graph.
        """
        if not path:
            return ("", name) if name in self.graphs.get("", ()) else None
        while path and path != HOME:
            scope = parent_path(path)
            if name in self.graphs.get(scope, ()):
                return path, child_path(scope, name)
            path = scope
        return None

    def names_at(self, path: str) -> tuple[str, ...]:
        """The names that `steps.` may be followed by at `path`, the nearest graph first."""
        scope = parent_path(path) if path else ""
        if scope == HOME:
            return ()
        if scope not in self._names:
            above = self.names_at(scope) if scope else ()
            self._names[scope] = tuple(dict.fromkeys((*sorted(self.graphs.get(scope, ())), *above)))
        return self._names[scope]

    def _needs(self) -> Iterator[Edge]:
        for step in self.having("needs"):
            needs = step.node.get("needs") if step.path else None
            if needs is None or step.context is None or step.context.siblings is None:
                continue
            for item in needs.items:
                if not item.flawed and item.value in step.context.siblings:
                    yield Edge(child_path(parent_path(step.path), item.value), step.path, "order", item.place)

    def _references(self) -> Iterator[Edge]:
        for read in self.reads:
            if ("self" in read.names and "error" not in read.names) or not read.path:
                continue  # a compensation runs long after the step; outputs are not a step
            for one in read.references:
                if one.path[0] == "steps" and len(one.path) > 1:
                    found = self.owner(read.path, one.path[1])
                    if found is not None:
                        kind = "optional" if one.optional else "data"
                        yield Edge(found[1], found[0], kind, self.at(read, one.column, one.end))

    def below(self, path: str) -> Iterator[Step]:
        """The step at `path` and every step inside it."""
        pending = [path]
        while pending:
            one = pending.pop()
            if one in self.steps:
                yield self.steps[one]
            pending.extend(reversed([*self.children.get(one, ()), *self.follow_ups.get(one, ())]))

    def ended_around(self, path: str) -> tuple[str, str] | None:
        """The nearest follow-up around `path`: the path of the step after which it runs, and its segment (`catch`)."""
        found = _FOLLOW_UP.match(path)
        return (found["of"], found["kind"]) if found is not None else None

    def above(self, path: str) -> Iterator[Step]:
        """The steps that hold the step at `path`, the innermost first, the file last."""
        while path:
            path = parent_path(path)
            if path in self.steps:
                yield self.steps[path]
