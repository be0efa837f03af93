"""Every key of the language with values of every type, in every kind of step: generated from the schema, so that new
keys and kinds are among them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml

from stemflow.dsl.schema import load_schema
from stemflow.dsl.vocabulary import BODIES, KINDS
from tests.dsl.mutations import check_counted as check

SCHEMA = load_schema()
DEFINITIONS = SCHEMA["definitions"]
JUDGE = jsonschema_rs.Draft7Validator(SCHEMA)
WRONG: list[Any] = [
    None, True, -1, 0, 3.5, 10**30, "", "x y", "${{ nope }}", "${{ steps.s.output }}", "1 +", [], [None], ["a", 1], {},
    {"a": None}, {"task": 7}, [[1]], "\N{SNOWMAN}\n", {"": 1},
]  # fmt: skip


def resolved(schema: Any) -> Any:
    while "$ref" in schema:
        schema = DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    return schema


def sample(schema: Any) -> Any:
    """A small value that the schema accepts, as far as types say."""
    if schema.get("$ref", "").endswith("/step"):
        return {"task": "do"}
    schema = resolved(schema)
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if "then" in schema:
        return sample({**schema["if"], **schema["then"]})
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        wanted = schema.get("required", list(schema.get("properties", {}))[: schema.get("minProperties", 0)])
        return {key: sample(schema.get("properties", {}).get(key, {})) for key in wanted}
    if kind == "array":
        return [sample(schema.get("items", {}))] * schema.get("minItems", 1)
    return {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True, "null": None}.get(
        kind, "x"
    )


def variants(schema: Any, seen: set[str]) -> Iterator[Any]:
    """The sample with one value at a time left as it is, or replaced by each wrong one, at every depth."""
    yield sample(schema)
    yield from WRONG
    name = schema.get("$ref", "")
    if name in seen:
        return
    seen |= {name} if name else set()
    schema = resolved(schema)
    for branch in (schema.get("then"), schema.get("else")):
        if branch is not None:
            yield from variants(branch, seen)
    base = sample(schema)
    for key, inner in schema.get("properties", {}).items():
        for one in variants(inner, seen):
            yield {**(base if isinstance(base, dict) else {}), key: one}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            for one in variants(schema[key], seen):
                yield [one] if key == "items" else {"a": one}


def keys_of_kind(kind: str) -> Iterator[tuple[str, Any]]:
    """(key, step) for each key of a kind."""
    definition = DEFINITIONS[f"{kind}_step"]
    for key, schema in definition["properties"].items():
        for one in variants(schema, {"#/definitions/step"}):
            yield key, {**sample(definition), key: one}


def foreign_keys(kind: str) -> Iterator[tuple[str, Any]]:
    """Keys of other kinds next to this one."""
    definition = DEFINITIONS[f"{kind}_step"]
    for other in KINDS:
        for key, schema in DEFINITIONS[f"{other}_step"]["properties"].items():
            if key not in definition["properties"]:
                yield key, {**sample(definition), key: sample(schema)}


def top_keys() -> Iterator[tuple[str, Any]]:
    for key, schema in SCHEMA["properties"].items():
        if key not in BODIES:
            for one in variants(schema, {"#/definitions/step"}):
                yield key, one


def judge(parts: list[tuple[str, Any]], at: str) -> None:
    """A file of these top-level keys, or of these steps below `steps`, ends in findings within the block `at`."""
    lines: dict[str, range] = {}
    text = ""
    for key, value in parts:
        begun = text.count("\n") + 1
        text += yaml.dump({key: value}, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=1_000)
        lines[key] = range(begun, text.count("\n") + 1)
    checked = check(text, tasks=False)
    errors = [one for one in checked.found if one.severity == "error"]
    assert checked.workflow is not None or errors
    fits = JUDGE.is_valid(yaml.load(text, yaml.CSafeLoader))
    assert fits or errors, text
    assert not errors or any(one.line in lines[at] for one in errors), (text, errors)


def judge_step(step: Any) -> None:
    steps = {"before": {"task": "do"}, "s": step, "after": {"task": "do"}}
    text = yaml.dump({"stemflow": "1", "name": "k", "steps": steps}, Dumper=yaml.CSafeDumper, sort_keys=False)
    checked = check(text, tasks=False)
    errors = [one for one in checked.found if one.severity == "error"]
    last = text.split("\n").index("  after:") + 1
    assert all(6 <= one.line < last for one in errors), (text, errors)
    assert checked.workflow is not None or errors
    assert JUDGE.is_valid(yaml.load(text, yaml.CSafeLoader)) or errors, text


def chosen(number: int, case: tuple[str, Any], share: int) -> bool:
    """One case in `share`, but the same ones in each run."""
    return zlib.crc32(repr((number, case)).encode()) % share == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_with_a_value_of_any_type_is_judged_in_its_step(kind: str) -> None:
    for number, case in enumerate(keys_of_kind(kind)):
        if chosen(number, case, 60):
            judge_step(case[1])


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_key_with_a_value_of_every_type_is_judged_in_its_step(kind: str) -> None:
    for _, step in keys_of_kind(kind):
        judge_step(step)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_another_kind_is_refused_in_its_step(kind: str) -> None:
    tried = set()
    for key, step in foreign_keys(kind):
        if key not in tried:
            tried.add(key)
            judge_step(step)


def test_a_key_of_the_file_with_a_value_of_any_type_is_judged_in_its_block() -> None:
    for number, case in enumerate(top_keys()):
        if chosen(number, case, 60):
            judge_top(*case)


@pytest.mark.parametrize("test", [
    {"mocks": {"t": {"error": {"type": "E", "bases": None}}}},
    {"answers": {"a": {"by": "x", "note": [], "approve": 1}}},
    {"events": [{"type": "x", "data": 1, "after": None}]}, {"events": [{"type": 7}]}, {"answers": {"a": {"by": []}}},
])  # fmt: skip
def test_a_case_that_is_refused_in_part_is_no_traceback(test: dict[str, Any]) -> None:
    judge_top("tests", {"one": {"expect": {"state": "succeeded"}, **test}})


@pytest.mark.parametrize("key", ["task", "when", "timeout"])
def test_a_key_of_steps_next_to_a_key_that_is_named_like_a_kind_is_refused(key: str) -> None:
    judge_top("on", {key: 7})


@pytest.mark.long
def test_every_key_of_the_file_with_a_value_of_every_type_is_judged_in_its_block() -> None:
    for key, value in top_keys():
        judge_top(key, value)


def judge_top(key: str, value: Any) -> None:
    whole = {"stemflow": "1", "name": "k", "steps": {"a": {"task": "do"}}}
    judge([*((name, one) for name, one in whole.items() if name != key), (key, value)], key)
