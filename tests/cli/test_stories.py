"""What a run says of how it went: which steps are blamed, where an expression failed, and in which order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.world import Cli

HEAD = 'stemflow: "1"\nname: x\n'
SKIPPED = {
    "a skip goes on along a data edge": (
        'a: {when: "1 > 2", task: say, args: {word: a}}\n  b: {task: say, args: {word: "${{ steps.a.output }}"}}',
        {"a": "by its condition", "b": "because a was skipped"},
    ),
    "it is the step next to it that is named": (
        'a: {when: "1 > 2", task: say, args: {word: a}}\n  b: {task: say, args: {word: "${{ steps.a.output }}"}}\n'
        '  c: {task: say, args: {word: "${{ steps.b.output }}"}}',
        {"c": "because b was skipped"},
    ),
    "two skipped steps": (
        'a: {when: "1 > 2", task: say, args: {word: a}}\n  b: {when: "1 > 2", task: say, args: {word: b}}\n'
        '  c: {task: say, args: {word: "${{ steps.a.output }}${{ steps.b.output }}"}}',
        {"c": "because a and b were skipped"},
    ),
    "a chain": (
        'a: {chain: [{when: "1 > 2", task: say, args: {word: a}}, {task: say, args: {word: b}}]}',
        {"[0]": "by its condition", "[1]": "because [0] was skipped"},
    ),
    "no alarm without a failure": (
        "a: {task: say, args: {word: a}}\n  b: {needs: [a], run_on: failure, task: say, args: {word: b}}",
        {"b": "because nothing before it failed"},
    ),
}
FAILED = {
    "all maps without a list": (
        "steps:\n  b: {map: {items: inputs.v, do: {task: say, args: {word: x}}}}\n"
        "  c: {map: {items: inputs.v, do: {task: say, args: {word: x}}}}",
        [r"^  b failed: .*expected a list", r"^  c failed: .*expected a list"],
    ),
    "a map inside a group": (
        "steps:\n  a: {task: flaky}\n  g: {group: {m: {map: {items: inputs.v, do: {task: say, args: {word: x}}}}}}",
        [r"^  a failed", r"^  g\.m failed"],
    ),
    "an output": (
        'steps:\n  a: {task: gives}\noutputs: {ok: "${{ steps.a.output.n }}", bad: "${{ steps.a.output.m }}"}',
        [r"outputs\.bad: there is no key 'm'"],
    ),
    "a part of an output": (
        'steps:\n  a: {task: gives}\noutputs: {o: {list: [1, "${{ steps.a.output.m }}"]}}',
        [r"outputs\.o\.list\[1\]: there is no key"],
    ),
    "an output of an inner graph": (
        'steps:\n  g: {steps: {a: {task: gives}}, outputs: {bad: "${{ steps.a.output.m }}"}}',
        [r"^  g failed: .*outputs\.bad: there is no key"],
    ),
    "a value": (
        'steps:\n  a: {task: gives}\n  b: {set: {x: {y: "${{ steps.a.output.m }}"}}}',
        [r"^  b failed: .*set\.x\.y: there is no key"],
    ),
    "an argument": (
        'steps:\n  a: {task: gives}\n  b: {task: say, args: {word: "${{ steps.a.output.m }}"}}',
        [r"^  b failed: .*b: args\.word: there is no key"],
    ),
    "the run's own failure next to one that is ignored": (
        "steps:\n  a: {task: flaky, on_error: continue}\n  b: {task: gives}\n"
        'outputs: {bad: "${{ steps.b.output.m }}"}',
        [r"^  a failed", r"^  x: .*outputs\.bad"],
    ),
}
ALARMS = {
    "over a skipped step": ("b: {task: say, args: {word: '${{ steps.a.output }}'}}", "[b]"),
    "over two skipped steps": (
        "b: {task: say, args: {word: '${{ steps.a.output }}'}}\n"
        "  c: {task: say, args: {word: '${{ steps.b.output }}'}}",
        "[c]",
    ),
    "over a step that ran nevertheless": ("b: {needs: [a], run_on: done, task: say, args: {word: b}}", "[b]"),
    "next to one that succeeded": (
        "b: {needs: [a], task: say, args: {word: b}}\n  c: {task: say, args: {word: c}}",
        "[b, c]",
    ),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_show_names_what_a_step_was_skipped_for(name: str, cli: Cli, project: Path) -> None:
    steps, said = SKIPPED[name]
    (project / "x.yaml").write_text(f"{HEAD}steps:\n  {steps}\n")
    assert cli("run", "x.yaml").code == 0
    shown = cli("show", "0").out
    for step, words in said.items():
        assert re.search(rf"^\W+ {re.escape(step)} +skipped .*{re.escape(words)}$", shown, re.MULTILINE), shown


@pytest.mark.parametrize("name", FAILED)
def test_the_summary_says_what_failed_and_where(name: str, cli: Cli, project: Path) -> None:
    body, patterns = FAILED[name]
    inputs = "inputs: {v: {type: object, default: {x: 1}}}\n" if "inputs" in body else ""
    (project / "x.yaml").write_text(f"{HEAD}{inputs}{body}\n")
    with (project / "tasks.py").open("a") as file:
        file.write('\n\n@registry.task("gives")\nasync def gives():\n    return {"n": 1}\n')
    ran = cli("run", "x.yaml")
    assert ran.code == 1
    for pattern in patterns:
        assert re.search(pattern, ran.err.partition("failed after")[2], re.MULTILINE), ran.err


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_rings_for_a_failure_further_up(name: str, cli: Cli, project: Path) -> None:
    steps, needs = ALARMS[name]
    alarm = f"  alarm: {{needs: {needs}, run_on: failure, task: say, args: {{word: alarm}}}}\n"
    (project / "x.yaml").write_text(f"{HEAD}steps:\n  a: {{task: flaky}}\n  {steps}\n{alarm}")
    assert cli("run", "x.yaml").code == 1
    assert re.search(r"alarm +succeeded", cli("show", "0").out)
    assert re.search(r"alarm .*run|alarm +ok|alarm", cli("plan", "x.yaml", "--fail", "a").out)


def test_an_alarm_is_silent_after_a_failure_that_the_workflow_accepts(cli: Cli, project: Path) -> None:
    (project / "x.yaml").write_text(
        f"{HEAD}steps:\n  a: {{task: flaky, on_error: continue}}\n  b: {{needs: [a], task: say, args: {{word: b}}}}\n"
        "  alarm: {needs: [b], run_on: failure, task: say, args: {word: alarm}}\n"
    )
    assert cli("run", "x.yaml").code == 0
    assert re.search(r"alarm +skipped", cli("show", "0").out)


def test_the_times_of_the_lines_of_a_run_never_go_back(cli: Cli, project: Path) -> None:
    # Given a task that is tried three times next to one that is done at once
    (project / "x.yaml").write_text(
        f"{HEAD}steps:\n"
        "  a: {task: broken, retry: {max: 2, backoff: {kind: fixed, initial: 50ms, jitter: 0}}}\n"
        "  b: {task: say, args: {word: b}}\n"
    )
    with (project / "tasks.py").open("a") as file:
        file.write('\n\n@registry.task("broken")\nasync def broken() -> None:\n    raise OSError\n')
    err = cli("run", "x.yaml").err
    times = [float(n) / (1000 if unit == "ms" else 1) for n, unit in re.findall(r"^ *([\d.]+)(ms|s)  ", err, re.M)]
    assert times == sorted(times)
    assert "a  failed  attempt 3" in err
