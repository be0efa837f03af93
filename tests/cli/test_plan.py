"""`stemflow plan`: order, conditions, fan-outs, times, and what a failure would skip and undo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import Cli

FILE = """\
stemflow: "1"
name: planned
inputs: {fast: {type: boolean, default: false}, items: {type: array, default: [1, 2, 3]}}
timeout: 1h
defaults: {task: {timeout: 10s, retry: {max: 1, backoff: {kind: fixed, initial: 5s}}}}
steps:
  load: {task: say, args: {word: a}, compensate: {task: flaky}}
  slow: {when: not inputs.fast, needs: [load], wait: {for: 1m}}
  each: {map: {items: inputs.items, concurrency: 2, do: {task: each, args: {n: "${{ item }}"}}}, needs: [load]}
  last: {task: say, args: {word: "${{ json(steps.each.output) }}"}, needs: [slow]}
  alarm: {task: flaky, needs: [last], run_on: failure}
  tidy: {task: flaky, needs: [last], run_on: always}
on_failure: {compensate: true}
"""


@pytest.fixture
def plan(project: Path, cli: Cli) -> Any:
    (project / "planned.yaml").write_text(FILE)

    def planned(*words: str) -> dict[str, Any]:
        ran = cli("plan", "planned.yaml", "--json", *words)
        assert (ran.code, ran.err) == (0, "")
        found: dict[str, Any] = json.loads(ran.out)
        return found

    return planned


def ends(found: dict[str, Any]) -> dict[str, str]:
    return {one["step"]: one["end"] for one in found["steps"]}


def test_edges_conditions_and_fan_outs_are_those_of_the_inputs(plan: Any) -> None:
    found = {one["step"]: one for one in plan("-i", "fast=true", "-i", "items=[1, 2]")["steps"]}
    assert found["last"]["after"] == [{"step": "slow", "edge": "order"}, {"step": "each", "edge": "data"}]
    assert (found["slow"]["holds"], found["slow"]["end"], found["each"]["items"]) == (False, "skipped", 2)
    # A step skipped by its own condition counts as done along an order edge
    assert found["last"]["end"] == "ok"


def test_the_worst_case_is_the_longest_path_through_attempts_and_delays(plan: Any) -> None:
    # Given 2 attempts of 10 s and a delay of 5 s for each task, and three items two at a time
    found = plan()
    times = {one["step"]: one["worst_case_ms"] for one in found["steps"]}
    assert (times["load"], times["slow"], times["each"]) == (25_000, 60_000, 50_000)
    # Then load, the wait, and the last two steps take longest
    assert found["worst_case_ms"] == 25_000 + 60_000 + 25_000 + 25_000
    assert found["longest_path"][:3] == ["load", "slow", "last"]


def test_a_failure_skips_by_the_rule_of_the_engine(plan: Any) -> None:
    found = plan("--fail", "each")
    how = ends(found)
    assert [how[name] for name in ("load", "slow", "each", "last", "tidy")] == ["ok", "ok", "failed", "upstream", "ok"]
    assert found["undone"] == ["load"]
    assert ends(plan("--fail", "last"))["alarm"] == "ok"
    assert ends(plan())["alarm"] == "skipped"


def test_the_text_says_the_same(project: Path, cli: Cli, plan: Any) -> None:
    lines = cli("plan", "planned.yaml", "--fail", "load").out.splitlines()
    assert lines[0] == "planned: 6 steps"
    assert "  load   fails, at the start" in lines
    assert "  each   is skipped after a failure, after load (order); 3 items" in lines
    assert lines[-2:] == ["worst case: 2m15s; the timeout is 1h", "undone after the failure of load: nothing"]


def test_a_step_that_does_not_exist_is_wrong_usage(cli: Cli, plan: Any) -> None:
    ran = cli("plan", "planned.yaml", "--fail", "lsat")
    assert ran.code == 3
    assert "did you mean `last`?" in ran.err


def test_a_file_with_errors_has_no_plan(project: Path, cli: Cli) -> None:
    (project / "wrong.yaml").write_text(FILE.replace("needs: [slow]", "needs: [solw]"))
    ran = cli("plan", "wrong.yaml")
    assert (ran.code, ran.out) == (2, "")
