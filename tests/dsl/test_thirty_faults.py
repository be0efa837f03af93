"""The table of docs/checkers.md: 30 faults, and the finding of stemflow for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.dsl.checked import arg, check, step

PAGE = Path(__file__).parents[2] / "docs" / "checkers.md"
INPUT = "inputs: {order: {type: string, default: x}, n: {type: integer, default: 1}}\n"
FAULTS = {
    "a key that is misspelt": step("{task: do, needz: [a]}"),
    "a key that is written twice": step("{task: do, task: do}"),
    "a tab as indentation": "steps:\n\ta: {task: do}\n",
    "a value of a wrong type": step("{task: do, retry: {max: many}}"),
    "an unknown step in `needs`": step("{task: do, needs: [aa]}"),
    "a step that needs itself": step("{task: do, needs: [b]}"),
    "a cycle of three steps": "steps:\n  a: {task: do, needs: [c]}\n  b: {task: do, needs: [a]}\n"
    "  c: {task: do, needs: [b]}\n",
    "a step twice in `needs`": step("{task: do, needs: [a, a]}"),
    "an expression that cannot be read": arg("1 +"),
    "an expression that is not closed": step('{task: do, args: {what: "${{ inputs"}}'),
    "an unknown name": arg("imputs.order", INPUT),
    "an unknown function": arg("lenn(inputs.order)", INPUT),
    "too few arguments of a function": arg("matches(inputs.order)", INPUT),
    "an unknown input": arg("inputs.ordr", INPUT),
    "an unknown step in an expression": arg("steps.y.output"),
    "a value of a step that has not run yet": step('{task: do, args: {what: "${{ steps.b.output }}"}}'),
    "a field that no step has": arg("steps.a.outputs"),
    "a condition that is always true": step("{task: do, when: 2 > 1}"),
    "a condition with text around it": step("{task: do, when: \"${{ inputs.n }} == 'x'\"}", INPUT),
    "a default that its own type refuses": "inputs: {n: {type: integer, default: many}}\n" + arg("inputs.n"),
    "an unknown type of an input": "inputs: {n: {type: str}}\n" + arg("inputs.n"),
    "an unknown argument of a task": step("{task: do, args: {whta: 1}}"),
    "a cron expression that cannot be": 'on: {schedule: {s: {cron: "61 * * * *"}}}\n' + step("{task: do}"),
    "a time limit of 0": step("{task: do, timeout: 0}"),
    "two kinds in a step": step("{task: do, chain: [{task: do}]}"),
    "no kind in a step": step("{needs: [a]}"),
    "a password in clear": step("{task: do, args: {what: {password: hunter22horse}}}"),
    "an input that nothing reads": INPUT + step("{task: do}"),
    "a field of a text": arg("inputs.order.x", INPUT),
    "a comparison of types that are never equal": step("{task: do, when: inputs.n == 'x'}", INPUT),
}
ROWS = dict(re.findall(r"^\| ([^|]+) \| (SF\d{3}) \|", PAGE.read_text("utf-8"), re.MULTILINE))


def test_the_page_has_these_faults() -> None:
    assert list(ROWS) == list(FAULTS)
    assert len(FAULTS) == 30


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault: str) -> None:
    found = check(FAULTS[fault], tasks=True).found
    assert ROWS[fault] in {one.code for one in found}, found
