"""A wait ends after a duration or at an instant; both may be computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, Stemflow, TaskRegistry, load_workflow
from stemflow.testing.simulation.virtual_loop import VirtualClock

FILE = """\
stemflow: "1"
name: pause
inputs:
  value: {default: 90s}
steps:
  pause:
    wait: {KEY: "${{ inputs.value }}"}
  after: {needs: [pause], task: now}
outputs: {at: "${{ steps.after.output }}"}
"""


@pytest.fixture
def now(registry: TaskRegistry, clock: VirtualClock) -> None:
    @registry.task("now")
    async def now() -> int:
        return clock.now_ms()


def loaded(folder: Path, text: str) -> Any:
    path = folder / "pause.yaml"
    path.write_text(text, "utf-8")
    return load_workflow(path)


@pytest.mark.parametrize(("value", "seconds"), [("90s", 90), (90, 90), ("PT1M30S", 90), (0, 0)])
@pytest.mark.usefixtures("now")
async def test_a_duration_is_computed_when_the_step_opens(
    app: Stemflow, clock: VirtualClock, tmp_path: Path, value: Any, seconds: int
) -> None:
    began = clock.now_ms()
    found = await app.run(loaded(tmp_path, FILE.replace("KEY", "for")), inputs={"value": value})
    assert 0 <= found["at"] - began - seconds * 1_000 < 10_000


@pytest.mark.usefixtures("now")
async def test_a_wait_ends_at_an_instant_or_at_once_if_that_has_passed(
    app: Stemflow, clock: VirtualClock, tmp_path: Path
) -> None:
    began = clock.now_ms()
    later = loaded(tmp_path, FILE.replace("KEY", "until").replace("inputs.value", "now() + duration('3m')"))
    found = await app.run(later)
    assert 0 <= found["at"] - began - 180_000 < 10_000
    passed = loaded(tmp_path, FILE.replace('KEY: "${{ inputs.value }}"', 'until: "2001-01-01T00:00:00+01:00"'))
    again = clock.now_ms()
    assert (await app.run(passed))["at"] - again < 10_000


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("until", "soon", "until: expected an instant with its zone"),
        ("until", "2026-01-31T08:00:00", "until: expected an instant with its zone"),
        ("for", "soon", "for: "),
    ],
)
@pytest.mark.usefixtures("now")
async def test_what_is_no_time_fails_the_step(
    app: Stemflow, tmp_path: Path, key: str, value: str, message: str
) -> None:
    handle = await app.submit(loaded(tmp_path, FILE.replace("KEY", key)), inputs={"value": value})
    result = await handle.wait(timeout=60)
    assert result.status == "failed" and result.failed_at == "pause" and result.error is not None
    assert message in result.error.message


@pytest.mark.parametrize(
    ("wait", "code"),
    [('{for: 1s, until: "2026-01-31T08:00:00Z"}', "SF013"), ("{for: soon}", "SF501"), ("{until: 3}", "SF011")],
)
def test_a_mistake_in_a_wait_is_a_finding(tmp_path: Path, wait: str, code: str) -> None:
    with pytest.raises(InvalidWorkflow) as refused:
        loaded(tmp_path, FILE.replace('{KEY: "${{ inputs.value }}"}', wait))
    assert code in [one.code for one in refused.value.diagnostics]
