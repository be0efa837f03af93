"""Comparing the run of a case with what the case expects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from stemflow.cli.render import error_text
from stemflow.cli.test.rehearse import Outcome
from stemflow.cli.text import clip, json_text
from stemflow.dsl.cases import Case
from stemflow.model.records import FAILED, SKIPPED, SUCCEEDED, parent_path
from stemflow.testing.rehearsal import Call
from stemflow.units import format_duration

UNDO = "!undo"
_WIDEST = 300


class Fault(NamedTuple):
    """What is not as expected; `key` is the expectation."""

    key: str
    message: str


def faults(case: Case, outcome: Outcome) -> list[Fault]:
    """Everything that is not as the case expects."""
    if outcome.broken is not None:
        return [Fault("", outcome.broken)]
    found: list[Fault] = []
    for key, expected in case.expect.items():
        found += [Fault(key, message) for message in _CHECKS[key](case, outcome, expected)]
    return found


def started(outcome: Outcome, path: str) -> bool:
    """Whether the step began to run."""
    row = outcome.by_path.get(path)
    if row is None or row.node is None or row.state == SKIPPED:
        return False
    below = tuple(path + mark for mark in (".", "[", "!"))
    called = any(call.node == path or call.node.startswith(below) for call in outcome.calls)
    return called or row.state in (SUCCEEDED, FAILED)


def state_of(outcome: Outcome, path: str) -> str | None:
    """How the step ended; one inside a step that was skipped is skipped. None: there is no such step."""
    while path:
        row = outcome.by_path.get(path)
        if row is not None:
            return row.state
        path = parent_path(path)
        above = outcome.by_path.get(path)
        if above is not None:
            return above.state if above.state in (SKIPPED, "cancelled") else None
    return None


def undone(outcome: Outcome, named: list[str]) -> list[str]:
    """The steps whose compensation succeeded, in order; those inside a step of `named` count as that step."""
    found: list[str] = []
    for call in outcome.calls:
        row = outcome.by_path.get(call.node)
        if call.node.startswith(UNDO) and row is not None and row.state == SUCCEEDED:
            path = call.node.removeprefix(UNDO).removeprefix(".")
            name = next((one for one in named if path == one or path.startswith((f"{one}.", f"{one}["))), path)
            if not found or found[-1] != name:
                found.append(name)
    return list(dict.fromkeys(found))


def _state(case: Case, outcome: Outcome, expected: str) -> Iterator[str]:
    state = SUCCEEDED if outcome.state == SKIPPED else outcome.state
    if state != expected:
        why = f": {outcome.failed_at}: {error_text(outcome.error)}" if outcome.error is not None else ""
        yield f"expected {expected}, got {state}{why}"


def _outputs(case: Case, outcome: Outcome, expected: Mapping[str, Any]) -> Iterator[str]:
    given = outcome.outputs if isinstance(outcome.outputs, dict) else {}
    for name, value in expected.items():
        if name not in given:
            yield f"{name}: expected {_short(value)}, got none"
        elif not equal(given[name], value):
            yield f"{name}: expected {_short(value)}, got {_short(given[name])}"


def equal(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def _error(case: Case, outcome: Outcome, expected: Mapping[str, str]) -> Iterator[str]:
    if outcome.error is None:
        yield "expected an error, got none"
        return
    if "type" in expected and expected["type"] not in (outcome.error.type, outcome.error.qualname):
        yield f"type: expected {expected['type']}, got {error_text(outcome.error)}"
    if expected.get("message", "") not in outcome.error.message:
        yield f"message: expected one with {expected['message']!r}, got {error_text(outcome.error)}"
    if "step" in expected and expected["step"] != outcome.failed_at:
        yield f"step: expected {expected['step']}, got {outcome.failed_at or 'the run itself'}"


def _ran(case: Case, outcome: Outcome, expected: list[str]) -> Iterator[str]:
    for step in expected:
        if not started(outcome, step):
            yield f"expected {step} to run, and it {_how(outcome, step)}"


def _not_ran(case: Case, outcome: Outcome, expected: list[str]) -> Iterator[str]:
    for step in expected:
        if started(outcome, step):
            yield f"expected {step} not to run, and it {_how(outcome, step)}"


def _ended(state: str) -> Callable[[Case, Outcome, list[str]], Iterator[str]]:
    def check(case: Case, outcome: Outcome, expected: list[str]) -> Iterator[str]:
        for step in expected:
            if state_of(outcome, step) != state:
                yield f"expected {step} to be {state}, and it {_how(outcome, step)}"

    return check


def _how(outcome: Outcome, step: str) -> str:
    state = state_of(outcome, step)
    if state is None:
        return "is not in the run"
    row = outcome.by_path.get(step)
    error = None if row is None or row.node is None else row.node.error
    return f"{'was' if state in ('skipped', 'cancelled') else 'has'} {state}" + (
        f" with {error_text(error)}" if error is not None else ""
    )


def _undone(case: Case, outcome: Outcome, expected: list[str]) -> Iterator[str]:
    found = undone(outcome, expected)
    if found != expected:
        yield f"expected {', '.join(expected) or 'none'} in this order, got {', '.join(found) or 'none'}"


def _order(case: Case, outcome: Outcome, expected: list[str]) -> Iterator[str]:
    seen = [path for path in outcome.created if path in expected and started(outcome, path)]
    if seen != expected:
        yield f"expected {', '.join(expected)}, got {', '.join(seen) or 'none of them'}"


def _attempts(case: Case, outcome: Outcome, expected: Mapping[str, int]) -> Iterator[str]:
    for step, count in expected.items():
        made = len(_calls_of(outcome, step))
        if made != count:
            yield f"{step}: expected {count}, got {made}"


def _calls_of(outcome: Outcome, step: str) -> list[Call]:
    """The calls of a task. With a `catch` or a `finally`, it is the only link of a chain that the step has become."""
    inner = f"{step}[0]" if f"{step}[1]" not in outcome.by_path else step
    return [call for call in outcome.calls if call.node in (step, inner)]


def _calls(case: Case, outcome: Outcome, expected: Mapping[str, int]) -> Iterator[str]:
    for task, count in expected.items():
        made = sum(call.task == task for call in outcome.calls)
        if made != count:
            yield f"{task}: expected {count}, got {made}"


def _args(case: Case, outcome: Outcome, expected: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for step, wanted in expected.items():
        calls = _calls_of(outcome, step)
        if not calls:
            yield f"expected a call of {step}, and it {_how(outcome, step)}"
            continue
        last = calls[-1]
        for name, value in wanted.items():
            if name not in last.kwargs or not equal(last.kwargs[name], value):
                got = _short(last.kwargs[name]) if name in last.kwargs else "none"
                yield f"{step}: {name}: expected {_short(value)}, got {got}"


def _time(case: Case, outcome: Outcome, expected: Any) -> Iterator[str]:
    least, most = case.time_ms
    took = format_duration(outcome.elapsed_ms)
    if least is not None and least == most and outcome.elapsed_ms != least:
        yield f"expected {format_duration(least)}, got {took}"
    elif least is not None and outcome.elapsed_ms < least:
        yield f"expected at least {format_duration(least)}, got {took}"
    elif most is not None and outcome.elapsed_ms > most:
        yield f"expected at most {format_duration(most)}, got {took}"


def _short(value: Any) -> str:
    return clip(json_text(value), _WIDEST)


_CHECKS: Mapping[str, Callable[[Case, Outcome, Any], Iterator[str]]] = {
    "state": _state,
    "outputs": _outputs,
    "error": _error,
    "ran": _ran,
    "not_ran": _not_ran,
    "succeeded": _ended("succeeded"),
    "failed": _ended("failed"),
    "skipped": _ended("skipped"),
    "cancelled": _ended("cancelled"),
    "undone": _undone,
    "order": _order,
    "attempts": _attempts,
    "calls": _calls,
    "args": _args,
    "time": _time,
}
