"""Test cases of a workflow: what `tests` of a workflow file, or a file of tests, contains."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stemflow.dsl.expressions import Expressions, Names
from stemflow.dsl.findings import Findings, Position, did_you_mean
from stemflow.dsl.schema import check_shape
from stemflow.dsl.source import Node, read
from stemflow.errors import UnitError
from stemflow.model.diagnostic import Diagnostic
from stemflow.units import parse_duration_ms

MOCK_NAMES: Names = frozenset({"args", "call"})
"""What expressions in the value of a mock may read."""
STEP_LISTS = ("ran", "not_ran", "succeeded", "failed", "skipped", "cancelled", "undone", "order")
"""Expectations that list steps."""
_INDEX = re.compile(r"(\[\d+\])")


class MockError(NamedTuple):
    """The error that a mock raises; `bases` are names of its base classes."""

    type: str
    message: str = ""
    data: Any = None
    bases: tuple[str, ...] = ()


class Mock(NamedTuple):
    """What one call of a task gives, after a delay: `value`, which may hold expressions, or an error."""

    value: Any = None
    error: MockError | None = None
    delay_ms: int = 0


class Answer(NamedTuple):
    """The answer to an approval, `after_ms` after the step began to wait."""

    step: str
    approve: bool
    by: str
    note: str
    inputs: Mapping[str, Any]
    after_ms: int


class Sent(NamedTuple):
    """An event that is sent `after_ms` after the start of the run."""

    type: str
    data: Any
    after_ms: int


@dataclass(frozen=True, slots=True)
class Case:
    """One test case. `expect` is as it is written; `time_ms` are the bounds of its `time`."""

    name: str
    place: Position
    inputs: Mapping[str, Any]
    mocks: Mapping[str, tuple[Mock, ...]]
    cancel_after_ms: int | None
    expect: Mapping[str, Any]
    places: Mapping[str, Position]
    """Where each expectation is in the file."""
    time_ms: tuple[int | None, int | None] = (None, None)
    answers: tuple[Answer, ...] = ()
    events: tuple[Sent, ...] = ()


class Known(NamedTuple):
    """What the cases of a workflow may name. None: that is not known, as the file is broken."""

    steps: Collection[str] | None
    tasks: Collection[str] | None
    inputs: Collection[str] | None
    outputs: Collection[str] | None


class CaseFile(NamedTuple):
    """A file of tests. `workflow` is the file that it names."""

    workflow: str | None
    cases: tuple[Case, ...]
    diagnostics: tuple[Diagnostic, ...]
    root: Node | None


def static_path(path: str, known: Collection[str]) -> str:
    """The path in the file of the step at `path` of a run: `each[3].load` is `each[*].load`."""
    found = ""
    for part in _INDEX.split(path):
        found += "[*]" if _INDEX.fullmatch(part) and f"{found}[*]" in known else part
    return found


def read_case_file(text: str, file: str) -> CaseFile:
    """Read a file of tests; what it may name is checked by `unknown_names` once its workflow has been read."""
    findings = Findings(file)
    root = read(text.removeprefix("\ufeff"), findings)
    if root is None:
        return CaseFile(None, (), findings.by_place(), None)
    check_shape(root, findings, "test_file")
    cases = read_cases(root.get("tests"), Expressions(text.removeprefix("\ufeff"), findings), findings)
    return CaseFile(root.text("workflow"), cases, findings.by_place(), root)


def read_cases(tests: Node | None, expressions: Expressions, findings: Findings) -> tuple[Case, ...]:
    """The cases that can be read; findings tell what cannot."""
    if tests is None:
        return ()
    return tuple(
        _case(name, node, tests.keys[name], expressions, findings)
        for name, node in tests.members.items()
        if not node.flawed and isinstance(node.value, dict)
    )


def _case(name: str, node: Node, place: Position, expressions: Expressions, findings: Findings) -> Case:
    expect = node.get("expect")
    expected = {} if expect is None else {key: one.value for key, one in expect.members.items() if not one.flawed}
    return Case(
        name,
        place,
        {} if (inputs := node.get("inputs")) is None else inputs.value,
        {task: _mocks(one, expressions, findings) for task, one in node.entries("mocks").items() if not one.flawed},
        _duration_ms(node, "cancel_after", findings),
        expected,
        {} if expect is None else dict(expect.keys),
        _time(expect, findings),
        tuple(_answer(step, one, findings) for step, one in node.entries("answers").items()
              if one.get("by") and one.is_sound()),
        () if (events := node.get("events")) is None else tuple(
            Sent(one.value["type"], one.value.get("data"), _duration_ms(one, "after", findings) or 0)
            for one in events.items if one.get("type") is not None and one.is_sound()
        ),
    )  # fmt: skip


def _answer(step: str, node: Node, findings: Findings) -> Answer:
    given = node.value
    note, inputs = given.get("note", ""), given.get("inputs", {})
    after_ms = _duration_ms(node, "after", findings) or 0
    return Answer(step, given.get("approve", True), given["by"], note, inputs, after_ms)


def _mocks(node: Node, expressions: Expressions, findings: Findings) -> tuple[Mock, ...]:
    each = node.items if isinstance(node.value, list) else [node]
    return tuple(_mock(one, expressions, findings) for one in each if isinstance(one.value, dict) and not one.flawed)


def _mock(node: Node, expressions: Expressions, findings: Findings) -> Mock:
    if "value" in node.members and "error" in node.members:
        findings.error("SF013", "a mock: expected `value` or `error`, got both", node.keys["error"])
    value, error = node.get("value"), node.get("error")
    expressions.template(value, MOCK_NAMES, "")
    given = None
    if error is not None and isinstance(error.value, str):
        given = MockError(error.value)
    elif error is not None and "type" in error.members and error.is_sound():
        of = error.value
        given = MockError(of["type"], of.get("message", ""), of.get("data"), tuple(of.get("bases", ())))
    return Mock(None if value is None else value.value, given, _duration_ms(node, "delay", findings) or 0)


def _time(expect: Node | None, findings: Findings) -> tuple[int | None, int | None]:
    time = None if expect is None else expect.get("time")
    if expect is None or time is None:
        return None, None
    if isinstance(time.value, dict):
        return _duration_ms(time, "min", findings), _duration_ms(time, "max", findings)
    exact = _duration_ms(expect, "time", findings)
    return exact, exact


def _duration_ms(parent: Node, key: str, findings: Findings) -> int | None:
    node = parent.get(key)
    if node is None:
        return None
    try:
        return parse_duration_ms(node.value)
    except UnitError as error:
        findings.error("SF501", f"{key}: {error}", node.place)
        return None


def unknown_names(tests: Node | None, known: Known) -> Iterator[tuple[str, Position, str]]:
    """(sentence, place, hint) for each step, task, input and output that a case names and the workflow lacks."""
    for case in () if tests is None or tests.flawed else tests.members.values():
        expect = case.get("expect")
        yield from _unknown(_keys(case.get("inputs")), known.inputs, "input", "inputs")
        yield from _unknown(_keys(case.get("mocks")), known.tasks, "task", "tasks of the workflow")
        yield from _unknown(_keys(case.get("answers")), known.steps, "step", "steps")
        if expect is None:
            continue
        yield from _unknown(_keys(expect.get("outputs")), known.outputs, "output", "outputs")
        yield from _unknown(_keys(expect.get("calls")), known.tasks, "task", "tasks of the workflow")
        for key in STEP_LISTS:
            listed = expect.get(key)
            named = [] if listed is None else [(one.value, one.place) for one in listed.items if not one.flawed]
            yield from _unknown(named, known.steps, "step", "steps")
        for key in ("attempts", "args"):
            yield from _unknown(_keys(expect.get(key)), known.steps, "step", "steps")
        error = expect.get("error")
        step = None if error is None else error.get("step")
        if step is not None:
            yield from _unknown([(step.value, step.place)], known.steps, "step", "steps")


def _keys(node: Node | None) -> list[tuple[str, Position]]:
    return [] if node is None else list(node.keys.items())


def _unknown(
    named: list[tuple[str, Position]], known: Collection[str] | None, what: str, plural: str
) -> Iterator[tuple[str, Position, str]]:
    for name, place in named if known is not None else ():
        assert known is not None
        if (static_path(name, known) if what == "step" else name) not in known:
            yield f"the workflow has no {what} `{name}`", place, did_you_mean(name, known, plural)
