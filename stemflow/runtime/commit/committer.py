"""Commits of this process outside its worker: submissions and stops. Concurrent ones share an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from stemflow.errors import StemflowError
from stemflow.model.effects import Decision
from stemflow.model.facts import Fact
from stemflow.runtime.commit.ahead import Ahead
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.tasks.submission import Prepared
from stemflow.store.base import BackpressureError, Exchange, Request, StateLost, Store, Want

TRIES = 100
"""How often a stale decision is computed again before the caller gets an error."""
DECISIONS_AT_ONCE = 500
"""The most decisions in one exchange."""


class _Pending:
    """Facts to decide and commit, and the future of the caller that waits for the decision."""

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


_NO_PIGGYBACK = Piggyback(None, _nothing)


def no_piggyback() -> Piggyback:
    """Request nothing: there is no worker in this process."""
    return _NO_PIGGYBACK


class Committer:
    """Commits the facts of this process on a channel of its own.

    `on_commit(decision, facts, now_ms)` is called after each commit, with its time. `piggyback()` is called before each
    exchange, which then carries its request for leases.
    """

    def __init__(
        self,
        store: Store,
        decider: Decider,
        channel: str,
        on_commit: Callable[[Decision, list[Fact], int], None],
        piggyback: Callable[[], Piggyback] = no_piggyback,
    ) -> None:
        self._store, self._decider, self._channel = store, decider, channel
        self._on_commit, self._piggyback = on_commit, piggyback
        self._sequence = 0
        self._lock = asyncio.Lock()
        self._waiting: list[_Pending] = []

    async def commit(self, facts: list[Fact], prepared: Prepared | None = None) -> Decision:
        """Decide on `facts` and commit; return the decision. A stale decision is made again, up to TRIES times.

        `prepared` is the run that the facts submit, if they do. Raises StoreError, and what `Decider.decide` raises.
        """
        return (await self.commit_each([(facts, prepared)]))[0]

    async def commit_each(self, many: Sequence[tuple[list[Fact], Prepared | None]]) -> list[Decision]:
        """`commit` for several submissions; each succeeds or fails alone. Raises the first error once all are done."""
        loop = asyncio.get_running_loop()
        asked = [_Pending(facts, prepared, loop.create_future()) for facts, prepared in many]
        answers = [one.done for one in asked]
        self._waiting += asked
        try:
            async with self._lock:
                if not self._store.concurrent_exchanges:
                    # Calls to such a store never suspend. Suspend once here, so that other tasks run, and submissions
                    # made at the same time join this exchange.
                    await asyncio.sleep(0)
                while not all(map(asyncio.Future.done, answers)):
                    await self._exchange()
        except BaseException:
            for one in answers:
                one.cancel()
            raise
        errors = list(filter(None, map(asyncio.Future.exception, answers)))
        if errors:
            raise errors[0]
        return list(map(asyncio.Future.result, answers))

    async def _exchange(self) -> None:
        """Make one exchange for all pending facts, up to DECISIONS_AT_ONCE."""
        pending, self._waiting = self._waiting[:DECISIONS_AT_ONCE], self._waiting[DECISIONS_AT_ONCE:]
        epoch = self._store.epoch
        try:
            ready = await self._decided_each(pending)
            decisions = [decision for _, decision in ready]
            self._sequence += 1
            request = Request(self._channel, self._sequence, epoch)
            piggyback = self._piggyback()
            answer = await self._answer(request, decisions, piggyback)
        except StateLost:
            for one in pending:
                self._retry(one)
            return
        except Exception as error:
            refused = pending
            if isinstance(error, BackpressureError):
                # The store refuses new runs; other facts of the same exchange are sent again without them.
                refused = [one for one in pending if one.prepared is not None] or pending
                self._waiting = [one for one in pending if one not in refused] + self._waiting
            for one in refused:
                if not one.done.done():
                    one.done.set_exception(error)
            return
        except BaseException:
            # The caller that made this exchange was cancelled. The others send their facts again, which is idempotent.
            self._waiting = pending + self._waiting
            raise
        try:
            for (one, decision), committed in zip(ready, answer.committed, strict=True):
                self._settle(one, decision, committed, answer)
        finally:
            piggyback.complete(answer)

    def _settle(self, one: _Pending, decision: Decision, committed: bool, answer: Exchange) -> None:
        """Answer the caller of a decision that was committed; decide one that was stale again."""
        if not committed:
            self._decider.stale(decision, one.facts, answer.current)
            return self._retry(one)
        self._on_commit(decision, one.facts, answer.now_ms)
        self._decider.committed(decision)
        if not one.done.done():
            one.done.set_result(decision)

    async def _answer(self, request: Request, decisions: list[Decision], piggyback: Piggyback) -> Exchange:
        if piggyback.want is None:
            try:
                return await self._store.exchange(request, decisions, None)
            except BaseException:
                piggyback.complete(None)
                raise
        # The worker must get its leases even if the caller is cancelled before the store answers.
        asked = asyncio.ensure_future(self._store.exchange(request, decisions, piggyback.want))
        try:
            return await asyncio.shield(asked)
        except BaseException:
            asked.add_done_callback(lambda done: piggyback.complete(_result_of(done)))
            raise

    def _retry(self, one: _Pending) -> None:
        """Decide again in the next exchange, or give up after TRIES stale decisions."""
        one.tries += 1
        if one.tries < TRIES:
            self._waiting.append(one)
        elif not one.done.done():
            text = f"{self._store.url}: the same records were changed {TRIES} times by others; try again"
            one.done.set_exception(StemflowError(text))

    async def _decided_each(self, pending: Sequence[_Pending]) -> list[tuple[_Pending, Decision]]:
        """Decide in order. Later decisions see the claims as earlier ones of this exchange leave them (`ahead`): on the
        stored claims, only one decision under a unique key could be committed in each exchange."""
        ahead = Ahead()
        ready = []
        for one in pending:
            decision = await self._decided(one, ahead)
            if decision is None:
                continue
            ready.append((one, decision))
            ahead.add(decision)
        return ready

    async def _decided(self, one: _Pending, ahead: Ahead) -> Decision | None:
        """Decide; None if the caller has an answer already: an error, or it was cancelled."""
        if one.done.done():
            return None
        prepared, library = one.prepared, self._decider.library
        if prepared is not None and prepared.plan.digest not in library.shapes:
            library.learn(prepared.plan)  # the cache of plans has dropped it since the run was prepared
        try:
            decision = await self._decider.decide(one.facts, ahead)
        except Exception as error:
            one.done.set_exception(error)
            return None
        if prepared is None or not decision.headers:
            return decision
        items = [await library.items.signed(some) for some in prepared.items]
        return structs.replace(decision, plans=(*decision.plans, prepared.plan), pages=(*items, *decision.pages))


def _result_of(done: asyncio.Future[Exchange]) -> Exchange | None:
    return None if done.cancelled() or done.exception() is not None else done.result()
