"""I17: what failed for good is a dead letter, or was taken up by one run, or was purged; never two of these, nor none.

Crashes happen at every call of the store: before the call, or after it with the reply lost.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stemflow import Canvas, Reject, Stemflow, TaskRegistry
from stemflow.model.effects import DeadLetter
from tests.spec.conftest import OpenApp

CALLS = ("exchange", "dead_letters", "read", "header", "plan", "page", "hints")


class Crashed(Exception):
    """The process is dead."""


class Crash:
    """The process dies at call `number` (from 0) of the store: before it is made, or after it was carried out."""

    def __init__(self, number: int, after: bool) -> None:
        self.number, self.after, self.made = number, after, 0

    def around(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def flaky(*args: Any, **given: Any) -> Any:
            number, self.made = self.made, self.made + 1
            if number > self.number or (number == self.number and not self.after):
                raise Crashed
            answer = await call(*args, **given)
            if number == self.number:
                raise Crashed
            return answer

        return flaky


async def dies(app: Stemflow, crash: Crash, what: Callable[[], Awaitable[Any]]) -> bool:
    """Do `what`, which may die on the way; whether it did."""
    kind = type(app.store)
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(kind, name, crash.around(getattr(kind, name)))
        try:
            await what()
        except Crashed:
            return True
    return False


class Books:
    """What the store holds of the failed tasks: letters, and the runs that took letters of others up."""

    def __init__(self, app: Stemflow) -> None:
        self.app = app

    async def letters(self) -> list[DeadLetter]:
        return await self.app.dead_letters()

    async def taken_up(self) -> Counter[str]:
        """How many runs there are for each run that was taken up."""
        return Counter(one.header.rerun_of for one in await self.app.store.runs(1_000) if one.header.rerun_of)


@pytest.fixture
async def books(open_app: OpenApp, registry: TaskRegistry) -> Books:
    """Two runs that failed, with three letters, on a store where no worker is any more."""

    @registry.task("bad", queue="q")
    async def bad(number: int) -> None:
        raise Reject("no")

    app = await open_app()
    for size in (1, 2):
        group = Canvas.group(*[bad.s(number) for number in range(size)], on_member_error="collect")
        await (await app.submit(group)).wait(timeout=60)
    await app.hand_back()
    books = Books(await open_app(worker=False))
    assert len(await books.letters()) == 3
    return books


async def test_a_replay_that_dies_anywhere_is_done_or_not_done_and_can_be_repeated(
    books: Books, open_app: OpenApp
) -> None:
    letters = await books.letters()
    of_run = Counter(letter.run for letter in letters)
    for number, after in itertools.product(range(100), (False, True)):
        # When the process dies at this call
        app = await open_app(worker=False)
        died = await dies(app, Crash(number, after), lambda: app.replay(letters))  # noqa: B023
        # Then each run has all its letters, or is taken up once
        left, taken_up = Counter(letter.run for letter in await books.letters()), await books.taken_up()
        for run, count in of_run.items():
            assert (left[run], taken_up[run]) in ((count, 0), (0, 1)), (number, after)
        if not died:
            break
    assert number > 5
    # And in the end all is done, once
    assert await books.letters() == [] and set((await books.taken_up()).values()) == {1}
    done = await books.app.replay(letters)
    assert [one.refused for one in done] == [None, None]
    assert set((await books.taken_up()).values()) == {1}


async def test_a_purge_that_dies_anywhere_is_done_or_not_done(books: Books, open_app: OpenApp) -> None:
    letters = await books.letters()
    for number, after in itertools.product(range(100), (False, True)):
        app = await open_app(worker=False)
        died = await dies(app, Crash(number, after), lambda: app.purge(letters))  # noqa: B023
        assert await books.letters() in (letters, [])
        if not died:
            break
    assert await books.letters() == []
    assert not await books.taken_up()


async def test_a_dry_run_writes_nothing(books: Books, open_app: OpenApp) -> None:
    app = await open_app(worker=False)
    letters = await books.letters()

    class Written(Crash):
        def around(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            return super().around(call) if call.__name__ == "exchange" else call

    async def dry() -> None:
        assert [one.refused for one in await app.replay(letters, dry_run=True)] == [None, None]
        assert await app.purge(letters, dry_run=True) == letters

    assert not await dies(app, Written(-1, False), dry)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_operators_do_side_by_side_nothing_is_lost_or_doubled(
    seed: int, open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given failures, replays, purges, reruns and crashes in an order that the seed draws
    rng = random.Random(seed)

    @registry.task("bad")
    async def bad(number: int) -> None:
        raise Reject("no")

    worker = await open_app()
    failed: list[str] = []
    purged: set[str] = set()
    replayed: set[str] = set()
    for number in range(15):
        handle = await worker.submit(bad.s(number))
        await handle.wait(timeout=60)
        failed.append(handle.id)
    await worker.hand_back()
    app = await open_app(worker=False)
    for _ in range(30):
        letters = [one for one in await app.dead_letters() if rng.random() < 0.3]
        names = {one.run for one in letters}
        action = rng.choice(("replay", "purge", "dry", "twice"))
        other = await open_app(worker=False)
        crash = Crash(rng.choice((1_000, rng.randint(0, 12))), rng.random() < 0.5)
        if action == "purge":
            if not await dies(other, crash, lambda: other.purge(letters)):  # noqa: B023
                purged |= names
        elif action == "dry":
            await dies(other, crash, lambda: other.replay(letters, dry_run=True))  # noqa: B023
        else:
            for _ in range(2 if action == "twice" else 1):
                await dies(other, crash, lambda: other.replay(letters))  # noqa: B023
        # Then each failure is in one of the three places
        left = {one.run for one in await app.dead_letters()}
        taken_up = await Books(app).taken_up()
        assert all(count == 1 for count in taken_up.values())
        replayed = set(taken_up)
        if action == "purge":
            purged |= names - left
        assert Counter(failed) == Counter([*left, *replayed, *purged])
    assert replayed
