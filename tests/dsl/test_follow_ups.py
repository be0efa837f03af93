"""What the checker knows of catches, hooks and cleanups: their error, and the time that they have."""

from __future__ import annotations

import pytest

from tests.dsl.checked import check, step, told

TASK = '{task: do, args: {what: "${{ error.message }}"}}'
LATE = "wait: {for: 2h}"


@pytest.mark.parametrize("do", [TASK, f"{{chain: [{TASK}, {TASK}]}}"])
@pytest.mark.parametrize(("hook", "codes"), [("on_failure", []), ("on_cancel", ["SF214"])])
def test_the_error_of_a_run_is_there_where_the_run_has_failed(hook: str, do: str, codes: list[str]) -> None:
    found = check(f"steps: {{a: {{task: do}}}}\n{hook}: {{do: {do}}}\n")
    assert list(dict(told(found))) == codes


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (f"{{steps: {{x: {{{LATE}}}}}, timeout: 1h}}", ["SF511"]),
        (f"{{task: do, timeout: 1h, catch: {{do: {{{LATE}}}}}}}", []),
        (f"{{task: do, timeout: 1h, finally: {{chain: [{{{LATE}}}, {{task: do}}]}}}}", []),
        (f"{{steps: {{x: {{task: do, catch: {{do: {{{LATE}}}}}}}}}, timeout: 1h}}", ["SF511"]),
        (f"{{steps: {{x: {{task: do, finally: {{{LATE}}}}}}}, timeout: 1h}}", []),
    ],
)
def test_a_follow_up_has_the_time_of_what_is_around_its_step(text: str, codes: list[str]) -> None:
    assert [one for one, _ in told(check(step(text)))] == codes


def test_the_time_of_a_run_is_not_that_of_its_hooks() -> None:
    found = check(f"timeout: 1h\nsteps: {{a: {{task: do}}}}\non_failure: {{do: {{{LATE}}}}}\nfinally: {{{LATE}}}\n")
    assert told(found) == []
