"""Bytes in a store that are not what they should be, or that are missing, concern the run that they belong to.

Each kind of damage is done by hand to one run, whose neighbours and later runs go on; that run ends, and every question
of an operator is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis

from stemflow import Canvas, Stemflow, TaskRegistry, UnknownRun
from stemflow.errors import StemflowError
from stemflow.model.records import FINAL, Node
from stemflow.store.memory.store import MemoryStore
from stemflow.store.redis.keys import page_key
from stemflow.store.redis.layout import KeyFamily
from stemflow.store.redis.store import RedisStore
from stemflow.store.run_names import run_name
from stemflow.store.sqlite.rows import run_blob
from stemflow.testing.simulation.virtual_files import VirtualSqlite
from tests.spec.conftest import OpenApp

GARBAGE = [b"\xff\xfe garbage", b"", b"\x93\x01\x02\x03", b"\xc1" * 40]
ENDS_SOON_S = 6


class Damage:
    """Damages one run in one store, or what belongs to no run, by the name of what is damaged. `plan`: of the run."""

    def __init__(self, app: Stemflow, run: str, plan: str) -> None:
        self.store: Any = app.store
        self.run, self.digest = run, plan



class MemoryDamage(Damage):
    """Holds records as objects: what can be damaged there is what a bug of the engine would damage."""

    def header_gone(self) -> None:
        del self.store._headers[self.run]

    def plan_gone(self) -> None:
        del self.store._plans._plans[self.digest]

    def pages_gone(self) -> None:
        self.store._pages.pop(self.run)


class SqliteDamage(Damage):
    def sql(self, statement: str, *values: Any) -> None:
        assert self.store._db.execute(statement, values).rowcount > 0
        self.store._known.forget()

    def body(self, garbage: bytes) -> None:
        self.sql("UPDATE nodes SET body = ? WHERE run = ?", garbage, run_blob(self.run))

    def nodes(self) -> None:
        self.body(GARBAGE[0])

    def nodes_empty(self) -> None:
        self.body(GARBAGE[1])

    def nodes_of_another_type(self) -> None:
        self.body(GARBAGE[2])

    def state(self) -> None:
        self.sql("UPDATE nodes SET state = 'frobnicating' WHERE run = ? AND path != ''", run_blob(self.run))

    def header(self) -> None:
        self.sql("UPDATE runs SET header = ? WHERE run = ?", GARBAGE[3], run_blob(self.run))

    def header_gone(self) -> None:
        self.sql("DELETE FROM runs WHERE run = ?", run_blob(self.run))

    def plan(self) -> None:
        self.sql("UPDATE plans SET body = ? WHERE digest = ?", b"\xc1", self.digest)

    def plan_gone(self) -> None:
        self.sql("DELETE FROM plans WHERE digest = ?", self.digest)

    def root_gone(self) -> None:
        self.sql("DELETE FROM nodes WHERE run = ? AND path = ''", run_blob(self.run))

    def members_gone(self) -> None:
        self.sql("DELETE FROM nodes WHERE run = ? AND path != ''", run_blob(self.run))

    def pages(self) -> None:
        self.sql("UPDATE pages SET body = ? WHERE run = ?", b"\xc1", run_blob(self.run))

    def pages_gone(self) -> None:
        self.sql("DELETE FROM pages WHERE run = ?", run_blob(self.run))

    def claim(self) -> None:
        self.sql("INSERT INTO claims (key, rev, until_ms, body) VALUES ('concurrency:later', 1, NULL, ?)", b"\xc1")

    def post(self) -> None:
        self.sql("INSERT INTO posts (run, body) VALUES (?, ?)", run_blob(self.run), b"\xc1")
        self.sql("INSERT INTO inboxes (run, free_at_ms) VALUES (?, 0)", run_blob(self.run))

    def inbox_of_nobody(self) -> None:
        self.sql("INSERT INTO inboxes (run, free_at_ms) VALUES (?, 0)", run_blob("nobody"))

    def window(self) -> None:
        self.sql("INSERT OR REPLACE INTO rate_windows (key, past, until_ms) VALUES ('x', ?, 9e15)", b"\xc1")

    def dead_letter(self) -> None:
        self.sql(
            "INSERT INTO dead_letters (run, path, queue, reason, at_ms, until_ms, body)"
            " VALUES (?, '', 'default', 'x', 9000000000000, 9000000000001, ?)", run_blob(self.run), b"\xc1",
        )  # fmt: skip


class RedisDamage(Damage):
    def __init__(self, app: Stemflow, run: str, plan: str) -> None:
        super().__init__(app, run, plan)
        self.redis = redis.Redis.from_url(app.store.url)
        self.prefix: bytes = self.store._parts[0].prefix

    def key(self, family: KeyFamily, name: bytes = b"") -> bytes:
        return self.prefix + family.value + name

    def values(self, change: Callable[[bytes], bytes]) -> None:
        name = run_name(self.run)
        root: Any = self.redis.get(self.key(KeyFamily.root, name))
        self.redis.set(self.key(KeyFamily.root, name), change(root))
        members: Any = self.redis.hgetall(self.key(KeyFamily.nodes, name))
        for path, value in members.items():
            self.redis.hset(self.key(KeyFamily.nodes, name), path, change(value))

    def nodes(self) -> None:
        self.values(lambda value: value[:30] + b"\xc1" * 20)

    def nodes_empty(self) -> None:
        self.values(lambda value: b"")

    def nodes_of_another_type(self) -> None:
        name = run_name(self.run)
        for family in (KeyFamily.root, KeyFamily.nodes):
            self.redis.delete(self.key(family, name))
            self.redis.rpush(self.key(family, name), b"x")

    def nodes_cut(self) -> None:
        self.values(lambda value: value[:12])

    def state(self) -> None:
        self.values(lambda value: value[:5] + b"\xff" + value[6:])

    def lengths(self) -> None:
        self.values(lambda value: value[:6] + b"\xff" + value[7:19] + b"\xff\xff" + value[21:])

    def plan(self) -> None:
        assert self.redis.set(self.key(KeyFamily.plan, self.digest.encode()), b"\xc1", xx=True)

    def plan_gone(self) -> None:
        assert self.redis.delete(self.key(KeyFamily.plan, self.digest.encode()))

    def root_gone(self) -> None:
        assert self.redis.delete(self.key(KeyFamily.root, run_name(self.run)))

    def members_gone(self) -> None:
        assert self.redis.delete(self.key(KeyFamily.nodes, run_name(self.run)))

    def pages(self) -> None:
        place = page_key(self.prefix, self.run)
        found: Any = self.redis.hkeys(place)
        assert found
        for field in found:
            self.redis.hset(place, field, b"\xc1")

    def pages_gone(self) -> None:
        assert self.redis.delete(page_key(self.prefix, self.run))

    def claim(self) -> None:
        self.redis.set(self.key(KeyFamily.claim, b"concurrency:later"), (1).to_bytes(7, "little") + b"\xc1")

    def claim_short(self) -> None:
        self.redis.set(self.key(KeyFamily.claim, b"concurrency:later"), b"\xc1")

    def post(self) -> None:
        self.redis.zadd(self.key(KeyFamily.inbox, run_name(self.run)), {b"\xc1": 1})
        self.redis.zadd(self.key(KeyFamily.inboxes), {run_name(self.run): 0})
        self.redis.hset(self.key(KeyFamily.meta), "inbox", 1)

    def inbox_of_nobody(self) -> None:
        self.redis.zadd(self.key(KeyFamily.inboxes), {b"?": 0, run_name("nobody"): 0})
        self.redis.hset(self.key(KeyFamily.meta), "inbox", 1)

    def window(self) -> None:
        self.redis.set(self.key(KeyFamily.rate_window, b"g.limited"), b"\xc1")
        self.redis.set(self.key(KeyFamily.rate_window, b"x"), b"\xff" * 13)

    def dead_letter(self) -> None:
        for name in (b"?", run_name("nobody")):
            self.redis.hset(self.key(KeyFamily.dead_letters), name, b"\xc1")
            self.redis.zadd(self.key(KeyFamily.dead_letters_by_end), {name: 9e15})

    def ready_entry(self) -> None:
        for garbage in (*GARBAGE, b"r"):
            self.redis.lpush(self.key(KeyFamily.ready, b"default\x000:"), garbage)

    def delayed_entry(self) -> None:
        for garbage in (*GARBAGE, b"r"):
            self.redis.zadd(self.key(KeyFamily.delayed, b"default"), {garbage: 1})

    def timer_name(self) -> None:
        self.redis.zadd(self.key(KeyFamily.timers), {b"?": 1, b"t\xff\xffx": 1})

    def lease_name(self) -> None:
        self.redis.zadd(self.key(KeyFamily.leases), {b"?": 1, b"\xff" * 40: 1})

    def name_of_a_run(self) -> None:
        self.redis.lpush(self.key(KeyFamily.runs), b"?", b"", b"t\xff\xff\xff")

    def notification(self) -> None:
        found: Any = self.redis.pubsub_channels("*")
        for channel in found:
            for garbage in GARBAGE:
                self.redis.publish(channel, garbage)


OF_STORES: dict[type, type[Damage]] = {MemoryStore: MemoryDamage, VirtualSqlite: SqliteDamage, RedisStore: RedisDamage}
HELPERS = {"sql", "body", "key", "values"}
FAILS = {"nodes", "nodes_empty", "nodes_of_another_type", "state", "header", "header_gone", "plan", "plan_gone",
         "pages", "pages_gone", "post", "lengths", "root_gone"}  # fmt: skip
"""Kinds of damage after which the run fails and leaves a dead letter."""
GONE = {"nodes_empty", "nodes_of_another_type", "nodes_cut"}
"""Those that leave nothing on a server by which the run could be known."""


async def test_damage_ends_one_run_and_harms_no_other(
    open_app: OpenApp, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    @registry.task("g.first", visibility_timeout="2s")
    async def first(n: int) -> int:
        return n

    @registry.task("g.work")
    async def work(n: int) -> int:
        return n

    @registry.task("g.limited", rate_limit="100/s")
    async def limited(n: int) -> int:
        return n

    @registry.task("g.total")
    async def total(parts: list[int]) -> int:
        return sum(parts)

    @registry.task("g.last", concurrency={"key": "later", "limit": 1})
    async def last() -> int:
        return 7

    app = await open_app(worker=False)
    kind = OF_STORES[type(app.store)]
    kinds = [name for name in vars(kind) if not name.startswith("_") and name not in HELPERS]
    for what in kinds:
        plan_of_its_own = total.with_options(result_ttl=60_000 + kinds.index(what)).s()
        await app.submit(Canvas.chord(Canvas.map(first.s(), [1, 2, 3]), plan_of_its_own), run_id=what)
    for i in range(3):
        await app.submit(Canvas.chord([work.s(i), limited.s(i)], total.s()), run_id=f"good{i}")
    for what in kinds:
        (root,) = await app.store.read([(what, "")])
        assert isinstance(root, Node)
        getattr(kind(app, what, root.plan), what)()
    other = await open_app()
    assert [(await (await other.handle(f"good{i}")).wait(600)).value for i in range(3)] == [0, 2, 4]
    assert await other.run(last.s(), run_id="later") == 7
    await asyncio.sleep(ENDS_SOON_S)
    assert (await (await other.submit(limited.s(1), run_id="latest")).wait(600)).value == 1
    found = {what: await end_of(other, what) for what in kinds}
    expected = {what: "damaged" if what in FAILS else "succeeded" for what in kinds}
    expected |= {"members_gone": "running"} if "members_gone" in kinds else {}  # nothing asks for what is not there
    expected |= dict.fromkeys(GONE, "gone") if kind is RedisDamage else {}
    assert found == expected
    await asked_by_an_operator(other, kinds)
    there = await other.store.inventory()
    assert (there.leased, there.overdue_since_ms) == (0, None)
    loud = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
    assert len(loud) <= 6 * len(kinds), loud


async def end_of(app: Stemflow, run: str) -> str:
    """How a run ended; `damaged` with the one dead letter that says so."""
    (root,) = await app.store.read([(run, "")])
    letters = [letter.reason for letter in await app.store.dead_letters() if letter.run == run and letter.reason != "x"]
    if letters:
        assert root is None or (isinstance(root, Node) and root.state == "failed"), root
        return ", ".join(letters)
    return root.state if isinstance(root, Node) else "gone"


async def asked_by_an_operator(app: Stemflow, kinds: list[str]) -> None:
    """None of these questions fails but in one sentence, whatever the store holds; and what goes on can be ended."""
    found = [info.header.run for info in await app.store.runs(100)]
    assert {"good0", "later"} <= set(found)
    await app.store.dead_letters()
    await app.store.count_expired()
    await app.store.prune(10)
    for what in kinds:
        try:
            await app.store.nodes(what)
            await app.cancel(what, force=True)
            result = await (await app.handle(what)).wait(5)
            assert result.status in FINAL
        except StemflowError as error:
            assert "\n" not in str(error)


async def test_a_run_that_is_deleted_while_it_is_awaited_is_unknown(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.task("f")
    async def f() -> None: ...

    app = await open_app(worker=False)
    handle = await app.submit(Canvas.chain(f.si(), f.si()), run_id="root_gone")
    waiting = asyncio.ensure_future(handle.wait())
    await asyncio.sleep(20)
    if isinstance(app.store, MemoryStore):
        del app.store._records[("root_gone", "")]
    else:
        OF_STORES[type(app.store)](app, "root_gone", "").root_gone()  # type: ignore[attr-defined]
    with pytest.raises(UnknownRun):
        await asyncio.wait_for(waiting, 120)


async def test_hints_that_cannot_be_read_are_passed_over_and_logged_once(
    app: Stemflow, registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    for topic in ("workers", "tasks"):
        await app.store.put_hint(topic, "zz", b"{", 10_000_000)

    @registry.task("f")
    async def f() -> int:
        return 1

    assert await app.run(f.s()) == 1
    handle = await app.submit(Canvas.task("unknown.to.all"), allow_unknown=True)
    assert (await handle.wait(1_000)).status == "failed"
    loud = [one.getMessage() for one in caplog.records if "zz cannot be read" in one.getMessage()]
    assert len(loud) <= 2
