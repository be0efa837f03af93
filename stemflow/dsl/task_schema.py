"""The schema of workflow files with the tasks of a project in it, so that editors complete and check names and args."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

_CALLS = ("task_step", "compensation")
"""The definitions of the workflow schema that have `task` and `args`."""
_EXPRESSION = {"type": "string", "pattern": r"\$\{\{"}
_NESTED = ("properties", "patternProperties", "definitions")
_LISTED = ("anyOf", "allOf", "oneOf")
_SINGLE = ("items", "additionalProperties", "additionalItems", "contains", "not")


def with_tasks(schema: Mapping[str, Any], tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The workflow schema in which `task` is one of `tasks`, and `args` fits its schema or holds expressions."""
    found = copy.deepcopy(dict(schema))
    for name, arguments in tasks.items():
        found["definitions"] |= _definitions(name, arguments)
    for call in _CALLS:
        step = found["definitions"][call]
        step["properties"]["task"] = {"enum": sorted(tasks)}
        step["allOf"] = [*step.get("allOf", ()), *(_rule(name, arguments) for name, arguments in tasks.items())]
    return found


def _rule(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    then: dict[str, Any] = {"properties": {"args": {"$ref": f"#/definitions/{_key(name)}"}}}
    if arguments.get("required"):
        then["required"] = ["args"]
    return {"if": {"required": ["task"], "properties": {"task": {"const": name}}}, "then": then}


def _definitions(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one task and the types they refer to, under names that no other task has."""
    key = _key(name)
    own = {one: f"#/definitions/{key}.{one}" for one in arguments.get("definitions", {})}
    opened = {field: value for field, value in arguments.items() if field != "definitions"}
    opened["properties"] = {field: _open(value, own) for field, value in arguments.get("properties", {}).items()}
    types = {f"{key}.{one}": _below(value, own) for one, value in arguments.get("definitions", {}).items()}
    return {key: opened, **types}


def _key(name: str) -> str:
    return f"args of {name}".replace("/", "_").replace("~", "_").replace(" ", "_")


def _open(schema: Any, own: Mapping[str, str]) -> Any:
    """A value as the schema has it, or an expression that will give one."""
    if schema in (True, {}):
        return schema
    opened = _below(schema, own)
    has_notes = isinstance(opened, dict)
    notes = {field: opened[field] for field in ("description", "default") if has_notes and field in opened}
    return {**notes, "anyOf": [opened, _EXPRESSION]}


def _below(schema: Any, own: Mapping[str, str]) -> Any:
    """The same, with expressions allowed in place of each value inside it."""
    if not isinstance(schema, dict):
        return schema
    opened = dict(schema)
    if "prefixItems" in opened:  # a tuple, as draft 7 writes it
        opened["additionalItems"] = opened.pop("items", True)
        opened["items"] = [_open(value, own) for value in opened.pop("prefixItems")]
    for field in _NESTED:
        if field in opened:
            opened[field] = {name: _open(value, own) for name, value in opened[field].items()}
    for field in _LISTED:
        if field in opened:
            opened[field] = [_below(value, own) for value in opened[field]]
    for field in _SINGLE:
        if isinstance(opened.get(field), dict):
            opened[field] = _open(opened[field], own)
    if "$ref" in opened:
        opened["$ref"] = own.get(opened["$ref"].rpartition("/")[2], opened["$ref"])
    return opened
