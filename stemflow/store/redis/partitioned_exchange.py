"""One exchange over many partitions: each decision goes to its own, and leases are asked of one after another."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Struct, structs

from stemflow.model.effects import Decision
from stemflow.model.facts import Due
from stemflow.model.records import Key, Record
from stemflow.store.base import TIMER_PAGE, Exchange, Inbox, Lease, Request, StoreError, StoreUnavailable, Want
from stemflow.store.redis.partition import Partition
from stemflow.store.redis.server_time import ServerTime

log = logging.getLogger("stemflow.store")

AWAY_MS: Final = 1_000
"""How long a partition that does not answer is not asked for leases."""
SEEN_MS: Final = 1_000
"""The longest time between two looks of a worker at a partition, since timers may have become due there."""
_MADE: Final = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")

PartOf = Callable[[str, int], int]


def part_of(run: str, parts: int) -> int:
    """The partition of a run. Ids that the engine makes (UUIDv7) are spread; runs under another id are in the first,
    with the keys that runs share."""
    return int(run[-8:], 16) % parts if parts > 1 and _MADE.fullmatch(run) else 0


class _Ask(Struct, frozen=True):
    """A request for leases alone, which has had no answer yet."""

    request: Request
    limit: int


class _Gathered:
    """What the partitions have answered so far."""

    def __init__(self, decisions: int) -> None:
        self.committed = [True] * decisions
        self.leases: list[Lease] = []
        self.timers: list[Due] = []
        self.inbox: list[Inbox] = []
        self.busy_inboxes: list[str] = []
        self.current: list[tuple[Key, Record | None]] = []

    def add(self, answer: Exchange, places: Sequence[int] = ()) -> None:
        for place, committed in zip(places, answer.committed, strict=True):
            self.committed[place] = committed
        self.leases += answer.leases
        self.timers += answer.timers
        self.inbox += answer.inbox
        self.busy_inboxes += answer.busy_inboxes
        self.current += answer.current


class PartitionedExchange:
    """Decisions go to their partitions at once. For leases one partition is asked first, another one each time, and the
    others only while leases are wanted or something in them is due, so that a busy worker asks one alone.

    Requests for leases alone go over a channel of their own; one without an answer is repeated before another is made.
    """

    def __init__(self, shown: str, parts: Sequence[Partition], time: ServerTime, part_of: PartOf) -> None:
        self._shown, self._parts, self._time, self._part_of = shown, parts, time, part_of
        self._next_at: list[int | None] = [0] * len(parts)
        """By partition, the earliest instant at which something in it may be due; 0: unknown, so it counts as due."""
        self._had_timers = [False] * len(parts)
        """By partition, whether its last answer had timers, which come again until they are moved."""
        self._asked_at = [0] * len(parts)
        self._away_until = [0] * len(parts)
        self._unanswered: dict[tuple[str, int], _Ask] = {}
        self._orders: dict[str, tuple[int, list[int]]] = {}

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if want is not None:
            # A worker that waits in many partitions could be pushed a lease in each.
            want = structs.replace(want, pushes=None)
        groups = self._groups(decisions)
        decisions = list(decisions)
        found = _Gathered(len(decisions))
        for place in _relate(decisions, groups):
            found.committed[place] = False
        order = [] if want is None else self._order(request, decisions, want)
        first = order.pop(0) if order else None
        calls = [
            self._commit(found, part, request, decisions, places, want if part == first else None)
            for part, places in groups.items()
        ]
        if want is not None and first is not None and first not in groups:
            calls.append(self._ask(found, first, request, want))
        errors = [one for one in await asyncio.gather(*calls, return_exceptions=True) if one is not None]
        if errors:
            raise errors[0]
        for part in order:
            if want is not None and (len(found.leases) < want.limit or self._is_due(part)):
                await self._ask(found, part, request, want)
        return self._answer(found, want)

    # -- which partitions

    def _groups(self, decisions: Sequence[Decision]) -> dict[int, list[int]]:
        """The places of decisions by partition; those that touch nothing go nowhere."""
        groups: dict[int, list[int]] = {}
        for place, decision in enumerate(decisions):
            parts = {self._part_of(run, len(self._parts)) for run in _runs_of(decision)}
            if len(parts) > 1:
                raise StoreError(
                    f"{self._shown}: expected a decision within one partition, got one over {sorted(parts)}; submit "
                    "runs whose tasks share keys at run time under a run_id of your own: docs/scaling.md"
                )
            for part in parts:
                groups.setdefault(part, []).append(place)
        return groups

    def _order(self, request: Request, decisions: Sequence[Decision], want: Want) -> list[int]:
        """The partitions to be asked for leases; the same again for a request that is repeated."""
        count = len(self._parts)
        if want.only_run is not None:
            return [self._part_of(want.only_run, count)]
        last = self._orders.get(request.channel)
        if last is not None and last[0] == request.sequence:
            return list(last[1])
        submitted = next((header.run for decision in decisions for header in decision.headers), None)
        start = request.sequence % count if submitted is None else self._part_of(submitted, count)
        order = [(start + turn) % count for turn in range(count)]
        self._orders[request.channel] = (request.sequence, list(order))
        return order

    def _is_due(self, part: int) -> bool:
        """Whether something in it may be due, or it has not been asked for SEEN_MS."""
        at_ms = self._next_at[part]
        due = at_ms is not None and at_ms <= self._time.now_ms()
        return due or self._had_timers[part] or self._time.monotonic_ms() - self._asked_at[part] >= SEEN_MS

    def _note_answer(self, part: int, answer: Exchange) -> None:
        self._next_at[part], self._had_timers[part] = answer.next_at_ms, bool(answer.timers)
        self._asked_at[part] = self._time.monotonic_ms()

    # -- asking them

    async def _commit(
        self,
        found: _Gathered,
        part: int,
        request: Request,
        decisions: Sequence[Decision],
        places: Sequence[int],
        want: Want | None,
    ) -> None:
        answer = await self._parts[part].exchange(request, [decisions[place] for place in places], want)
        found.add(answer, places)
        if want is not None:
            self._note_answer(part, answer)
        elif any(decisions[place].posts or decisions[place].consumed for place in places):
            self._next_at[part] = 0  # its inbox may be free now

    async def _ask(self, found: _Gathered, part: int, request: Request, want: Want) -> None:
        """Ask for leases alone; a partition that is away is passed over for a while."""
        if self._time.monotonic_ms() < self._away_until[part]:
            return
        limit, key = max(0, want.limit - len(found.leases)), (request.channel, part)
        ask = self._unanswered.get(key)
        if ask is None or ask.request.epoch != request.epoch or ask.limit > limit:
            ask = _Ask(Request(f"{request.channel}?", request.sequence, request.epoch), limit)
        self._unanswered[key] = ask
        try:
            answer = await self._parts[part].exchange(ask.request, [], structs.replace(want, limit=limit), 0.0)
        except StoreUnavailable as error:
            log.warning("%s; nothing is leased from partition %d for %d ms", error, part, AWAY_MS)
            self._away_until[part] = self._time.monotonic_ms() + AWAY_MS
            self._next_at[part] = self._time.now_ms() + AWAY_MS
            return
        del self._unanswered[key]
        found.add(answer)
        self._note_answer(part, answer)

    def _answer(self, found: _Gathered, want: Want | None) -> Exchange:
        now_ms = self._time.now_ms()
        next_at_ms = None
        if want is not None:
            parts = range(len(self._parts))
            if want.only_run is not None:
                parts = range(first := self._part_of(want.only_run, len(self._parts)), first + 1)
            next_at_ms = min((at for part in parts if (at := self._next_at[part]) is not None), default=None)
            if len(found.timers) > TIMER_PAGE:
                next_at_ms = now_ms
        return Exchange(
            committed=tuple(found.committed),
            leases=tuple(found.leases),
            timers=tuple(found.timers[:TIMER_PAGE]),
            next_at_ms=next_at_ms,
            now_ms=now_ms,
            current=tuple(found.current),
            inbox=tuple(found.inbox),
            busy_inboxes=tuple(found.busy_inboxes),
        )


def _relate(decisions: list[Decision], groups: dict[int, list[int]]) -> list[int]:
    """Let each decision name those that it rests on by their places within the request to its partition. Returns those
    that rest on one of another partition, which cannot be sent with it: they are made again."""
    left: list[int] = []
    for places in groups.values():
        for place in [place for place in places if decisions[place].after]:
            after = decisions[place].after
            if all(one in places for one in after):
                within = tuple([places.index(one) for one in after])
                decisions[place] = structs.replace(decisions[place], after=within)
            else:
                places.remove(place)
                left.append(place)
    return left


def _runs_of(decision: Decision) -> Iterator[str]:
    """The runs that a decision touches; NO_RUN for the keys that runs share."""
    for put in decision.puts:
        yield put.key[0]
    for key, *_ in decision.seen:
        yield key[0]
    for header in (*decision.headers, *decision.also):
        yield header.run
    for some in decision.pages:
        yield some.key[0]
    for letter in decision.dead:
        yield letter.run
    for key in decision.purged:
        yield key[0]
    for post in decision.posts:
        yield post.run
    for run, _ in decision.consumed:
        yield run
    yield from decision.dropped
    for end in decision.ended:
        yield end.run
