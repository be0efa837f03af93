"""Inputs of a run: `-i NAME=VALUE` and `--inputs FILE`, checked against what the workflow declares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stemflow.cli.exits import Refused
from stemflow.dsl.findings import Findings
from stemflow.dsl.source import read
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.other_files import bounded_text
from stemflow.runtime.client.workflow_files import complete_inputs
from stemflow.runtime.values.forms import InvalidInputs


def read_inputs(workflow: Workflow, given: Sequence[str], file: str | None) -> dict[str, Any]:
    """The inputs with defaults filled in; raises Refused with every value that is wrong."""
    values = given_inputs(workflow.inputs, given, file)
    try:
        return complete_inputs(workflow, values)
    except InvalidInputs as wrong:
        first, *more = wrong.messages
        raise Refused(first, more=(*more, "nothing was started; give inputs with -i NAME=VALUE")) from None


def given_inputs(schemas: Mapping[str, Any], given: Sequence[str], file: str | None) -> dict[str, Any]:
    """The values of `-i NAME=VALUE` and of a file, read as their schemas say, and not checked."""
    values = {} if file is None else _from_file(file)
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise Refused(f"-i {one}: expected NAME=VALUE, got no {'=' if name else 'name'}; write -i name=value")
        values[name] = _value(text, schemas.get(name))
    return values


def _value(text: str, schema: Any) -> Any:
    """The value of `-i`: as text if the input is declared as text; otherwise parsed as JSON if it is valid JSON."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    try:
        return read_json(text)
    except ValueError:
        return text


def read_json(text: str) -> Any:
    """JSON data, without the words NaN and Infinity, which are none. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _read_yaml(text: str) -> Any:
    """By the rules of workflow files, which have no dates, no octal numbers, and `no` as a text. Raises ValueError."""
    findings = Findings("")
    root = read(text, findings)
    wrong = next((one for one in findings.by_place() if one.severity == "error"), None)
    if wrong is not None or root is None:
        raise ValueError("the file cannot be read" if wrong is None else f"line {wrong.line}: {wrong.message}")
    return root.value


def _from_file(file: str) -> dict[str, Any]:
    where, form = f"--inputs {file}", "JSON" if file.endswith(".json") else "YAML"
    try:
        text = bounded_text(Path(file))
        values = read_json(text) if form == "JSON" else _read_yaml(text)
    except OSError as error:
        raise Refused(f"{where}: expected a file that can be read, got {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise Refused(f"{where}: expected UTF-8 text, got something else; save it as UTF-8") from None
    except ValueError as error:
        raise Refused(f"{where}: expected {form}, got {' '.join(str(error).split())}; correct it") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise Refused(f"{where}: expected a mapping of input names to values, got something else; write name: value")
    return values
