"""A race has the value of its first success, a quorum needs some successes, a tolerance allows some failures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from stemflow import Canvas, InvalidWorkflow, OptionError, Stemflow, TaskRegistry, load_workflow
from stemflow.runtime.tasks.context import Reject, TaskContext

Seen = list[tuple[str, str]]


@pytest.fixture
def seen(registry: TaskRegistry) -> Seen:
    """What handlers did. `after` gives its number after that many seconds; a negative one fails then."""
    found: Seen = []

    @registry.task("after")
    async def after(ctx: TaskContext, seconds: int) -> int:
        try:
            await asyncio.sleep(abs(seconds))
        except asyncio.CancelledError:
            found.append(("cancelled", str(seconds)))
            raise
        found.append(("ended", str(seconds)))
        if seconds < 0:
            raise Reject(f"no {seconds}")
        return seconds

    return found


def after(*seconds: int) -> list[Any]:
    return [Canvas.task("after", one) for one in seconds]


async def ended(app: Stemflow, tree: Any) -> Any:
    return await (await app.submit(tree)).wait(timeout=5_000)


async def test_the_first_that_succeeds_wins_a_race_and_the_others_are_cancelled(app: Stemflow, seen: Seen) -> None:
    begun = asyncio.get_running_loop().time()
    result = await ended(app, Canvas.chain(Canvas.race(after(600, -2, 5, 700)), Canvas.task("after")))
    assert result.status == "succeeded" and result.value == 5
    assert asyncio.get_running_loop().time() - begun < 60
    assert ("ended", "-2") in seen
    assert sorted(one for how, one in seen if how == "cancelled") == ["600", "700"]


async def test_a_race_that_nobody_wins_fails_at_once_and_says_how_many_did(app: Stemflow, seen: Seen) -> None:
    result = await ended(app, Canvas.race(after(-1, -2)))
    assert result.status == "failed" and result.error is not None
    assert result.error.type == "QuorumMissed"
    assert result.error.message == "expected 1 of 2 members to succeed, 0 did and 2 failed"


async def test_a_quorum_gives_the_list_of_those_that_succeeded(app: Stemflow, seen: Seen) -> None:
    result = await ended(app, Canvas.group(after(3, -1, 600, 2), quorum=2))
    assert result.value == [3, None, None, 2]
    assert ("cancelled", "600") in seen


async def test_a_quorum_that_cannot_be_reached_any_more_starts_no_further_members(app: Stemflow, seen: Seen) -> None:
    handle = await app.submit(Canvas.chain(Canvas.map(Canvas.task("after"), [-1, -2, 50, 60], concurrency=2, quorum=3)))
    result = await handle.wait(timeout=5_000)
    assert result.error is not None and result.error.type == "QuorumMissed"
    assert "60" not in [one for _, one in seen]


@pytest.mark.parametrize("cleaned", [False, True])
async def test_a_quorum_of_more_members_than_there_are_opens_none(cleaned: bool, app: Stemflow, seen: Seen) -> None:
    group = Canvas.map(Canvas.task("after"), [1], quorum=2)
    # Within another composite, which is opened in the same decision.
    inner = group.finally_(structs.replace(after(7)[0], immutable=True)) if cleaned else group
    result = await ended(app, Canvas.group(inner))
    assert result.status == "failed"
    assert result.error.type == "QuorumMissed"
    assert [one for _, one in seen] == (["7"] if cleaned else [])


@pytest.mark.parametrize(
    ("tolerate", "status"), [(2, "succeeded"), (1, "failed"), ("50%", "succeeded"), ("49%", "failed"), (0, "failed")]
)
async def test_a_tolerance_is_a_number_or_a_share(app: Stemflow, seen: Seen, tolerate: Any, status: str) -> None:
    result = await ended(app, Canvas.map(Canvas.task("after"), [-1, 2, -3, 4], tolerate=tolerate))
    assert result.status == status
    if status == "succeeded":
        assert result.value == [None, 2, None, 4]
    else:
        assert result.error is not None and result.error.message.startswith("no -")


async def test_chunks_and_argument_lists_have_the_policies_of_a_map(app: Stemflow, seen: Seen) -> None:
    task = Canvas.task("after")
    assert (await ended(app, Canvas.chunks(task, [1, -1, 2, 3, 4], 2, tolerate=1))).value == [None, [2, 3], [4]]
    assert (await ended(app, Canvas.chunks(task, [5, 6, 900, 901], 2, quorum=1))).value == [[5, 6], None]
    assert (await ended(app, Canvas.starmap(task, [(-1,), (2,)], tolerate="50%"))).value == [None, 2]
    with pytest.raises(OptionError, match="chunks: quorum: expected a whole number from 1 to 2"):
        Canvas.chunks(task, [1, 2, 3], 2, quorum=3)
    with pytest.raises(OptionError, match="starmap: expected quorum or tolerate, got both"):
        Canvas.starmap(task, [], quorum=1, tolerate=1)


async def test_a_failure_above_the_tolerance_stops_what_has_not_started(app: Stemflow, seen: Seen) -> None:
    tree = Canvas.map(Canvas.task("after"), [-1, -1, 1, 1, 1], concurrency=1, tolerate=1, on_member_error="collect")
    assert (await ended(app, tree)).status == "failed"
    assert [one for _, one in seen] == ["-1", "-1"]


async def test_a_winner_is_kept_by_a_rerun_and_undone_if_the_run_fails(
    app: Stemflow, registry: TaskRegistry, seen: Seen, tmp_path: Path
) -> None:
    @registry.task("undo")
    async def undo(value: int) -> None:
        seen.append(("undone", str(value)))

    file = tmp_path / "flow.yaml"
    file.write_text("""
stemflow: "1"
name: race
steps:
  ask:
    race: true
    group:
      slow: {task: after, args: {seconds: 900}}
      fast:
        task: after
        args: {seconds: 1}
        compensate: {task: undo, args: {value: "${{ self.output }}"}}
  keep:
    tolerate: 50%
    on_member_error: collect
    map: {items: "[steps.ask.output, -2]", do: {task: after, args: {seconds: "${{ item }}"}}}
  fails:
    task: after
    args: {seconds: "${{ -steps.keep.output[0] - len(steps.ask.members) }}"}
on_failure: {compensate: true}
""")
    result = await ended(app, load_workflow(file))
    assert result.status == "failed" and result.failed_at == "fails"
    assert ("ended", "-3") in seen and seen[-1] == ("undone", "1")


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("race: true, quorum: 1, group: [{task: after}]", "SF523"),
        ("race: true, on_member_error: collect, group: [{task: after}]", "SF523"),
        ("quorum: 2, group: [{task: after}]", "SF523"),
        ("quorum: 0, group: [{task: after}]", "SF011"),
        ("tolerate: 120%, group: [{task: after}]", "SF011"),
        ("tolerate: -1, group: [{task: after}]", "SF011"),
        ("race: true, chain: [{task: after}, {task: after}]", "SF014"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, step: str, code: str) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(f'stemflow: "1"\nname: refused\nsteps: {{a: {{{step}}}}}\n')
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert [one.code for one in refused.value.diagnostics] == [code]


def test_a_canvas_refuses_it_too() -> None:
    for given in ({"quorum": 3}, {"quorum": 0}, {"quorum": True}, {"tolerate": -1}, {"tolerate": "2"},
                  {"quorum": 1, "tolerate": 1}):  # fmt: skip
        with pytest.raises(OptionError, match="group: "):
            Canvas.group(after(1, 2), **given)  # type: ignore[arg-type]
