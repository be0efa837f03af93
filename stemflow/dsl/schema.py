"""The JSON Schema of the file judges its shape; here its verdict becomes findings that name a place and a next step.

A file that fits is recognised by jsonschema-rs (`verdict.py`). In one that does not, jsonschema finds what is wrong,
and looks only into the steps that jsonschema-rs refuses. `$ref` goes straight to a definition, as every reference in
the schema is local, and a step is sent to the definition of its kind by the key that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stemflow.dsl.findings import Findings, Position, describe, did_you_mean
from stemflow.dsl.foreign import KEYS as FOREIGN
from stemflow.dsl.foreign import KINDS_ELSEWHERE
from stemflow.dsl.source import Node
from stemflow.dsl.verdict import Verdict
from stemflow.dsl.vocabulary import BODIES, KINDS, TASK_ONLY
from stemflow.dsl.wording import expected, show_path
from stemflow.lazy_import import LazyModule
from stemflow.model.suggest import nearest

if TYPE_CHECKING:
    from jsonschema import ValidationError, validators
else:
    validators = LazyModule("jsonschema.validators")  # slow to import, and not needed for a file that fits

_NAME = "workflow.v1.schema.json"
_HERE = Path(__file__).resolve().parent.parent
_FOLDERS = (_HERE / "schemas", _HERE.parent / "schemas")
"""Inside the package when it is installed; at the top of the repository in a source checkout."""

_LOCAL = "#/definitions/"


@cache
def load_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of workflow files."""
    for folder in _FOLDERS:
        if (folder / _NAME).is_file():
            found: dict[str, Any] = msgspec.json.decode((folder / _NAME).read_bytes())
            return found
    raise FileNotFoundError(f"{_NAME}: expected it in {_FOLDERS[0]}; install stemflow-engine again")


def _ref(validator: Any, ref: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """`$ref` to a local definition; a step goes to its kind at once, as the `if` chain of the schema would find."""
    definitions = load_schema()["definitions"]
    name = ref.removeprefix(_LOCAL)
    if name == "step" and isinstance(instance, dict):
        if _verdict(name).fits(instance):
            return iter(())
        name = next((kind for kind in ("template", *KINDS) if kind in instance), KINDS[-1]) + "_step"
    errors: Iterator[ValidationError] = validator.descend(instance, definitions[name])
    return errors


@cache
def _judge(definition: str | None = None) -> Any:
    judge: Any = validators.extend(validators.Draft7Validator, {"$ref": _ref})  # type: ignore[no-untyped-call]
    return judge(load_schema() if definition is None else load_schema()["definitions"][definition])


@cache
def _verdict(definition: str | None = None) -> Verdict:
    schema = load_schema()
    return Verdict(schema if definition is None else
                   {"$ref": f"{_LOCAL}{definition}", "definitions": schema["definitions"]})  # fmt: skip


def check_shape(root: Node, findings: Findings, definition: str | None = None) -> None:
    """Report every way in which the file is not what its schema says, and mark the values that it refuses.

    `definition`: the name of another definition of the schema, for a file that is no workflow.
    """
    reported_missing: set[tuple[str | int, ...]] = set()
    for error in () if _verdict(definition).fits(root.value) else _judge(definition).iter_errors(root.value):
        path = tuple(error.absolute_path)
        if error.validator == "required":
            if path in reported_missing:
                continue
            reported_missing.add(path)
        _report(root, path, error, findings)
    if definition is None:
        _check_body(root, findings)


def _report(root: Node, path: tuple[str | int, ...], error: Any, findings: Findings) -> None:
    node, place = find(root, path)
    where = show_path(path)
    if "propertyNames" in error.absolute_schema_path:
        name = str(error.instance)
        findings.error("SF012", f"{where}: expected a name of letters, digits, _ and -, got {describe(name)}",
                       node.key_place(name), "begin with a letter, at most 128 characters")  # fmt: skip
    elif error.validator == "additionalProperties":
        for key in error.instance:
            if key not in error.schema.get("properties", {}):
                _unknown_key(node, path, str(key), error, findings)
    elif error.validator == "required":
        _missing(node, place, path, error, findings)
    else:
        node.mark_flawed()
        wanted, hint = expected(error)
        findings.error("SF011", f"{where}: expected {wanted}, got {describe(error.instance)}", node.place, hint)


def find(root: Node, path: tuple[str | int, ...]) -> tuple[Node, Position]:
    """The node at `path`, and the place of the key or dash that leads to it."""
    node, place = root, root.place
    for step in path:
        if isinstance(step, int):
            node = node.items[step]
            place = node.place
        else:
            node, place = node.members[step], node.keys[step]
    return node, place


def _unknown_key(node: Node, path: tuple[str | int, ...], key: str, error: Any, findings: Findings) -> None:
    allowed = list(error.schema.get("properties", {}))
    where, place = show_path(path), node.key_place(key)
    definitions = load_schema()["definitions"]
    kind = next((kind for kind in ("template", *KINDS) if definitions[f"{kind}_step"] is error.schema), None)
    if kind is not None and kind not in node.members:
        # No kind was written, so a key that any kind of step knows is not what is wrong here.
        allowed = _all_step_keys()
        if key in allowed:
            return
    elif kind is not None and key in KINDS:
        findings.error("SF013", f"{where}: expected one kind, got both `{kind}` and `{key}`", place,
                       "make two steps of it, or nest one in the other")  # fmt: skip
        return
    elif kind is not None and key in TASK_ONLY:
        findings.error("SF014", f"{where}: `{key}` belongs to a task and is not supported with `{kind}`", place,
                       None if kind == "wait" else f"put it on a task in this {kind}")  # fmt: skip
        return
    near = nearest(key, allowed)
    others = [other for other in KINDS if kind is not None and key in keys_of(other)]
    if others:
        hint = f"it belongs to {_listed(others)}" if len(others) <= 3 else None
        if _is_inside(key, kind):
            hint = f"write it inside `{kind}`: {{..., {key}: ...}}"
        findings.error("SF014", f"{where}: `{key}` has no meaning next to `{kind}`", place, hint)
    elif key in FOREIGN and (near is None or not _is_typo(key, near)):
        findings.error("SF019", f"{where}: `{key}` is a key of other workflow languages", place, FOREIGN[key])
    else:
        hint = did_you_mean(key, allowed, "known keys")
        if _is_inside(key, kind):
            hint = f"write it inside `{kind}`: {{..., {key}: ...}}"
        findings.error("SF010", f"{where}: there is no key `{key}` here", place, hint)


def _is_typo(key: str, known: str) -> bool:
    """Whether `key` is a known key with one character too many, too few or another."""
    return abs(len(key) - len(known)) <= 1 and sum(a != b for a, b in zip(key, known, strict=False)) <= 1


@cache
def keys_of(kind: str) -> list[str]:
    """The keys that a step of this kind may have."""
    return list(load_schema()["definitions"][f"{kind}_step"]["properties"])


@cache
def _inner_keys(kind: str) -> frozenset[str]:
    """The keys of the mapping that the key of this kind holds."""
    definitions = load_schema()["definitions"]
    body = definitions[f"{kind}_step"]["properties"][kind]
    body = definitions[body["$ref"].rpartition("/")[2]] if "$ref" in body else body
    return frozenset(body.get("properties", {}))


def _is_inside(key: str, kind: str | None) -> bool:
    """Whether a key next to the key of its kind belongs into the mapping of that kind."""
    return kind is not None and key in _inner_keys(kind)


@cache
def _all_step_keys() -> list[str]:
    return list(dict.fromkeys(key for kind in KINDS for key in keys_of(kind)))


def _listed(kinds: list[str]) -> str:
    *most, last = (f"a {kind}" for kind in kinds)
    return f"{', '.join(most)} or {last}" if most else last


def _missing(node: Node, place: Position, path: tuple[str | int, ...], error: Any, findings: Findings) -> None:
    where = show_path(path)
    missing = [key for key in error.schema["required"] if key not in error.instance]
    if not {*missing}.isdisjoint(KINDS) and any(_replaces_a_kind(key) for key in node.members):
        return  # the key that is refused is in place of the one that is missing
    if missing != [KINDS[-1]]:
        keys = " and ".join(f"`{key}`" for key in missing)
        findings.error("SF015", f"{where}: expected the key {keys}, got none", place)
    elif all(key in _all_step_keys() for key in node.members):
        findings.error("SF013", f"{where}: expected one kind of step, got none", place,
                       f"write one of {', '.join(KINDS)}")  # fmt: skip


def _replaces_a_kind(key: str) -> bool:
    return key not in _all_step_keys() and key in KINDS_ELSEWHERE


def _check_body(root: Node, findings: Findings) -> None:
    """Exactly one body, and only keys that may accompany it."""
    if not isinstance(root.value, dict):
        return
    bodies = [key for key in BODIES if key in root.members]
    if not bodies and not {"templates", "types"} & root.members.keys():
        findings.error("SF013", "the file: expected one body, got none", root.place,
                       f"write one of {', '.join(BODIES)}")  # fmt: skip
    for extra in bodies[1:]:
        findings.error("SF013", f"the file: expected one body, got both `{bodies[0]}` and `{extra}`",
                       root.keys[extra], "keep one; the other may be a step in it")  # fmt: skip
    if bodies and bodies[0] != "steps" and "fail_fast" in root.members:
        findings.error("SF014", f"the file: `fail_fast` is not supported with `{bodies[0]}`", root.keys["fail_fast"],
                       f"make the {bodies[0]} a step in `steps`")  # fmt: skip
