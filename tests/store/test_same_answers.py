"""Whatever is asked of them, the stores give the same answers."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stemflow.model.effects import DeadLetter, Decision, Put, RunEnd
from stemflow.model.facts import End, Post
from stemflow.model.rates import Rate
from stemflow.model.records import (
    CANCELLED,
    FINAL,
    HELD,
    READY,
    RUNNING,
    STOPPING,
    SUCCEEDED,
    Claim,
    Header,
    Key,
    Node,
    Record,
    State,
    Tally,
)
from stemflow.store.base import INBOX_MS, Exchange, Request, Store, Want
from stemflow.store.memory.store import MemoryStore
from stemflow.store.open import open_store
from stemflow.store.redis.open import open_redis
from stemflow.store.sqlite.store import SqliteStore
from stemflow.testing.contract.world import ManualClock
from stemflow.testing.servers.server import Server
from tests.conftest import NIGHTLY

RUNS = ("r", "s")
PATHS = ("", "a", "b", "c", "d")
LANES = (
    (),
    (Rate(1, 30, "k"),),
    (Rate(2, 50, "k"), Rate(3, 200, "l")),
    (Rate(2, 50, "l", burst=1),),
    (Rate(3, 70, "m", burst=2), Rate(1, 30, "k")),
)
QUEUES = (None, ("default",), ("slow",), ("default", "slow"))


@dataclass
class Change:
    """A put as drawn: how it departs from what is stored, and whether its guards are wrong."""

    key: Key
    state: State
    priority: int
    turn: int
    queue: str
    lane: int
    delay_ms: int
    due_in_ms: int | None
    lease_ms: int
    scope: bool
    wrong_rev: bool
    wrong_token: bool

    def put(self, stored: Record | None, now_ms: int) -> Put:
        node = stored if isinstance(stored, Node) else None
        rev, token = (node.rev, node.delivery) if node is not None else (0, 0)
        guard = rev + self.wrong_rev
        record = Node(
            run=self.key[0],
            path=self.key[1],
            plan="p",
            node=1,
            state=self.state,
            rev=guard + 1,
            delivery=token,
            priority=self.priority,
            turn=self.turn,
            queue=self.queue,
            limits=LANES[self.lane],
            at_ms=now_ms + self.delay_ms if self.delay_ms else 0,
            due_at_ms=None if self.due_in_ms is None else now_ms + self.due_in_ms,
            lease_ms=self.lease_ms,
            tally=Tally(3) if self.scope and self.state != READY else None,
            kill=self.priority == 1,
        )
        return Put(self.key, guard, token + self.wrong_token, record)


rare = st.integers(0, 9).map(lambda number: number == 0)
keys = st.tuples(st.sampled_from(RUNS), st.sampled_from(PATHS))
changes = st.builds(
    Change,
    key=keys,
    state=st.sampled_from((READY, READY, READY, HELD, RUNNING, STOPPING, SUCCEEDED, CANCELLED)),
    priority=st.integers(0, 2),
    turn=st.sampled_from((0, 0, 1, 3)),
    queue=st.sampled_from(("default", "default", "slow")),
    lane=st.integers(0, 4),
    delay_ms=st.sampled_from((0, 0, 10, 60)),
    due_in_ms=st.sampled_from((None, None, 0, 20)),
    lease_ms=st.sampled_from((20, 100)),
    scope=rare,
    wrong_rev=rare,
    wrong_token=rare,
)
claims = st.tuples(st.sampled_from(("k", "l")), st.booleans(), rare)
decisions = st.tuples(
    st.lists(changes, max_size=3, unique_by=lambda change: change.key),
    st.lists(claims, max_size=1),
    rare,
    st.booleans(),
    st.lists(st.builds(lambda key, index: Post(*key, (End(index, "ok"),)), keys, st.integers(0, 3)), max_size=2),
    st.sets(st.sampled_from(RUNS), max_size=1),
)
wants = st.none() | st.tuples(
    st.integers(0, 3), st.sampled_from(QUEUES), st.sampled_from((None, "r")), st.integers(0, 2)
)
commands = st.one_of(
    st.tuples(st.just("exchange"), st.lists(decisions, max_size=3), wants),
    st.tuples(st.just("exchange"), st.lists(decisions, max_size=3), wants),
    st.tuples(st.just("exchange"), st.just([]), wants),
    st.tuples(st.just("repeat")),
    st.tuples(st.just("advance"), st.integers(0, 40) | st.just(INBOX_MS)),
    st.tuples(st.just("expired"), st.integers(1, 3), st.sampled_from((None, None, *RUNS))),
    st.tuples(st.just("prune"), st.integers(1, 5)),
    st.tuples(st.just("renew"), st.lists(st.tuples(keys, st.integers(0, 3), st.just(50)), max_size=4)),
)


class Same:
    """Stores that are asked the same."""

    def __init__(self, clock: ManualClock, stores: Sequence[Store]) -> None:
        self.clock, self.stores = clock, stores
        self.renewers = [store.renewer() for store in stores]
        self.prunes = all(isinstance(store, (MemoryStore, SqliteStore)) for store in stores)
        """Others delete by the clock of their server."""
        self.last: tuple[Request, list[Decision], Want | None] = (Request("c", 0), [], None)
        self.given: dict[str, list[int]] = {}
        """By run, the number up to which its inbox was leased, of each store."""

    async def all(self, ask: Callable[[Store], Any]) -> Any:
        first, *others = [await ask(store) for store in self.stores]
        for other in others:
            self.compare(first, other)
        return first

    def compare(self, first: Any, other: Any) -> None:
        if isinstance(first, Exchange):
            wanted = self.last[2].limit if self.last[2] is not None else 0
            late = other.next_at_ms is None or (first.next_at_ms is not None and other.next_at_ms > first.next_at_ms)
            assert len(first.leases) >= wanted or first.next_at_ms is None or not late
            first, other = replace(first, next_at_ms=None), replace(other, next_at_ms=None)
        assert first == other

    async def exchange(self) -> None:
        """The last request, in which each store finds its own numbers."""
        request, made, want = self.last
        answers = []
        for place, store in enumerate(self.stores):
            upto = {run: numbers[place] for run, numbers in self.given.items()}
            own = [replace(one, consumed=tuple((run, upto.get(run, 0)) for run, _ in one.consumed)) for one in made]
            answers.append(await store.exchange(request, own, want))
        for place, inbox in enumerate(answers[0].inbox):
            self.given[inbox.run] = [one.inbox[place].upto for one in answers]
        first, *others = [replace(one, inbox=tuple(replace(box, upto=0) for box in one.inbox)) for one in answers]
        for other in others:
            self.compare(first, other)

    async def do(self, command: Any) -> None:
        match command:
            case ("exchange", drawn, wanted):
                want = None
                if wanted is not None:
                    limit, queues, run, oldest = wanted
                    want = Want(owner="o", limit=limit, queues=queues, only_run=run, oldest=oldest)
                made = [await self.decision(*one) for one in drawn]
                self.last = (Request("c", self.last[0].sequence + 1), made, want)
                await self.exchange()
            case ("repeat",):
                await self.exchange()
            case ("advance", ms):
                # Much that is expired is pruned in an order of each store's own.
                self.clock.advance(ms if ms < INBOX_MS or not self.prunes else 0)
            case ("expired", limit, run):
                await self.all(lambda store: store.take_expired("o", limit, run))
            case ("prune", limit):
                if self.prunes:
                    await self.all(lambda store: store.prune(limit))
            case ("renew", held):
                first, *others = [renewer.renew(held) for renewer in self.renewers]
                assert others == [first] * len(others)
        await self.view()

    async def decision(
        self,
        changed: list[Change],
        claimed: list[tuple[str, bool, bool]],
        dead: bool,
        twin: bool,
        posts: list[Post],
        heard: set[str],
    ) -> Decision:
        now_ms = self.clock.now_ms()
        stored = await self.stores[0].read([change.key for change in changed])
        puts = [change.put(record, now_ms) for change, record in zip(changed, stored, strict=True)]
        for key, drop, wrong in claimed:
            (record,) = await self.stores[0].read([("", key)])
            rev = record.rev if record is not None else 0
            if rev or not drop:
                new = Claim(key=key, holders=(("r", "a"),), rev=rev + 1, finished=key == "l", until_ms=now_ms + 20)
                new = None if drop else new
                puts.append(Put(("", key), rev + wrong, 0, new))
        headers = tuple(
            Header(run=put.key[0], plan="p") for put in puts if put.key[1] == "" and put.guard == 0 and put.key[0]
        )
        others = tuple(Header(run=run, plan="p") for run in RUNS if all(put.key != (run, "") for put in puts))
        begins = bool(headers) and puts[0].key == (headers[0].run, "")
        also = others if twin and begins else ()
        ended = tuple(
            RunEnd(change.key[0], 2 * change.lease_ms)
            for change in changed
            if self.prunes and not change.key[1] and change.state in FINAL
        )
        keys = [change.key for change in changed]
        letters = [DeadLetter(run, path, "t", "final", now_ms, keep_ms=60) for run, path in keys]
        effects: Any = {"purged": tuple(keys)} if dead else {"dead": tuple(letters)}
        effects |= {"posts": tuple(posts), "consumed": tuple((run, 0) for run in heard)}
        return Decision(puts=tuple(puts), headers=headers, also=also, ended=ended, **effects)

    async def view(self) -> None:
        for run in RUNS:
            await self.all(lambda store, run=run: store.nodes(run))  # type: ignore[misc]
        await self.all(lambda store: store.read([("", "k"), ("", "l")]))
        await self.all(lambda store: store.runs(9))
        await self.all(lambda store: store.dead_letters())


async def drive(drawn: list[Any], directory: str, server: str | None) -> None:
    clock = ManualClock()
    stores = [open_store("memory:", clock), open_store(f"sqlite:{Path(directory) / 's.db'}", clock)]
    if server is not None:
        stores.append(open_redis(server, clock, test_time=True))
    for store in stores:
        await store.open()
    same = Same(clock, stores)
    try:
        for command in drawn:
            await same.do(command)
    finally:
        for renewer in same.renewers:
            renewer.close()
        for store in stores:
            await store.close()


@settings(max_examples=200)
@given(st.lists(commands, min_size=5, max_size=25))
def test_memory_and_sqlite_give_the_same_answers(drawn: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(drive(drawn, directory, None))


@settings(max_examples=40)
@given(drawn=st.lists(commands, min_size=5, max_size=25))
def test_a_server_gives_the_same_answers(one_server: Server, drawn: list[Any]) -> None:
    on_server(one_server, drawn)


@pytest.mark.long
@settings(max_examples=10_000 if NIGHTLY else 500)
@given(drawn=st.lists(commands, min_size=5, max_size=25))
def test_a_server_gives_the_same_answers_to_many_more_commands(one_server: Server, drawn: list[Any]) -> None:
    on_server(one_server, drawn)


@pytest.mark.long
@settings(max_examples=50)
@given(drawn=st.lists(commands, min_size=5, max_size=25))
def test_other_servers_give_the_same_answers(other_server: Server, drawn: list[Any]) -> None:
    on_server(other_server, drawn)


def on_server(server: Server, drawn: list[Any]) -> None:
    server.flush()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(drive(drawn, directory, server.url))
