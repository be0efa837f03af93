"""Inputs: their schemas when a file is read, their values when a run is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from stemflow.dsl.findings import Findings, describe, did_you_mean
from stemflow.dsl.named_types import NamedTypes
from stemflow.dsl.schema import find
from stemflow.dsl.source import Node
from stemflow.dsl.verdict import Verdict
from stemflow.dsl.wording import expected, show_path
from stemflow.expr.errors import Refusal
from stemflow.expr.limits import STEPS, Frame
from stemflow.expr.pattern import matches
from stemflow.lazy_import import LazyModule

if TYPE_CHECKING:
    import jsonschema
    from jsonschema import validators
else:
    # Slow to import, and not needed for inputs that fit.
    jsonschema = LazyModule("jsonschema")
    validators = LazyModule("jsonschema.validators")

DRAFT = "http://json-schema.org/draft-07/schema#"


def _mismatch(pattern: str, text: str) -> str | None:
    """What is expected where a text does not match, by the matcher of expressions, which takes linear time."""
    try:
        return None if matches(Frame({}, 0, STEPS), text, pattern) else f"a text that matches {pattern}"
    except Refusal as refusal:
        return f"a text that the pattern can be tried on ({refusal.message})"


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    if isinstance(instance, str) and (wanted := _mismatch(pattern, instance)) is not None:
        yield jsonschema.ValidationError(wanted)


class _Pattern:
    """The keyword `pattern` for jsonschema-rs."""

    def __init__(self, schema: Any, pattern: str, path: Any) -> None:
        self._pattern = pattern

    def validate(self, instance: Any) -> None:
        if isinstance(instance, str) and _mismatch(self._pattern, instance) is not None:
            raise ValueError


class _Unsure:
    """A keyword on whose values the two libraries differ, so that jsonschema is to be asked."""

    def __init__(self, schema: Any, value: Any, path: Any) -> None: ...

    def validate(self, instance: Any) -> None:
        raise ValueError


_KEYWORDS = {"pattern": _Pattern, "multipleOf": _Unsure}


@cache
def _judge_class() -> Any:
    return validators.extend(validators.Draft7Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


def read_inputs(node: Node | None, types: NamedTypes, where: str = "inputs") -> dict[str, Any]:
    """Input name -> schema; tell patterns that cannot be used and defaults that their own schema refuses."""
    if node is None:
        return {}
    found: dict[str, Any] = {}
    for name, schema in node.members.items():
        value = read_schema(schema, f"{where}.{name}", types)
        if value is not None:
            found[name] = _optional(value) if schema.value.get("required") is False else value
    return found


def _optional(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an input that is null where it is not given."""
    found: dict[str, Any] = {"default": None, **schema}
    if "type" in schema:
        found["type"] = [*dict.fromkeys((*_type_names(schema), "null"))]
    if "enum" in schema:
        found["enum"] = [*schema["enum"], None]
    if "const" in schema:
        found["enum"] = [found.pop("const"), None]
    return found


def read_schema(node: Node | None, where: str, types: NamedTypes) -> dict[str, Any] | None:
    """A schema of the file, without names of types; tell patterns that cannot be used and a default that it refuses."""
    if node is None or node.flawed or not isinstance(node.value, dict):
        return None
    if not node.is_sound():
        return dict(node.value)
    found = types.schema(node)
    if isinstance(found.get("required"), bool):
        del found["required"]
    if _patterns_hold(node, where, types.findings) and "default" in node.members:
        default = node.members["default"]
        if is_secret(found):
            wrong = misplaced_secret(default.value, f"{where}.default")
            if wrong is not None:
                types.findings.error("SF301", wrong, default.place, "leave the default out")
            return found
        for path, message in _judge(found, default.value, f"{where}.default"):
            types.findings.error("SF301", message, find(default, path)[0].place, "change the default or its schema")
    return found


def misfits(schema: Mapping[str, Any], value: Any, where: str) -> list[str]:
    """A sentence for everything in `value` that the schema refuses."""
    return list(dict.fromkeys(message for _, message in _judge(schema, value, where)))


def _patterns_hold(node: Node, where: str, findings: Findings) -> bool:
    holds = True
    pending = [(node, where)]
    while pending:
        schema, where = pending.pop()
        pattern = schema.text("pattern")
        if pattern is not None:
            try:
                matches(Frame({}, 0, STEPS), "", pattern)
            except Refusal as refusal:
                holds = False
                findings.error("SF302", f"{where}.pattern: {refusal.message}", schema.members["pattern"].place,
                               refusal.hint)  # fmt: skip
        for key in ("items", "additionalProperties"):
            inner = schema.get(key)
            if inner is not None and isinstance(inner.value, dict):
                pending.append((inner, f"{where}.{key}"))
        properties = schema.get("properties")
        for name, inner in properties.members.items() if properties is not None else ():
            pending.append((inner, f"{where}.properties.{name}"))
    return holds


def _judge(schema: Mapping[str, Any], value: Any, where: str) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path in the value, sentence) of everything that the schema refuses."""
    if Verdict(schema, _KEYWORDS).fits(value):
        return
    for error in _judge_class()(schema).iter_errors(value):
        path = tuple(error.absolute_path)
        place = f"{where}{'' if not path or isinstance(path[0], int) else '.'}{show_path(path) if path else ''}"
        yield path, f"{place}: {_sentence(error)}"


def _sentence(error: Any) -> str:
    match error.validator:
        case "pattern":
            return f"expected {error.message}, got {describe(error.instance)}"
        case "required":
            missing = [key for key in error.schema["required"] if key not in error.instance]
            return f"expected the key {' and '.join(f'`{key}`' for key in missing)}, got none"
        case "additionalProperties":
            known = error.schema.get("properties", {})
            extra = next(key for key in error.instance if key not in known)
            return f"there is no key `{extra}` here; {did_you_mean(extra, known, 'known keys')}"
    return f"expected {expected(error)[0]}, got {describe(error.instance)}"


def inputs_schema(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """One closed JSON Schema for all inputs; those without a default are required."""
    return {
        "$schema": DRAFT,
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, schema in inputs.items() if "default" not in schema],
        "properties": {name: SOURCE if is_secret(schema) else schema for name, schema in inputs.items()},
    }


SOURCE = {
    "type": "object", "minProperties": 1, "maxProperties": 1,
    "additionalProperties": {"type": "string", "minLength": 1},
}  # fmt: skip
"""The JSON Schema of where the value of a secret is."""


def is_secret(schema: Any) -> bool:
    """Whether an input is declared as secret: its value is never given, only where workers find it."""
    return isinstance(schema, Mapping) and schema.get("secret") is True


def misplaced_secret(value: Any, where: str) -> str | None:
    """A sentence, without the value, if it does not say where workers find the value of a secret input."""
    if Verdict(SOURCE, _KEYWORDS).fits(value):
        return None
    return f"{where}: it is secret, so expected where workers find its value, such as {{env: NAME}}, got something else"


def check_inputs(schemas: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The inputs of a run with defaults filled in, in the order of the file, and what is wrong with them.

    `schemas`: name -> JSON Schema, as a workflow declares its inputs.
    """
    values: dict[str, Any] = {}
    messages: list[str] = []
    for name, schema in schemas.items():
        if is_secret(schema) and name in given:
            values[name] = given[name]
            wrong = misplaced_secret(given[name], f"inputs.{name}")
            messages.extend([] if wrong is None else [wrong])
        elif name in given:
            values[name] = _whole_numbers(schema, given[name])
            messages.extend(dict.fromkeys(message for _, message in _judge(schema, given[name], f"inputs.{name}")))
        elif "default" in schema:
            values[name] = _whole_numbers(schema, schema["default"])
        else:
            messages.append(f"inputs.{name}: expected a value, got none; give it, or write a default into the file")
    for name in given:
        if name not in schemas:
            messages.append(f"inputs.{name}: there is no such input; {did_you_mean(name, schemas, 'inputs')}")
    return values, messages


def _whole_numbers(schema: Any, value: Any) -> Any:
    """The value with 3.0 as 3 where the schema asks for integers, for which JSON Schema takes both."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, float) and value.is_integer() and "integer" in _type_names(schema):
        return value if "number" in _type_names(schema) else int(value)
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [_whole_numbers(schema["items"], one) for one in value]
    if isinstance(value, Mapping):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        return {key: _whole_numbers(known.get(key, others), one) for key, one in value.items()}
    return value


def _type_names(schema: Mapping[str, Any]) -> Sequence[str]:
    given = schema.get("type", ())
    return (given,) if isinstance(given, str) else given
