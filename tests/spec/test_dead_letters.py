"""Dead letters: what failed for good is kept for the operator, who lists it, runs it again, or throws it away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from stemflow import Canvas, OptionError, Reject, RunFailed, Stemflow, TaskDefinition, TaskRegistry
from stemflow.testing.simulation.virtual_loop import VirtualClock
from tests.spec.conftest import OpenApp

A_WEEK_S = 7 * 86_400

nowhere: TaskDefinition[int, int] = TaskDefinition("nowhere", encode_args=lambda number: {"number": number})


class Kit:
    """Tasks of which one fails until it is fixed, and a record of what was called."""

    def __init__(self, registry: TaskRegistry) -> None:
        self.calls: list[Any] = []
        self.mended = False

        @registry.task("keep", queue="quick")
        async def keep(word: str) -> str:
            self.calls.append(word)
            return word

        @registry.task("flaky", queue="slow", max_retries=1, retry={"backoff": "fixed", "initial": "1s"})
        async def flaky(word: str) -> str:
            self.calls.append(word)
            if not self.mended:
                raise ValueError(f"{word} is not mended")
            return word.upper()

        self.keep, self.flaky = keep, flaky


@pytest.fixture
def kit(registry: TaskRegistry) -> Kit:
    return Kit(registry)


async def fail(app: Stemflow, what: Any, **given: Any) -> str:
    """Run it to its failure; the id of the run."""
    handle = await app.submit(what, **given)
    assert (await handle.wait(timeout=600)).status == "failed"
    return handle.id


# -- listing


async def test_a_letter_says_what_failed_why_when_and_after_how_many_attempts(
    app: Stemflow, kit: Kit, clock: VirtualClock
) -> None:
    run = await fail(app, Canvas.group(kit.keep.s("a"), kit.flaky.s("b")))
    (letter,) = await app.dead_letters()
    assert (letter.run, letter.path, letter.task, letter.queue) == (run, "[1]", "flaky", "slow")
    assert (letter.reason, letter.attempts, letter.keep_ms) == ("max-retries-exhausted", 2, A_WEEK_S * 1_000)
    assert letter.error is not None and letter.error.message == "b is not mended"
    assert letter.at_ms == (await app.store.nodes(run))[-1].ended_at_ms <= clock.now_ms()


async def test_letters_are_chosen_by_queue_task_reason_age_and_run(app: Stemflow, registry: TaskRegistry) -> None:
    # Given three letters, a minute between the second and the third
    @registry.task("a", queue="x")
    async def a() -> None:
        raise Reject("no")

    @registry.task("b", queue="y")
    async def b(number: int) -> None:
        raise Reject("no")

    one = await fail(app, a.s())
    two = await fail(app, b.s(1))
    await asyncio.sleep(60)
    instant = datetime.fromtimestamp(app.store.now_ms() / 1_000, UTC)
    three = await fail(app, b.s(2))

    # Then each filter gives those that fit, the newest first
    async def found(**given: Any) -> list[str]:
        return [letter.run for letter in await app.dead_letters(**given)]

    assert await found() == [three, two, one]
    assert await found(queue="y") == [three, two]
    assert await found(task="a") == [one]
    assert await found(reason="max-retries-exhausted", limit=1) == [three]
    assert await found(reason="poison") == []
    assert await found(run=two) == [two]
    assert await found(since="30s") == [three]
    assert await found(since=instant) == [three]
    assert await found(task="b", since="2m", limit=1) == [three]
    with pytest.raises(OptionError, match="time zone"):
        await found(since=datetime(2026, 1, 1))


@pytest.mark.parametrize("url", ["memory:"])  # the contract of stores has it for each of them
async def test_a_letter_is_kept_for_a_week_and_its_run_with_it(app: Stemflow, open_app: OpenApp, kit: Kit) -> None:
    # Given a letter, and a week without a worker
    run = await fail(app, kit.flaky.s("a"))
    await app.hand_back()
    await asyncio.sleep(A_WEEK_S - 60)
    assert len(await app.dead_letters()) == 1
    # When it is over, then nobody sees it, and a worker deletes it with its run
    await asyncio.sleep(60)
    assert await app.dead_letters() == []
    await open_app()
    await asyncio.sleep(1)
    assert await app.store.header(run) is None


# -- replaying


async def test_a_replay_keeps_what_succeeded_and_begins_its_attempts_afresh(app: Stemflow, kit: Kit) -> None:
    # Given a run of which a part failed, and a fixed task
    old = await fail(app, Canvas.group(kit.keep.s("a"), kit.flaky.s("b")))
    kit.mended = True
    kit.calls.clear()
    # When its letter is replayed
    (done,) = await app.replay(await app.dead_letters())
    # Then a new run does what had failed, and nothing else
    assert done.run == old and done.refused is None and done.run_id is not None
    result = await app.wait_for_task(done.run_id, timeout=600)
    assert result.value == ["a", "B"]
    assert kit.calls == ["b"]
    assert [node.attempt for node in await app.store.nodes(done.run_id) if node.path == "[1]"] == [0]
    header = await app.store.header(done.run_id)
    assert header is not None and header.rerun_of == old
    # And the letter is gone, while the old run stays as it ended
    assert await app.dead_letters() == []
    assert (await app.result(old)).status == "failed"


async def test_what_fails_again_is_a_letter_of_the_new_run(app: Stemflow, kit: Kit) -> None:
    await fail(app, kit.flaky.s("a"))
    (done,) = await app.replay(await app.dead_letters())
    assert done.run_id is not None
    assert (await app.wait_for_task(done.run_id, timeout=600)).status == "failed"
    (letter,) = await app.dead_letters()
    assert (letter.run, letter.attempts) == (done.run_id, 2)
    # And that one can be replayed in its turn
    kit.mended = True
    (again,) = await app.replay([letter])
    assert again.run_id not in (None, done.run_id)
    assert (await app.wait_for_task(str(again.run_id), timeout=600)).value == "A"


async def test_all_letters_of_a_run_go_into_one_new_run(app: Stemflow, kit: Kit) -> None:
    # Given a run with three letters
    old = await fail(
        app, Canvas.group(*[kit.flaky.s(word) for word in "abc"], on_member_error="ignore") | kit.flaky.s()
    )
    letters = await app.dead_letters()
    assert len(letters) >= 3
    # When one of them is replayed
    kit.mended = True
    (done,) = await app.replay(letters[:1])
    # Then all of them are named, and gone
    assert {letter.key for letter in done.letters} == {letter.key for letter in letters}
    assert await app.dead_letters(run=old) == []


async def test_a_map_is_replayed_with_its_items(app: Stemflow, kit: Kit) -> None:
    await fail(app, Canvas.map(kit.flaky.s(), ["a", "b"]))
    kit.mended = True
    (done,) = await app.replay(await app.dead_letters())
    assert (await app.wait_for_task(str(done.run_id), timeout=600)).value == ["A", "B"]


async def test_a_replay_that_is_repeated_is_the_same_run(app: Stemflow, open_app: OpenApp, kit: Kit) -> None:
    # Given a replay whose answer was lost
    await fail(app, kit.flaky.s("a"))
    letters = await app.dead_letters()
    kit.mended = True
    other = await open_app(worker=False)
    first, beside = await asyncio.gather(app.replay(letters), other.replay(letters))
    await app.wait_for_task(str(first[0].run_id), timeout=600)
    kit.calls.clear()
    # When it is asked for again, then it is the same run, and nothing runs twice
    (again,) = await other.replay(letters, delay="5s")
    assert again.run_id == first[0].run_id == beside[0].run_id
    await asyncio.sleep(6)
    assert kit.calls == []
    assert len(await app.store.runs(10)) == 2


async def test_a_replay_can_be_delayed(app: Stemflow, kit: Kit, clock: VirtualClock) -> None:
    await fail(app, kit.keep.s("a") | kit.flaky.si("b"))
    kit.mended = True
    asked_ms = clock.now_ms()
    (done,) = await app.replay(await app.dead_letters(), delay="5s")
    await app.wait_for_task(str(done.run_id), timeout=600)
    (root, *nodes) = await app.store.nodes(str(done.run_id))
    assert [node.started_at_ms - asked_ms >= 5_000 for node in nodes if node.started_at_ms] == [True]
    assert root.state == "succeeded"


async def test_a_dry_run_says_what_would_be_done_and_changes_nothing(app: Stemflow, kit: Kit) -> None:
    await fail(app, kit.flaky.s("a"))
    letters = await app.dead_letters()
    (would,) = await app.replay(letters, dry_run=True)
    assert would.run_id is not None and would.refused is None
    assert await app.purge(letters, dry_run=True) == letters
    assert await app.dead_letters() == letters
    assert len(await app.store.runs(10)) == 1
    # And the run would have been that one
    (did,) = await app.replay(letters)
    assert did.run_id == would.run_id


async def test_a_rerun_takes_the_letters_of_its_run_with_it(app: Stemflow, kit: Kit) -> None:
    old = await fail(app, kit.flaky.s("a"))
    letters = await app.dead_letters()
    kit.mended = True
    again = await app.rerun(old, failed=True)
    assert (await again.wait(timeout=600)).value == "A"
    assert await app.dead_letters() == []
    # So that nobody replays what was run again
    (done,) = await app.replay(letters)
    assert done.run_id is None and "taken up by a rerun" in str(done.refused)


# -- what is not replayed


async def refused(app: Stemflow, **how: Any) -> str:
    """The refusal of a replay of all letters, which has changed nothing."""
    letters = await app.dead_letters()
    runs = len(await app.store.runs(100))
    (done,) = await app.replay(letters, **how)
    assert done.run_id is None
    assert await app.dead_letters() == letters
    assert len(await app.store.runs(100)) == runs
    return str(done.refused)


async def test_a_run_that_goes_on_is_not_replayed(app: Stemflow, kit: Kit, registry: TaskRegistry) -> None:
    @registry.task("long")
    async def long() -> None:
        await asyncio.sleep(60)

    handle = await app.submit(Canvas.group(kit.flaky.s("a"), long.s(), on_member_error="ignore"))
    await asyncio.sleep(10)
    assert "expected it to have ended, it is running" in await refused(app)
    assert (await handle.wait(timeout=7_200)).status == "succeeded"
    (done,) = await app.replay(await app.dead_letters())
    assert done.refused is None


async def test_a_letter_whose_task_nobody_knows_is_not_replayed(app: Stemflow, open_app: OpenApp, kit: Kit) -> None:
    await fail(app, kit.flaky.s("a"))
    await asyncio.sleep(10)
    # Given somebody who has not registered it, on a store where a worker has declared it
    stranger = await open_app(TaskRegistry(), worker=False)
    assert (await stranger.replay(await app.dead_letters(), dry_run=True))[0].refused is None
    # When that was too long ago
    await app.hand_back()
    await asyncio.sleep(2 * 86_400)
    stranger = await open_app(TaskRegistry(), worker=False)
    # Then it is refused, unless it is known otherwise
    assert "got flaky; start a worker that has them" in await refused(stranger)
    letters = await stranger.dead_letters()
    assert (await stranger.replay(letters, dry_run=True, known_tasks={"flaky"}))[0].refused is None
    assert (await stranger.replay(letters, allow_unknown=True))[0].run_id is not None


async def test_a_run_whose_unique_key_is_held_is_not_replayed(app: Stemflow, registry: TaskRegistry) -> None:
    failing = True

    @registry.task("once", unique=True)
    async def once(number: int) -> int:
        if failing:
            raise Reject("no")
        await asyncio.sleep(30)
        return number

    await fail(app, once.s(1))
    failing = False
    holder = await app.submit(once.s(1))
    await asyncio.sleep(1)
    assert f"its unique key is held by run {holder.id}" in await refused(app)
    await holder.wait(timeout=1_000)
    (done,) = await app.replay(await app.dead_letters())
    assert (await app.wait_for_task(str(done.run_id), timeout=1_000)).value == 1


async def test_one_run_that_is_refused_does_not_hold_up_the_others(
    app: Stemflow, kit: Kit, registry: TaskRegistry
) -> None:
    @registry.task("long")
    async def long() -> None:
        await asyncio.sleep(60)

    going = await app.submit(Canvas.group(kit.flaky.s("a"), long.s(), on_member_error="ignore"))
    ended = await fail(app, kit.flaky.s("b"))
    await asyncio.sleep(1)
    kit.mended = True
    done = {one.run: one for one in await app.replay(await app.dead_letters())}
    assert done[going.id].refused is not None and done[ended].refused is None
    assert [letter.run for letter in await app.dead_letters()] == [going.id]


# -- purging


async def test_purged_letters_are_gone_and_their_runs_stay(app: Stemflow, kit: Kit) -> None:
    one, two = await fail(app, kit.flaky.s("a")), await fail(app, kit.flaky.s("b"))
    letters = await app.dead_letters()
    assert await app.purge(letters[:1]) == letters[:1]
    assert await app.dead_letters() == letters[1:]
    assert await app.purge(letters) == letters[1:]
    assert {info.header.run for info in await app.store.runs(10)} == {one, two}
    (done,) = await app.replay(letters[:1])
    assert "it is gone" in str(done.refused)


# -- every reason leads here


async def _unregistered(app: Stemflow, registry: TaskRegistry) -> Any:
    return await app.submit(nowhere.call(1), allow_unknown=True)


async def _bad_arguments(app: Stemflow, registry: TaskRegistry) -> Any:
    @registry.task("number", queue="q")
    async def number(n: int) -> int:
        return n

    @registry.task("word")
    async def word() -> str:
        return "no number"

    return await app.submit(word.s() | number.s())


async def _exhausted(app: Stemflow, registry: TaskRegistry) -> Any:
    @registry.task("fails", queue="q")
    async def fails() -> None:
        raise ValueError("no")

    return await app.submit(fails.s())


REASONS: dict[str, tuple[Callable[..., Any], tuple[str, str, int]]] = {
    "max-retries-exhausted": (_exhausted, ("fails", "q", 1)),
    "unregistered-task": (_unregistered, ("nowhere", "default", 1)),
    "bad-arguments": (_bad_arguments, ("number", "q", 1)),
}


@pytest.mark.parametrize("reason", REASONS)
async def test_each_reason_leads_to_a_letter(reason: str, app: Stemflow, registry: TaskRegistry) -> None:
    submit, told = REASONS[reason]
    handle = await submit(app, registry)
    with pytest.raises(RunFailed):
        (await handle.wait(timeout=600)).required()
    (letter,) = await app.dead_letters(reason=reason)
    assert (letter.task, letter.queue, letter.attempts) == told
