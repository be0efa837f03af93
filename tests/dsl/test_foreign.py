"""Words of other workflow languages get a sentence that says how it is written here."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stemflow.dsl.foreign import CALLS, KEYS, KINDS_ELSEWHERE, NAMES
from tests.dsl.checked import check

TYPOS = {"need", "tasks"}
"""Keys that are one character away from one of a step, which is suggested instead."""


def steps(texts: Iterable[str]) -> list[tuple[str, str | None]]:
    """(code, hint) of the findings about these steps, in their order."""
    body = "".join(f"  s{i}: {one}\n" for i, one in enumerate(texts))
    return [(one.code, one.hint) for one in check("steps:\n" + body).found]


def test_every_key_of_another_language_is_explained_on_a_step() -> None:
    keys = [key for key in KEYS if key not in TYPOS]
    assert steps(f"{{task: do, {key}: [x]}}" for key in keys) == [("SF019", KEYS[key]) for key in keys]


def test_a_kind_of_another_language_is_not_reported_as_a_missing_kind_as_well() -> None:
    keys = sorted(KINDS_ELSEWHERE)
    assert steps(f"{{{key}: [x]}}" for key in keys) == [("SF019", KEYS[key]) for key in keys]


def test_every_name_of_another_language_is_explained_in_expressions() -> None:
    found = steps(f"{{task: do, args: {{what: '${{{{ {name}.x }}}}'}}}}" for name in NAMES)
    assert found == [("SF202", hint) for hint in NAMES.values()]


def test_every_function_of_another_language_is_explained_in_expressions() -> None:
    calls = [call for call in CALLS if call != "if"]
    found = steps(f"{{task: do, when: '{call}(run.id)'}}" for call in calls)
    assert found == [("SF202", CALLS[call]) for call in calls]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("{task: do, when: 'needs.a.result == 1'}", "steps.NAME.output"),
        ("{task: do, when: always()}", "run_on: always"),
        ("{task: do, if: x}", "write when"),
        ("{task: do, when: '{{ inputs.go }}'}", "without {{ }}"),
        ("{task: do, continue-on-error: true}", "on_error: continue"),
        ("{task: do, matrix: {a: [1]}}", "map: {matrix:"),
        ("{task: do, args: {what: '{{workflow.parameters.x}}'}}", "inputs.NAME"),
        ("{task: do, args: {what: 'on {{ ds }}'}}", "today()"),
        ("{task: do, args: {what: '{{ inputs.x }}'}}", "write ${{ inputs.x }}"),
        ("{uses: x, with: {}}", "task"),
        ("{task: do, retries: 3}", "retry: {max: N"),
    ],
)
def test_what_people_bring_along_is_explained(step: str, says: str) -> None:
    found = check(f"steps:\n  b: {{task: do}}\n  a: {step}\n").found
    assert found and all(one.hint is not None for one in found) and says in str(found[-1].hint) + str(found[0].hint)
