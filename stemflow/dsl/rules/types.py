"""Static types of expressions: which kinds of JSON value, with which fields and items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

KINDS = ("null", "boolean", "integer", "number", "string", "array", "object")
NUMBERS = frozenset({"integer", "number"})
WORDS = {
    "null": "null",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "a list",
    "object": "an object",
}
MOST_DEPTH = 20
"""Levels of a schema or value that are looked into."""


@dataclass(frozen=True, slots=True)
class Type:
    """What is known of a value. `kinds` None: it may be anything.

    `values`: the only values it may have. `fields` with `closed`: the object has no others. `length`: of a list that
    always has so many items. `code` and `what` name the rule and the words for a field that does not exist. `maybe`:
    why it may be null although it is read as if it were there.
    """

    kinds: frozenset[str] | None = None
    values: tuple[Any, ...] | None = None
    fields: Mapping[str, Type] = field(default_factory=dict)
    closed: bool = False
    items: Type | None = None
    length: int | None = None
    code: str = "SF207"
    what: str = ""
    maybe: str = ""

    @property
    def certain(self) -> frozenset[str] | None:
        """The kinds without null, which a value may be for many reasons."""
        return None if self.kinds is None else self.kinds - {"null"}

    def only(self, *kinds: str) -> bool:
        """Whether the value, unless it is null, is certainly of one of these kinds."""
        return self.certain is not None and bool(self.certain) and self.certain <= set(kinds)

    def never(self, *kinds: str) -> bool:
        """Whether the value is certainly of none of these kinds, and not null either."""
        return self.kinds is not None and self.kinds.isdisjoint({*kinds, "null"})

    def is_unprintable(self) -> bool:
        """Whether the value can certainly not be put into a text."""
        return self.kinds == frozenset({"null"}) or self.only("array", "object")

    def words(self) -> str:
        """The kinds in words."""
        if self.kinds is None:
            return "any value"
        listed = [WORDS[kind] for kind in KINDS if kind in self.kinds]
        return " or ".join(listed) or "nothing"


ANY = Type()
NULL = Type(frozenset({"null"}), (None,))
BOOLEAN = Type(frozenset({"boolean"}))
INTEGER = Type(frozenset({"integer"}))
NUMBER = Type(NUMBERS)
STRING = Type(frozenset({"string"}))


def array_of(items: Type | None, length: int | None = None, what: str = "") -> Type:
    """A list of `items`."""
    return Type(frozenset({"array"}), items=items, length=length, what=what)


def object_of(fields: Mapping[str, Type], closed: bool = True, code: str = "SF207", what: str = "") -> Type:
    """An object with these fields."""
    return Type(frozenset({"object"}), fields=fields, closed=closed, code=code, what=what)


def of_value(value: Any, code: str = "SF207", what: str = "", depth: int = 0) -> Type:
    """The type of a value that is known; `code` and `what` are said of fields that it does not have."""
    kind = kind_of(value)
    if depth > MOST_DEPTH:
        return Type(frozenset({kind}))
    if isinstance(value, dict):
        fields = {str(k): of_value(v, code, f"{what}.{k}" if what else "", depth + 1) for k, v in value.items()}
        return object_of(fields, code=code, what=what)
    if isinstance(value, list):
        items = union(of_value(one, code, f"{what}[]" if what else "", depth + 1) for one in value[:100])
        return array_of(items if value else None, len(value))
    return Type(frozenset({kind}), (value,))


def kind_of(value: Any) -> str:
    """The JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def of_schema(
    schema: Any,
    code: str = "SF207",
    what: str = "",
    definitions: Mapping[str, Any] | None = None,
    exact: bool = False,
    depth: int = 0,
) -> Type:
    """The type of values that a JSON Schema accepts; what it does not say is anything.

    `exact`: an object has the listed properties and no others, as the results of dataclasses have.
    """
    if not isinstance(schema, Mapping) or depth > MOST_DEPTH:
        return ANY
    definitions = definitions or schema.get("$defs") or schema.get("definitions") or {}
    if isinstance(schema.get("$ref"), str):
        target = definitions.get(schema["$ref"].rpartition("/")[2])
        return of_schema(target, code, what, definitions, exact, depth + 1)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return union(of_schema(one, code, what, definitions, exact, depth + 1) for one in schema[key])
    if "const" in schema:
        return of_value(schema["const"])
    if isinstance(schema.get("enum"), list):
        values = schema["enum"]
        return Type(frozenset(map(kind_of, values)), tuple(values))
    kinds = _kinds(schema.get("type"))
    if kinds is None:
        return ANY
    properties = schema.get("properties")
    fields = properties if isinstance(properties, Mapping) else {}
    extra = schema.get("additionalProperties", True)
    items = schema.get("items")
    return Type(
        kinds,
        fields={
            str(name): of_schema(one, code, f"{what}.{name}" if what else "", definitions, exact, depth + 1)
            for name, one in fields.items()
        },
        closed=extra is False or (exact and bool(fields) and "additionalProperties" not in schema),
        items=of_schema(items, code, f"{what}[]" if what else "", definitions, exact, depth + 1)
        if isinstance(items, Mapping)
        else None,
        code=code,
        what=what,
    )


def _kinds(given: Any) -> frozenset[str] | None:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(name in KINDS for name in names):
        return None
    found = frozenset(names)
    return found | {"integer"} if "number" in found else found


def union(types: Iterable[Type]) -> Type:
    """What a value is that has one of these types."""
    found = list(types)
    if not found:
        return ANY
    first = found[0]
    if all(one == first for one in found[1:]):
        return first
    if any(one.kinds is None for one in found):
        return ANY
    kinds: frozenset[str] = frozenset().union(*(one.kinds or frozenset() for one in found))
    values = None if any(one.values is None for one in found) else tuple(v for one in found for v in one.values or ())
    objects = [one for one in found if one.kinds and "object" in one.kinds]
    names = {name: None for one in objects for name in one.fields}
    fields = {name: union(one.fields.get(name, ANY) for one in objects) for name in names}
    lists = [one for one in found if one.kinds and "array" in one.kinds]
    items = union(one.items or ANY for one in lists) if lists else None
    closed = bool(objects) and all(one.closed for one in objects)
    return Type(
        kinds,
        values,
        fields,
        closed,
        items,
        code=first.code,
        what=first.what,
        maybe=next((one.maybe for one in found if one.maybe), ""),
    )


def or_null(one: Type, why: str) -> Type:
    """The same, but perhaps null."""
    kinds = None if one.kinds is None else one.kinds | {"null"}
    return replace(one, kinds=kinds, values=None if one.values is None else (*one.values, None), maybe=why)


def may_fit(value: Type, wanted: Type) -> bool:
    """Whether a value of type `value` may be accepted where `wanted` is expected."""
    if value.kinds is None or wanted.kinds is None:
        return True
    allowed = set(wanted.kinds)
    if "number" in allowed or "integer" in allowed:
        allowed |= NUMBERS
    if value.kinds.isdisjoint(allowed | {"null"} if value.maybe else allowed):
        return False
    if value.only("array") and wanted.only("array") and value.items and wanted.items and value.length != 0:
        return may_fit(value.items, wanted.items)
    return True
