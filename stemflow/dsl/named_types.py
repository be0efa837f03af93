"""`types` of a file: schemas with names, which other schemas use as their `type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemflow.dsl.findings import Findings, describe, did_you_mean
from stemflow.dsl.source import Node

JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")


class NamedTypes:
    """The types of one file, and those that it uses of other files, by their names in it."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.known: dict[str, Mapping[str, Any]] = {}
        """Name -> its schema, in which no names are left."""
        self.own: tuple[str, ...] = ()
        self.used: set[str] = set()
        self._nodes: Mapping[str, Node] = {}
        self._open: list[str] = []

    def read(self, node: Node | None) -> None:
        """Read `types`; one that contains itself is reported, and contains anything."""
        self._nodes = {} if node is None else node.members
        self.own = tuple(self._nodes)
        for name, one in self._nodes.items():
            if name not in self.known and isinstance(one.value, dict) and not one.flawed:
                self._define(name)

    def take(self, prefix: str, other: NamedTypes) -> None:
        """Take the types of another file, under names with this prefix."""
        self.known.update({f"{prefix}.{name}": other.known[name] for name in other.own if name in other.known})

    def schema(self, node: Node) -> dict[str, Any]:
        """The value of a schema with the schemas of the types that it names in place of them."""
        found: dict[str, Any] = {}
        for key, inner in node.members.items():
            if key in ("items", "additionalProperties") and isinstance(inner.value, dict):
                found[key] = self.schema(inner)
            elif key == "properties" and isinstance(inner.value, dict):
                found[key] = {name: self.schema(one) for name, one in inner.members.items()}
            elif key == "type" and isinstance(inner.value, str) and inner.value not in JSON_TYPES:
                found = {**self._named(inner), **found}
            else:
                found[key] = inner.value
        return found

    def _named(self, node: Node) -> Mapping[str, Any]:
        name = node.value
        self.used.add(name)
        if name in self._open:
            self._circular(node, name)
        elif name not in self.known and name in self._nodes:
            self._define(name)
        if name in self.known:
            return self.known[name]
        if name not in self._nodes:
            wanted = f"one of {', '.join(JSON_TYPES)}"
            wanted += ", or the name of a type" if self.known or self._nodes else ""
            hint = did_you_mean(name, [*JSON_TYPES, *self.known, *self._nodes], "types")
            self.findings.error("SF011", f"type: expected {wanted}, got {describe(name)}", node.place, hint)
        return {}

    def _define(self, name: str) -> None:
        self._open.append(name)
        self.known[name] = self.schema(self._nodes[name])
        self._open.pop()

    def _circular(self, node: Node, name: str) -> None:
        way = " -> ".join([*self._open[self._open.index(name) :], name])
        self.findings.error("SF311", f"types: expected a type that ends, got {way}", node.place,
                            "write {type: object} for the inner one")  # fmt: skip
