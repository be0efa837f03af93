"""`stemflow diff`: what runs differently, and not what is written differently."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import HELLO, Cli

BASE = """\
stemflow: "1"
name: base
inputs: {n: {type: integer, default: 1, description: a number}}
vars: {region: eu}
timeout: 1h
defaults: {task: {timeout: 30s, retry: {max: 2}}}
unique: {key: "base:${{ inputs.n }}"}
steps:
  a: {task: t.a, args: {n: "${{ inputs.n }}", where: "${{ vars.region }}"}}
  b: {task: t.b, needs: [a], when: inputs.n > 0, compensate: {task: t.undo}}
  m: {map: {items: steps.a.output, do: {task: t.m, args: {x: "${{ item }}"}}}, needs: [b]}
  s: {switch: {on: steps.a.output.kind, cases: {x: {task: t.x}, y: {task: t.y}}}}
outputs: {all: "${{ steps.m.output }}"}
"""
SAME = """\
stemflow: "1"
name: base
description: the same, written differently
vars: {region: eu}
inputs:
  n: {default: 1, type: integer}
unique: {key: "base:${{inputs.n}}"}
timeout: 60m
steps:
  s:
    switch:
      on: ${{ (steps.a.output.kind) }}
      cases: {x: &x {task: t.x, timeout: 30, retry: {max: 2}}, y: {<<: *x, task: t.y}}
  m:
    needs: [b, a]
    map:
      items: (steps.a.output)
      do: {task: t.m, timeout: 30s, args: {x: "${{item}}"}, retry: {max: 2}}
  b:
    # a comment
    compensate: {task: t.undo, timeout: 30s, retry: {max: 2}}
    needs: [a]
    when: inputs.n>0
    task: t.b
    timeout: 0.5m
    retry: {max: 2}
  a: {args: {where: "${{ vars.region }}", n: "${{ inputs.n }}"}, task: t.a, timeout: 30000ms, retry: {max: 2}}
outputs: {all: "${{steps.m.output}}"}
"""


@pytest.fixture
def diff(project: Path, cli: Cli) -> Any:
    (project / "base.yaml").write_text(BASE)

    def compared(text: str) -> list[tuple[str, str, str, list[str]]]:
        (project / "other.yaml").write_text(text)
        ran = cli("diff", "base.yaml", "other.yaml", "--json")
        found = json.loads(ran.out)
        assert ran.code == (1 if found else 0)
        return [(one["change"], one["what"], one["name"], [d["key"] for d in one["details"]]) for one in found]

    return compared


def test_what_is_written_differently_is_no_difference(diff: Any) -> None:
    assert diff(SAME) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("timeout: 1h", "timeout: 2h", ("changed", "setting", "", ["timeout_ms"])),
        ("default: 1,", "default: 2,", ("changed", "input", "n", ["default"])),
        ("region: eu", "region: us", ("changed", "var", "region", ["value"])),
        ("needs: [b]}", "needs: []}", ("changed", "step", "m", ["after.b"])),
        ("when: inputs.n > 0", "when: inputs.n > 1", ("changed", "step", "b", ["when"])),
        ("{task: t.undo}", "{task: t.other}", ("changed", "step", "b", ["compensate.task"])),
        ("task: t.x}", "task: t.xx}", ("changed", "step", "s.x", ["task"])),
        ("x: {task: t.x}, ", "x: {task: t.x, queue: q}, ", ("changed", "step", "s.x", ["queue"])),
        (", y: {task: t.y}", "", ("removed", "step", "s.y", ["kind", "task", "hard_ms", "max_retries"])),
        ("  s: {", "  r: {", ("renamed", "step", "r", ["path"])),
        ('x: "${{ item }}"', "x: 1", ("changed", "step", "m[*]", ["args.x"])),
        ("steps.m.output", "steps.m.state", ("changed", "output", "all", ["value"])),
    ],
)
def test_what_runs_differently_is_found_where_it_is(
    diff: Any, old: str, new: str, expected: tuple[str, str, str, list[str]]
) -> None:
    assert old in BASE
    assert expected in diff(BASE.replace(old, new))


def test_a_renamed_step_is_renamed_in_what_refers_to_it(diff: Any) -> None:
    other = BASE.replace("  a: {", "  load: {").replace("steps.a.", "steps.load.").replace("[a]", "[load]")
    assert diff(other) == [("renamed", "step", "load", ["path"])]


def test_a_default_for_all_tasks_is_a_change_of_each(diff: Any) -> None:
    found = diff(BASE.replace("timeout: 30s, ", "timeout: 31s, "))
    assert {name for _, _, name, _ in found} == {"a", "b", "m[*]", "s.x", "s.y"}


def test_a_file_of_a_revision_can_be_named(project: Path, cli: Cli) -> None:
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "hello.yaml"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    (project / "hello.yaml").write_text(HELLO.replace("task: each", "task: say"))
    ran = cli("diff", "HEAD:hello.yaml", "hello.yaml")
    assert (ran.code, ran.out) == (1, "~ step again\n    task: each -> say\n")
    assert cli("diff", "HEAD:nothing.yaml", "hello.yaml").code == 3
    assert cli("diff", "hello.yaml", "nothing.yaml").code == 2
