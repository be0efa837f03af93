"""The rules for events, approvals, and conditions other than `when`."""

from __future__ import annotations

import pytest

from tests.dsl.checked import check, step, told


@pytest.mark.parametrize(
    ("text", "code", "mark"),
    [
        ("{event: {type: x.y, match: event.id}}", "SF208", "event.id"),
        ("{event: {type: x.y, match: 'false'}}", "SF209", "'false'"),
        ("{event: {type: x.y, match: event.kind == 'a'}}", "SF207", "event.kind"),
        ("{event: {type: x.y, timeout: 0s}}", "SF505", "0s"),
        ("{approval: {timeout: 0}}", "SF505", "0"),
        ("{timeout: 1h, chain: [{task: do}, {event: {type: x.y, timeout: 2h}}]}", "SF510", "2h"),
        ("{timeout: 1h, chain: [{task: do}, {approval: {timeout: 2h}}]}", "SF510", "2h"),
        ("{task: do, catch: {when: 'false', do: {task: do}}}", "SF209", "'false'"),
        ("{task: do, catch: [{when: error.message, do: {task: do}}]}", "SF208", "error.message"),
        ("{loop: {until: inputs, do: {task: do}}}", "SF208", "inputs"),
        ("{loop: {while: '3', do: {task: do}}}", "SF208", "'3'"),
    ],
)
def test_a_fault_is_found_on_its_part(text: str, code: str, mark: str) -> None:
    assert (code, mark) in told(check(step(text)))


@pytest.mark.parametrize(
    "text",
    [
        "{event: {type: x.y, match: event.data.paid, timeout: 1h}}",
        "{loop: {while: 'true', max: 3, do: {task: do}}}",
        "{timeout: 1h, chain: [{task: do}, {event: {type: x.y, timeout: 30m}}]}",
        "{task: do, catch: {when: error.data == 3, do: {task: do}}}",
    ],
)
def test_what_may_be_right_is_not_reported(text: str) -> None:
    assert told(check(step(text))) == []


@pytest.mark.parametrize(
    ("sent", "match", "found"),
    [("a.b", "", [("SF525", "a.b")]), ("a.c", "", []), ("a.b", ", match: event.data.first", [])],
)
def test_a_workflow_does_not_start_itself(sent: str, match: str, found: list[tuple[str, str]]) -> None:
    body = f"on: {{event: {{type: a.b{match}}}}}\nsteps:\n  tell: {{emit: {{type: {sent}}}}}\n"
    assert told(check(body)) == found
