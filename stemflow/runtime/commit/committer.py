"""Committing what this process asks for itself, submissions and stops; what comes at the same time shares exchanges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from stemflow.errors import StemflowError
from stemflow.model.effects import Decision
from stemflow.model.facts import Fact
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.tasks.submission import Prepared
from stemflow.store.base import BackpressureError, Exchange, Request, StateLost, Store, Want

TRIES = 100
"""How often a decision that turned out to be stale is made again before the caller is told."""
MOST = 500
"""Decisions in one exchange."""


class _Asked:
    """Facts that wait to be decided and committed, and who waits for that."""

    __slots__ = ("facts", "prepared", "done", "tries")

    def __init__(self, facts: list[Fact], prepared: Prepared | None, done: asyncio.Future[Decision]) -> None:
        self.facts, self.prepared, self.done = facts, prepared, done
        self.tries = 0


class Piggyback(NamedTuple):
    """A request for leases that an exchange carries for the worker of this process.

    `complete` is called once, with the answer of the exchange, or with None if it failed.
    """

    want: Want | None
    complete: Callable[[Exchange | None], None]


def _nothing(answer: Exchange | None) -> None:
    return


def no_piggyback() -> Piggyback:
    """There is no worker."""
    return Piggyback(None, _nothing)


class Committer:
    """Commits the facts of this process on a channel of its own.

    `on_commit(decision, facts)` is called after each commit. `piggyback()` is called before each exchange, which then
    carries its request for leases.
    """

    def __init__(
        self,
        store: Store,
        decider: Decider,
        channel: str,
        on_commit: Callable[[Decision, list[Fact]], None],
        piggyback: Callable[[], Piggyback] = no_piggyback,
    ) -> None:
        self._store, self._decider, self._channel = store, decider, channel
        self._on_commit, self._piggyback = on_commit, piggyback
        self._sequence = 0
        self._lock = asyncio.Lock()
        self._waiting: list[_Asked] = []

    async def commit(self, facts: list[Fact], prepared: Prepared | None = None) -> Decision:
        """Decide and commit, again while it is stale."""
        return (await self.commit_each([(facts, prepared)]))[0]

    async def commit_each(self, many: Sequence[tuple[list[Fact], Prepared | None]]) -> list[Decision]:
        """Each is decided alone and stands or falls alone."""
        loop = asyncio.get_running_loop()
        asked = [_Asked(facts, prepared, loop.create_future()) for facts, prepared in many]
        self._waiting += asked
        try:
            async with self._lock:
                if not self._store.concurrent_exchanges:
                    # Such a store does not suspend: without this, nothing else runs while one after the other submits,
                    # and what is submitted at the same time shares no commit.
                    await asyncio.sleep(0)
                while not all(one.done.done() for one in asked):
                    await self._exchange()
        except BaseException:
            for one in asked:
                one.done.cancel()
            raise
        errors = [error for one in asked if (error := one.done.exception()) is not None]
        if errors:
            raise errors[0]
        return [one.done.result() for one in asked]

    async def _exchange(self) -> None:
        """One exchange for all who wait, up to MOST."""
        some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        epoch = self._store.epoch
        try:
            ready = [(one, decision) for one in some if (decision := await self._decided(one)) is not None]
            decisions = [decision for _, decision in ready]
            self._sequence += 1
            request = Request(self._channel, self._sequence, epoch)
            piggyback = self._piggyback()
            answer = await self._answer(request, decisions, piggyback)
        except StateLost:
            for one in some:
                self._again(one)
            return
        except Exception as error:
            refused = some
            if isinstance(error, BackpressureError):
                # New work is refused; what ends work was refused only because it came along.
                refused = [one for one in some if one.prepared is not None] or some
                self._waiting = [one for one in some if one not in refused] + self._waiting
            for one in refused:
                if not one.done.done():
                    one.done.set_exception(error)
            return
        except BaseException:
            # Whoever made this exchange was cancelled; the others ask again, and facts that counted count once.
            self._waiting = some + self._waiting
            raise
        for (one, decision), committed in zip(ready, answer.committed, strict=True):
            if not committed:
                self._decider.stale(decision, one.facts, answer.current)
                self._again(one)
                continue
            self._on_commit(decision, one.facts)
            self._decider.committed(decision)
            if not one.done.done():
                one.done.set_result(decision)
        piggyback.complete(answer)

    async def _answer(self, request: Request, decisions: list[Decision], piggyback: Piggyback) -> Exchange:
        if piggyback.want is None:
            return await self._store.exchange(request, decisions, None)
        # What was leased must be heard of, even if whoever submits is cancelled meanwhile.
        asked = asyncio.ensure_future(self._store.exchange(request, decisions, piggyback.want))
        try:
            return await asyncio.shield(asked)
        except BaseException:
            asked.add_done_callback(lambda done: piggyback.complete(_result_of(done)))
            raise

    def _again(self, one: _Asked) -> None:
        one.tries += 1
        if one.tries < TRIES:
            self._waiting.append(one)
        elif not one.done.done():
            text = f"{self._store.url}: the same records were changed {TRIES} times by others; try again"
            one.done.set_exception(StemflowError(text))

    async def _decided(self, one: _Asked) -> Decision | None:
        """None for one whose asker is told why not, or has gone."""
        if one.done.done():
            return None
        prepared, library = one.prepared, self._decider.library
        if prepared is not None and prepared.plan.digest not in library.shapes:
            library.learn(prepared.plan)  # so many were prepared meanwhile that there was no room for it
        try:
            decision = await self._decider.decide(one.facts)
        except Exception as error:
            one.done.set_exception(error)
            return None
        if prepared is None or not decision.headers:
            return decision
        items = [await library.items.signed(some) for some in prepared.items]
        return structs.replace(decision, plans=(*decision.plans, prepared.plan), pages=(*items, *decision.pages))


def _result_of(done: asyncio.Future[Exchange]) -> Exchange | None:
    return None if done.cancelled() or done.exception() is not None else done.result()
