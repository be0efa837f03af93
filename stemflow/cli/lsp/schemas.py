"""What the JSON Schema of workflow files says of a place in one, and what JSON Schemas are called in a few words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stemflow.dsl.schema import load_schema
from stemflow.dsl.vocabulary import KINDS

Path = tuple[str | int, ...]


def schema_at(path: Path, value_of: Callable[[Path], Any]) -> Mapping[str, Any]:
    """The schema of the mapping at a path. `value_of(path)`: what is there, which tells the kind of a step."""
    schema: Mapping[str, Any] = load_schema()
    for index, part in enumerate(path):
        inner = resolved(schema)
        if isinstance(part, int):
            inner = inner if "items" in inner else resolved(inner.get("then", {}))
            schema = inner.get("items", {})
        else:
            inner = inner if _has(inner, part) else resolved(inner.get("then", {}))
            inner = inner if _has(inner, part) else resolved(resolved(schema).get("else", {}))
            schema = inner.get("properties", {}).get(part) or inner.get("additionalProperties") or {}
        schema = schema if isinstance(schema, dict) else {}
        schema = _of_kind(schema, value_of(path[: index + 1]))
    return resolved(schema)


def _of_kind(schema: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """A step is of the kind of its key; without one, it may get any key."""
    if schema.get("$ref") != "#/definitions/step":
        return schema
    definitions = load_schema()["definitions"]
    kind = next((one for one in ("template", *KINDS) if isinstance(value, dict) and one in value), None)
    if kind is not None:
        found: Mapping[str, Any] = definitions[f"{kind}_step"]
        return found
    every = [definitions[f"{one}_step"]["properties"] for one in KINDS]
    return {"properties": {key: inner for properties in every for key, inner in properties.items()}}


def _has(schema: Mapping[str, Any], key: str) -> bool:
    return key in schema.get("properties", {}) or isinstance(schema.get("additionalProperties"), dict)


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema without `$ref`."""
    while "$ref" in schema:
        schema = load_schema()["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def described(schema: Mapping[str, Any]) -> str:
    """The description of a schema, or of the one that it refers to."""
    return str(schema.get("description") or resolved(schema).get("description") or "")


def type_words(schema: Mapping[str, Any]) -> str:
    """The type of a schema, such as `integer or null`."""
    given = schema.get("type", "any")
    return given if isinstance(given, str) else " or ".join(given)


def first_line(text: str) -> str:
    """The first line of a text that may begin with empty ones."""
    return text.strip().split("\n")[0]
