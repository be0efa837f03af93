"""The tree of a run: which rows there are, how members that never opened are shown, and how rows become lines."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow import Reject, TaskRegistry
from stemflow.cli.live import tree_rows
from stemflow.cli.render import Look, error_text, fit, lines
from stemflow.cli.text import clip, json_text, short_duration, shown
from stemflow.cli.tree import Row, count_states
from stemflow.dsl import parse_workflow
from stemflow.model.records import ErrorInfo, Node
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.progress import Progress

registry = TaskRegistry()


@registry.task("say")
async def say(word: Any = None) -> Any:
    return word


@registry.task("fail")
async def fail() -> None:
    raise Reject("no")


async def rows_of(body: str, work: bool = True) -> list[Row]:
    workflow = parse_workflow('stemflow: "1"\nname: demo\nsteps:\n' + body, "demo.yaml").workflow
    assert workflow is not None
    async with Stemflow("memory:", registry, worker=work) as app:
        handle = await app.submit(workflow)
        if work:
            await handle.wait()
        return await tree_rows(app, handle, await handle.records())


def told(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.path, row.state) for row in rows]


async def test_a_run_is_shown_with_what_has_not_opened_yet() -> None:
    # Given a run that nobody works on
    rows = await rows_of("  a: {task: say}\n  b: {needs: [a], chain: [{task: say}, {task: say}]}\n", work=False)
    # Then every step has its row
    assert told(rows) == [("", "running"), ("a", "ready"), ("b", "waiting"), ("b[0]", "waiting"), ("b[1]", "waiting")]


async def test_what_never_ran_is_derived_from_its_scope() -> None:
    # Given a step that fails, and steps behind it
    rows = await rows_of("  a: {task: fail}\n  b: {needs: [a], chain: [{task: say}, {task: say}]}\n")
    # Then what is inside a step that was skipped is left out
    assert told(rows) == [("", "failed"), ("a", "failed"), ("b", "skipped")]
    assert rows[2].cause == "upstream"


async def test_members_beyond_eight_become_one_line_with_counts() -> None:
    # Given a map over twelve and a group of nine
    group = ", ".join(f"m{i}: {{task: {'fail' if i == 3 else 'say'}}}" for i in range(9))
    rows = await rows_of(
        "  first: {task: say, args: {word: 12}}\n"
        "  a: {map: {items: range(steps.first.output), as: x, do: {task: say, args: {word: '${{ x }}'}}}}\n"
        f"  b: {{group: {{{group}}}, on_member_error: ignore}}\n"
    )
    # Then each is one row
    assert told(rows)[2:] == [("a", "succeeded"), ("b", "succeeded")]
    assert rows[2].counts == {"succeeded": 12}
    assert rows[3].counts == {"succeeded": 8, "failed": 1}
    assert count_states(rows) == {"succeeded": 21, "failed": 1}


async def test_a_wide_chord_keeps_the_row_of_its_body() -> None:
    group = ", ".join(f"m{i}: {{task: say}}" for i in range(9))
    body = f"  b: {{chord: {{group: {{{group}}}, then: {{task: say, args: {{word: 1}}}}}}}}\n"
    assert told(await rows_of(body)) == [("", "succeeded"), ("b", "succeeded"), ("b.then", "succeeded")]
    assert told(await rows_of(body, work=False))[1:] == [("b", "running"), ("b.then", "waiting")]


def row(state: Any, name: str = "pay", attempts: int = 1, **given: Any) -> Row:
    """A task that opened at 1,000 ms."""
    node = Node(run="r", path="p", plan="", node=0, state=state, opened_at_ms=1_000, **given)
    return Row(path="p", name=name, depth=0, state=state, task="t", attempts=attempts, node=node)


def line(one: Row, progress: Any = None, look: Look = Look()) -> str:  # noqa: B008
    (told,) = lines([one], 4_200, look, lambda _: progress)
    return told


@pytest.mark.parametrize(
    ("one", "progress", "expected"),
    [
        (Row(path="p", name="pay", depth=1, state="waiting"), None, "·   pay  waiting"),
        (
            row("running", attempts=4, attempt=1),
            Progress(0, 40.0, "halfway"),
            "● pay  running      3.2s  attempt 2 of 4  40%  halfway",
        ),
        (
            row("ready", attempts=2, attempt=1, at_ms=6_200),
            None,
            "○ pay  ready        3.2s  attempt 2 of 2  next in 2.0s",
        ),
        (
            row("failed", name="p\x1b[2J", error=ErrorInfo("E\r", "a\nb")),
            None,
            "✗ p\\x1b[2J  failed       3.2s  E\\r: a\\nb",
        ),
    ],
)  # fmt: skip
def test_a_row_is_a_line_of_mark_name_state_time_and_details(one: Row, progress: Any, expected: str) -> None:
    assert line(one, progress) == expected


def test_a_line_never_passes_the_width_and_needs_no_unicode() -> None:
    said = line(row("failed", error=ErrorInfo("E", "x" * 300)), look=Look(unicode=False, width=60))
    assert len(said) == 60
    assert said.isascii()


def test_a_frame_that_is_too_tall_keeps_what_runs_and_what_failed() -> None:
    # Given a run of twenty steps of which one runs and one failed
    rows = [Row(path="", name="run", depth=0, state="running")]
    rows += [Row(path=f"s{i}", name=f"s{i}", depth=1, state="succeeded", task="t") for i in range(20)]
    rows[8] = Row(path="s7", name="s7", depth=1, state="failed", task="t")
    rows[18] = Row(path="s17", name="s17", depth=1, state="running", task="t")
    # When there is room for six lines
    kept, left_out = fit(rows, 6)
    # Then both are there, in their order, and the rest is counted
    assert [row.path for row in kept] == ["", "s0", "s1", "s7", "s17"]
    assert left_out == 16


@pytest.mark.parametrize(
    ("ms", "expected"),
    [(0, "0ms"), (999, "999ms"), (3_249, "3.2s"), (59_999, "1m00s"), (65_000, "1m05s"), (7_380_000, "2h03m"),
     (93_600_000, "1d02h")],
)  # fmt: skip
def test_durations_are_short(ms: int, expected: str) -> None:
    assert short_duration(ms) == expected


def test_control_characters_are_made_visible_and_json_stays_json() -> None:
    assert shown("a\x00b\x9b1m\u202ec\udc80") == "a\\x00b\\x9b1m\\u202ec\\udc80"
    assert json_text({"a": "\x7f\u2028é"}) == '{"a": "\\u007f\\u2028é"}'
    assert error_text(ErrorInfo("E", "")) == "E"
    assert clip("abcdef", 4) == "abc…"
