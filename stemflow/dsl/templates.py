"""`templates` of a file: steps with parameters. A step that names one is read as a copy of it with its arguments.

A template is checked once, in its own place, where expressions read `params.NAME`. Copies have the place of the word
after `template:`; arguments that are used as they are keep their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from msgspec import structs

from stemflow.dsl.context import Context
from stemflow.dsl.expressions import Names, Read
from stemflow.dsl.findings import Findings, Position, did_you_mean
from stemflow.dsl.inputs import misfits, read_schema
from stemflow.dsl.named_types import NamedTypes
from stemflow.dsl.source import Node
from stemflow.expr.errors import ExpressionError
from stemflow.expr.substitute import (
    CannotSubstitute,
    is_constant,
    names_read,
    parameter_alone,
    with_arguments,
)
from stemflow.model.diagnostic import Diagnostic

PARAMS = "params"
HOME = "!templates"
"""The path under which the templates of a file are checked."""
KNOWN_INSIDE: Names = frozenset({PARAMS, "run"})
"""What a template reads besides what is bound in it."""


@dataclass(slots=True)
class Template:
    """A template that was read. `params`: their schemas. `reads`: its expressions by node. `steps`: those in it."""

    name: str
    node: Node
    params: Mapping[str, Any]
    home: Templates
    reads: Mapping[int, Read] = field(default_factory=dict)
    steps: frozenset[str] = frozenset()
    usable: bool = True


class Use(NamedTuple):
    """A step that names a template: its path, its template, the arguments that it gives."""

    path: str
    template: Template
    args: Node | None


class Templates:
    """The templates of one file, and those that it uses of other files, by their names in it."""

    def __init__(self, findings: Findings, types: NamedTypes) -> None:
        self.findings, self.types = findings, types
        self.known: dict[str, Template] = {}
        self._broken: set[str] = set()
        """Templates that were reported where they are written: steps that name them are not."""
        self.own: tuple[str, ...] = ()
        self.uses: list[Use] = []
        self.places: dict[Position, tuple[str, Node]] = {}
        """The place of a copy -> the name of its template, and the step that names it."""
        self._homes: dict[int, Templates] = {}
        self._kept: list[Node] = []

    def read(self, node: Node | None) -> list[Template]:
        """Read the parameters of `templates`; those to be checked, each after the ones that it names."""
        members = {} if node is None else node.members
        for name, one in members.items():
            do = one.get("do")
            if do is None or not one.is_sound():
                self._broken.add(name)
                continue
            params = {
                param: read_schema(schema, f"{PARAMS}.{param}", self.types) or {}
                for param, schema in one.entries("params").items()
            }
            self.known[name] = Template(name, one, params, self)
        self.own = tuple(name for name in members if name in self.known)
        inner = {name: [one for one in _named(self.known[name].node) if one in self.own] for name in self.own}
        try:
            return [self.known[name] for name in TopologicalSorter(inner).static_order()]
        except CycleError as error:
            assert node is not None
            circle = list(reversed(error.args[1]))
            self.findings.error("SF315", f"templates: expected no circle, got {' -> '.join(circle)}",
                                node.keys[circle[0]], "take one of them out")  # fmt: skip
            for name in circle:
                self.known[name].usable = False
            return []

    def of(self, node: Node) -> Template | None:
        """The template that a step names; one that does not exist is reported."""
        home = self._homes.get(id(node), self)
        name = node.members["template"]
        found = home.known.get(str(name.value))
        if found is None and not name.flawed and name.value not in home._broken:
            hint = did_you_mean(str(name.value), home.known, "templates")
            self.findings.error("SF113", f"there is no template `{name.value}`", name.place, hint)
        return found if found is not None and found.usable else None

    def copy(self, node: Node, template: Template, context: Context) -> Node | None:
        """The step that `node` stands for: the template with its arguments, and the other keys of `node` in it."""
        place = node.members["template"].place
        given = self._arguments(node, template, place, context)
        if given is None:
            return None
        self.places.setdefault(place, (template.name, node))
        do = template.node.members["do"]
        try:
            found = _Copy(self, template, given, place).of(do)
        except (CannotSubstitute, ExpressionError) as error:
            self.findings.error("SF314", f"template `{template.name}`: {error}", place,
                                "compute the value in a step before, with `set`")  # fmt: skip
            return None
        added = {key: one for key, one in node.members.items() if key not in ("template", "args")}
        value = {**found.value, **{key: one.value for key, one in added.items()}}
        keys = {**found.keys, **{key: node.keys[key] for key in added}}
        found = Node(value, place, node.start, node.end, found.style, {**found.members, **added}, found.items, keys)
        self._kept.append(found)
        if "template" in found.members:
            self._homes[id(found)] = template.home
        return found

    def _arguments(self, node: Node, template: Template, place: Position, context: Context) -> dict[str, Node] | None:
        """The arguments by parameter, defaults included; None if something is wrong with them, which is reported."""
        args = node.get("args")
        given = {} if args is None else args.members
        right = args is None or args.is_sound()
        for name, one in given.items():
            if name not in template.params:
                hint = did_you_mean(name, template.params, "parameters")
                self._wrong(f"args.{name}: template `{template.name}` has no parameter `{name}`",
                            node.members["args"].keys[name], hint)  # fmt: skip
                right = False
            elif is_constant(one.value):
                for message in misfits(template.params[name], one.value, f"args.{name}"):
                    self._wrong(message, one.place, None)
                    right = False
            else:
                right = self._fits_inside(name, one, template) and right
        found = dict(given)
        for name, schema in template.params.items():
            if name not in given and "default" in schema:
                found[name] = _plain(schema["default"], place)
            elif name not in given:
                self._wrong(f"template `{template.name}` needs the argument `{name}`, got none",
                            place if args is None else node.keys["args"], None)  # fmt: skip
                right = False
        return found if right else None

    def _fits_inside(self, name: str, argument: Node, template: Template) -> bool:
        """Whether the names that an argument reads mean the same inside the template."""
        try:
            read = names_read(argument.value)
        except ExpressionError:
            return False  # it has been reported where it is written
        own = {"steps", "secrets"}
        inside = frozenset[str]().union(*(one.names for one in template.reads.values())) - KNOWN_INSIDE - own
        inside |= {f"steps.{step}" for step in template.steps}
        if hidden := read & inside:
            self._wrong(f"args.{name}: `{min(hidden)}` means something of its own in the template `{template.name}`",
                        argument.place, "compute the value in a step before, with `set`, or rename it")  # fmt: skip
        return not hidden

    def _wrong(self, message: str, place: Position, hint: str | None) -> None:
        self.findings.error("SF314", message, place, hint)

    def take(self, prefix: str, other: Templates) -> None:
        """Take the templates of another file, under names with this prefix."""
        for name in other.own:
            self.known[f"{prefix}.{name}"] = replace(other.known[name], name=f"{prefix}.{name}")


def in_copies(found: Sequence[Diagnostic], templates: Templates, text: str) -> Iterator[Diagnostic]:
    """The findings, those in copies of templates as errors of their use: what is found in the template is left out."""
    places = {Position(one.line, one.column, one.end_column) for one in found} & templates.places.keys()
    hidden = {place: _said(found, place, *templates.places[place], templates, text) for place in places}
    for one in found:
        place = Position(one.line, one.column, one.end_column)
        if place not in places or one.code in ("SF113", "SF314"):
            yield one
        elif one.severity == "error" and one.code not in hidden[place] and "" not in hidden[place]:
            yield structs.replace(one, message=f"template `{templates.places[place][0]}`: {one.message}")


def _said(
    found: Sequence[Diagnostic], place: Position, name: str, use: Node, templates: Templates, text: str
) -> frozenset[str]:
    """The codes of what is found in a template itself; with an empty one if the step that uses it has errors."""

    def elsewhere(node: Node) -> Iterator[str]:
        lines = range(node.place.line, text.count("\n", 0, node.end) + 2)
        for one in found:
            if one.line in lines and Position(one.line, one.column, one.end_column) != place:
                yield one.code

    return frozenset([
        *(elsewhere(templates.known[name].node) if name in templates.own else ()),
        *("" for _ in elsewhere(use)),
    ])  # fmt: skip


class _Copy(NamedTuple):
    """Copies the step of a template, with arguments in place of parameters."""

    templates: Templates
    template: Template
    given: Mapping[str, Node]
    place: Position

    def of(self, node: Node) -> Node:
        read = self.template.reads.get(id(node))
        if read is not None and any(one.path[0] == PARAMS for one in read.references):
            return self._filled(node, read)
        if not node.members and not node.items:
            return Node(node.value, self.place, 0, 0, node.style)
        members = {key: self.of(one) for key, one in node.members.items()}
        items = [self.of(one) for one in node.items]
        value = {key: one.value for key, one in members.items()} if members else [one.value for one in items]
        found = Node(value, self.place, 0, 0, node.style, members, items, dict.fromkeys(members, self.place))
        if "template" in members:
            self.templates._homes[id(found)] = self.template.home
            self.templates._kept.append(found)
        return found

    def _filled(self, node: Node, read: Read) -> Node:
        alone = None if read.bare else parameter_alone(node.value, PARAMS)
        if alone is not None and alone in self.given:
            return self.given[alone]
        values = {name: one.value for name, one in self.given.items()}
        text = with_arguments(node.value, read.bare, PARAMS, values)
        return Node(text, self.place, 0, 0, node.style)


def _plain(value: Any, place: Position) -> Node:
    """A node for a value that is not written in the file."""
    node = Node(value, place, 0, 0)
    if isinstance(value, dict):
        node.members = {str(key): _plain(one, place) for key, one in value.items()}
        node.keys = dict.fromkeys(node.members, place)
    elif isinstance(value, list):
        node.items = [_plain(one, place) for one in value]
    return node


def _named(node: Node) -> Iterator[str]:
    """The names of templates anywhere inside."""
    pending = [node]
    while pending:
        one = pending.pop()
        name = one.members.get("template")
        if name is not None and isinstance(name.value, str):
            yield name.value
        pending += [*one.items, *one.members.values()]

