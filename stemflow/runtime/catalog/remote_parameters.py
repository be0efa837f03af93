"""The parameters of a task that is not registered here, by the JSON Schema that its worker has declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemflow.runtime.catalog.published import Declaration
from stemflow.runtime.payloads.converters import Convert, Converter, Misfit, shown
from stemflow.runtime.payloads.json_data import NotSerializable, plain
from stemflow.runtime.tasks.parameters import Parameter, Parameters


class DeclaredConverter(Converter):
    """Checks a value against a JSON Schema and returns it unchanged; an empty schema accepts everything."""

    __slots__ = ()

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.annotation, self.exact = Any, None
        self.convert = _by_schema(schema) if schema else None


ANYTHING = DeclaredConverter({})


def declared_parameters(task: str, declaration: Declaration) -> Parameters:
    """The parameters of a declared task: values that the schema cannot check exactly are left to the worker."""
    schema = declaration.schema
    properties, definitions = schema.get("properties", {}), schema.get("definitions", {})
    required, by_position = set(schema.get("required", ())), declaration.options.get("params", ())

    def one(name: str) -> Parameter:
        own = properties.get(name)
        exact = own and name not in declaration.loose
        converter = DeclaredConverter({**own, "definitions": definitions}) if exact else ANYTHING
        return Parameter(name, converter, name in required, own is not None)

    return Parameters(
        task,
        [one(name) for name in by_position],
        [one(name) for name in properties if name not in by_position],
        ANYTHING if declaration.rest else None,
        None if schema.get("additionalProperties") is False else ANYTHING,
    )


_CHECKED = frozenset((
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "enum",
    "const", "anyOf", "oneOf", "allOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minProperties", "maxProperties", "$ref", "definitions", "title", "description",
    "default", "discriminator", "format", "contentEncoding",
))  # fmt: skip
"""Keywords of a declared schema that are checked: each in time proportional to schema and value."""
_BY_NAME = frozenset(("properties", "definitions"))
"""Keywords whose value has schemas by name."""
_DATA = frozenset(("enum", "const", "default", "required", "discriminator"))
"""Keywords whose value is data."""
DEEPEST = 64
"""Levels of a schema that are checked."""


def bounded(schema: Any, depth: int = 0) -> Any:
    """What of a schema from a store is checked here: no pattern, no reference but to a definition of its own, no
    keyword whose time is not bounded. The worker checks the rest."""
    if isinstance(schema, list):
        return [bounded(one, depth + 1) for one in schema]
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return True if depth > DEEPEST else schema
    found: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "$ref" and not (isinstance(value, str) and value.startswith("#/definitions/")):
            return {}
        if keyword not in _CHECKED:
            continue
        if keyword in _BY_NAME and isinstance(value, Mapping):
            found[keyword] = {name: bounded(one, depth + 1) for name, one in value.items()}
        else:
            found[keyword] = value if keyword in _DATA else bounded(value, depth + 1)
    return found


def _by_schema(schema: Mapping[str, Any]) -> Convert:
    # Who submits tasks of others alone needs it, and only for those.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import extend  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    from stemflow.dsl.wording import expected  # noqa: PLC0415

    lists = Draft202012Validator.TYPE_CHECKER.redefine("array", lambda _, value: isinstance(value, (list, tuple)))
    checker: Any = extend(Draft202012Validator, type_checker=lists)  # type: ignore[no-untyped-call]
    validator = checker(bounded(schema), registry=Registry())  # which retrieves nothing

    def checked(value: Any) -> Any:
        try:
            data = plain(value, "arguments")
        except NotSerializable:  # an encoder takes it that can write more than JSON
            return value
        try:
            fault = next(validator.iter_errors(data), None)
        except Exception:  # a schema that refers to itself, or is none: the worker checks
            return value
        if fault is not None:
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault.absolute_path)
            raise Misfit(expected(fault)[0], shown(fault.instance), path)
        return value

    return checked
