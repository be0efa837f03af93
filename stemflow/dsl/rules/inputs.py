"""SF3: schemas of inputs that contradict themselves."""

from __future__ import annotations

from collections.abc import Iterator

from stemflow.dsl.named_types import JSON_TYPES
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.types import NUMBERS, kind_of
from stemflow.dsl.rules.view import View
from stemflow.dsl.source import Node
from stemflow.dsl.vocabulary import BODIES

_BOUNDS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_FOR: dict[str, frozenset[str]] = {
    **dict.fromkeys(("pattern", "minLength", "maxLength"), frozenset({"string"})),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), NUMBERS),
    **dict.fromkeys(("items", "minItems", "maxItems", "uniqueItems"), frozenset({"array"})),
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "minProperties", "maxProperties"), frozenset({"object"})
    ),
}
"""Keyword -> the types of values that it says something about."""


def schemas(view: View) -> Iterator[tuple[str, Node]]:
    """(path, schema) of every input and declared result, and of what is inside."""
    pending = [(f"inputs.{name}", one) for name, one in view.root.entries("inputs").items()]
    results = ((f"{step.path}.returns", step.node.get("returns")) for step in view.steps.values())
    pending += [(where, one) for where, one in results if one is not None]
    pending += [(f"types.{name}", one) for name, one in view.root.entries("types").items()]
    while pending:
        where, node = pending.pop()
        if node.flawed or not isinstance(node.value, dict):
            continue
        yield where, node
        for key in ("items", "additionalProperties"):
            inner = node.get(key)
            if inner is not None and isinstance(inner.value, dict):
                pending.append((f"{where}.{key}", inner))
        for name, inner in node.entries("properties").items():
            pending.append((f"{where}.properties.{name}", inner))


def _types(node: Node) -> frozenset[str] | None:
    given = node.get("type")
    if given is None:
        return None
    names = given.value if isinstance(given.value, list) else [given.value]
    found = frozenset(name for name in names if isinstance(name, str))
    if not found <= frozenset(JSON_TYPES):
        return None  # the name of a type
    return found | {"integer"} if "number" in found else found


@rule("SF305")
def impossible_schemas(view: View) -> Iterator[Found]:
    """A schema that no value fits."""
    for where, node in schemas(view):
        for low_key, high_key in _BOUNDS:
            low, high = node.get(low_key), node.get(high_key)
            if low is not None and high is not None and low.value > high.value:
                yield Found(
                    f"{where}: {low_key} ({low.value}) is above {high_key} ({high.value})",
                    low.place,
                    "no value fits; change one of them",
                )
        types, enum = _types(node), node.get("enum")
        for item in enum.items if enum is not None and types is not None else ():
            if types is not None and kind_of(item.value) not in types:
                yield Found(
                    f"{where}.enum: {item.value!r} is not of the declared type",
                    item.place,
                    "change the value or `type`",
                )


@rule("SF308", "warning")
def keywords_without_effect(view: View) -> Iterator[Found]:
    """A keyword of a schema that says nothing about values of its type."""
    for where, node in schemas(view):
        types = _types(node)
        for key, value in node.members.items():
            optional = key == "required" and isinstance(value.value, bool)
            about = None if optional else _FOR.get(key)
            if types is not None and about is not None and types.isdisjoint(about):
                yield Found(
                    f"{where}: `{key}` has no effect on {' or '.join(sorted(types))}",
                    node.keys[key],
                    f"it is for {' or '.join(sorted(about))}",
                )


@rule("SF309")
def required_but_closed(view: View) -> Iterator[Found]:
    """A property that is required and not allowed."""
    for where, node in schemas(view):
        extra, required, properties = node.get("additionalProperties"), node.get("required"), node.get("properties")
        if extra is None or extra.value is not False or required is None:
            continue
        known = {} if properties is None else properties.members
        for item in required.items:
            if item.value not in known:
                yield Found(
                    f"{where}.required: `{item.value}` is not among the properties, and no others are allowed",
                    item.place,
                    "add it to `properties`",
                )


@rule("SF710", "warning")
def unused_types(view: View) -> Iterator[Found]:
    """A type that no schema names. A file without a body defines types for others."""
    if not view.whole or not any(body in view.root.members for body in BODIES):
        return
    types = view.root.get("types")
    for name, place in ({} if types is None else types.keys).items():
        if name not in view.types.used:
            yield Found(f"types: no schema uses the type `{name}`", place, "take it out")
