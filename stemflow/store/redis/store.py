"""The store on Redis or Valkey: one script call an exchange, and news in place of polling."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, Final

from stemflow.model import wire
from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.plan import Plan
from stemflow.model.records import Header, Key, Node, Record
from stemflow.ports import Clock
from stemflow.store.base import (
    EVERY_LETTER,
    LOSS_LEASE_MS,
    BackpressureError,
    Exchange,
    Lease,
    Letters,
    Request,
    RunInfo,
    StoreError,
    Want,
)
from stemflow.store.health import Examination, Stock
from stemflow.store.owner import owner_id
from stemflow.store.place import root_in
from stemflow.store.redis.answers import exchange_of, header_of, leases_of, record_of, stock_of
from stemflow.store.redis.blob import Encoder, pack, text
from stemflow.store.redis.client import Client
from stemflow.store.redis.codec import decode_header, decode_node
from stemflow.store.redis.examine import examine
from stemflow.store.redis.keys import page_field, page_key, run_name, run_of
from stemflow.store.redis.listen import Listener
from stemflow.store.redis.news import News
from stemflow.store.redis.renewer import RedisRenewer
from stemflow.store.redis.server import refuse_unfit
from stemflow.store.redis.standing import Standing, Stranger
from stemflow.store.redis.time import ServerTime
from stemflow.store.redis.url import Place
from stemflow.store.redis.ways import Ways

FOLLOW_S: Final = 60
"""How long followers are told of changes without asking again; they do at a third."""
PAGES_AHEAD_MS: Final = 86_400_000
"""How long pages wait for their run."""
LISTED: Final = 500
"""Runs that are listed at a time."""
_count: Final = itertools.count()


def _name_of_listener() -> str:
    """A short name for this store of this process, since each run keeps it."""
    digest = hashlib.blake2b(f"{owner_id()}/{next(_count)}".encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()


class RedisStore:
    """For tests alone: with `test_time` the given clock is the store's time, in place of the server's."""

    def __init__(self, place: Place, clock: Clock, ways: Ways, *, test_time: bool = False) -> None:
        self.url = place.shown
        self.address = _name_of_listener()
        self.overlaps = False
        self._base = place.name.encode()
        self._prefix = b"{%s:0}" % self._base
        self._time = ServerTime(clock, test_time)
        self._encoder = Encoder()
        self._ways = ways
        self._news = News(self._base, self.address, self._look, self._follow)
        self._standing = Standing(place.shown, self._prefix, self.address, self._time.given, self._news.void)
        self._client = Client(place.shown, ways, self._standing)
        self._follow_at_ms = 0
        self._opened = False

    # -- opening

    async def open(self) -> None:
        if self._opened:
            return
        visitor = self._visitor()
        try:
            refuse_unfit(self.url, await visitor.info())
            self._time.heard(await self._standing.look(self._client.call))
        except BaseException:
            await self._client.let_go()
            await self._ways.close()
            raise
        finally:
            await visitor.close()
        self._opened = True
        await self._news.open(Listener(self.url, self._ways.news, self._news.hear, self._news.missed))

    async def close(self) -> None:
        if self._opened:
            self._opened = False
            await self._news.close()
            await self._client.close()
            await self._ways.close()

    def now_ms(self) -> int:
        return self._time.now_ms()

    @property
    def epoch(self) -> int:
        return self._standing.epoch

    # -- exchange

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        submitted = [header.run for decision in decisions for header in decision.headers]
        for run in submitted:
            self._news.submitted(run)
        blob = self._encoder.exchange(self._time.given(), request, decisions, want, self._standing.name.decode())
        script = "submit" if submitted else "exchange"
        asker = self.address.encode()
        answer = await self._client.run(script, self._prefix, blob, self._base, asker, epoch=request.epoch)
        if answer[0] == b"lost":
            await self._standing.look(self._client.call)
        if answer[0] == b"lost" or not self._standing.holds(request.epoch):
            raise self._standing.loss()
        if answer[0] != b"ok":
            raise self._overtaken(answer, request)
        self._time.heard(answer[1])
        self._standing.seen(answer[7])
        found = exchange_of(answer, decisions)
        for decision, committed in zip(decisions, found.committed, strict=True):
            self._heard(decision, committed)
        return found

    def _heard(self, decision: Decision, committed: bool) -> None:
        if committed:
            for end in decision.ended:
                self._news.ended(end.run, root_in(decision, end.run))
        else:
            for header in decision.headers:
                self._news.refused(header.run)

    def _overtaken(self, answer: Sequence[Any], request: Request) -> StoreError:
        return StoreError(
            f"{self.url}: channel {request.channel}: expected request {answer[1]} or later, got {request.sequence}; "
            "give each caller a channel of its own"
        )

    # -- leases

    async def expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        request = pack((self._time.given(), limit, LOSS_LEASE_MS, "" if run is None else text(run_name(run))))
        now_ms, leases = await self._client.run("expired", self._prefix, request)
        self._time.heard(now_ms)
        return leases_of(leases)

    def renewer(self) -> RedisRenewer:
        return RedisRenewer(
            self._ways.blocking,
            self._ways.heed,
            self._client.problem,
            lambda run: self._prefix,
            lambda: self._standing.version,
            self._time.given,
        )

    # -- reading

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        if not keys:
            return []
        wanted = [part for run, path in keys for part in (text(run_name(run)), path)]
        name, *values = await self._client.run("read", self._prefix, pack(wanted))
        if name != self._standing.name:
            await self._standing.look(self._client.call)
        return [record_of(key, value) for key, value in zip(keys, values, strict=True)]

    async def nodes(self, run: str) -> list[Node]:
        name = run_name(run)
        root = await self._client.call(b"GET", self._prefix + name)
        others = await self._client.call(b"HGETALL", self._prefix + b"n" + name)
        found = [("", root)] if root is not None else []
        found += [(path.decode(), value) for path, value in zip(others[::2], others[1::2], strict=True)]
        return [decode_node(run, path, value)[0] for path, value in sorted(found, key=lambda pair: pair[1][:5])]

    async def header(self, run: str) -> Header | None:
        name = run_name(run)
        beside, value = await self._client.call(b"MGET", self._prefix + b"h" + name, self._prefix + name)
        if value is None:
            return None if beside is None else decode_header(run, beside)
        return header_of(run, *decode_node(run, "", value), beside)

    async def plan(self, digest: str) -> Plan | None:
        body = await self._client.call(b"GET", self._prefix + b"p" + digest.encode())
        return None if body is None else wire.decode_plan(body)

    async def put_pages(self, key: Key, first: int, pages: Sequence[bytes]) -> None:
        place = page_key(self._prefix, key[0])
        fields = [part for number, page in enumerate(pages, first) for part in (page_field(key[1], number), page)]
        await self._client.call(b"HSET", place, *fields)
        if await self.header(key[0]) is None:
            await self._client.call(b"PEXPIRE", place, PAGES_AHEAD_MS)

    async def page(self, key: Key, number: int) -> bytes | None:
        found = await self._client.call(b"HGET", page_key(self._prefix, key[0]), page_field(key[1], number))
        return found if found is None or await self.header(key[0]) is not None else None

    async def runs(self, limit: int, prefix: str = "") -> list[RunInfo]:
        found: list[RunInfo] = []
        for first in itertools.count(0, LISTED):
            names = await self._client.call(b"LRANGE", self._prefix + b"L", first, first + LISTED - 1)
            wanted = [name for name in names if run_of(name).startswith(prefix)]
            found += await self._listed(wanted[: limit - len(found)])
            if len(names) < LISTED or len(found) >= limit:
                return found[:limit]
        return found

    async def _listed(self, names: Sequence[bytes]) -> list[RunInfo]:
        if not names:
            return []
        keys = [self._prefix + kind + name for name in names for kind in (b"", b"h")]
        values = await self._client.call(b"MGET", *keys)
        found = []
        for name, value, beside in zip(names, values[::2], values[1::2], strict=True):
            run = run_of(name)
            root, section = decode_node(run, "", value) if value is not None else (None, b"")
            header = header_of(run, root, section, beside) if root is not None else None
            if root is not None and header is not None:
                found.append(RunInfo(header, root))
        return found

    async def dead_letters(self, run: str | None = None, which: Letters = EVERY_LETTER) -> list[DeadLetter]:
        values = await self._client.call(b"HVALS", self._prefix + b"D")
        letters = [wire.decode_dead_letter(memoryview(value)[5:]) for value in sorted(values, reverse=True)]
        now_ms = self.now_ms()
        found = [
            one
            for one in letters
            if (run is None or one.run == run) and which.fit(one) and one.at_ms + one.keep_ms > now_ms
        ]
        return sorted(found, key=lambda one: -one.at_ms)[: which.limit]

    async def examine(self) -> Examination:
        visitor = self._visitor()
        try:
            return await examine(visitor, self._prefix)
        finally:
            await visitor.close()
            if not self._opened:
                await self._ways.close()

    def _visitor(self) -> Client:
        """A client that makes no partition."""
        return Client(self.url, self._ways, Stranger(self._prefix))

    async def stock(self) -> Stock:
        return stock_of(await self._client.run("stock", self._prefix, pack((self._time.given(),))))

    async def prune(self, limit: int) -> int:
        """Runs, plans, claims, starts and memos expire by themselves; their names and dead letters do not."""
        gone: int = await self._client.run("prune", self._prefix, pack((self._time.given(), limit)))
        return gone

    # -- hints

    async def note(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        run = text(run_name(topic[4:])) if topic.startswith("run:") else False
        request = pack((self._time.given(), topic, name, text(body), ttl_ms, run))
        self._time.heard(await self._client.run("note", self._prefix, request, self._base))

    async def notes(self, topic: str) -> dict[str, bytes]:
        found = await self._client.call(b"HGETALL", self._prefix + b"N" + topic.encode())
        now_ms = self.now_ms()
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode(): one[6:] for name, one in pairs if int.from_bytes(one[:6], "little") > now_ms}

    # -- waiting

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        return self._news.watch(run)

    def unwatch(self, run: str, future: asyncio.Future[Node | None]) -> None:
        self._news.unwatch(run, future)

    @property
    def watching(self) -> int:
        return self._news.watching

    async def changed(self, seen: int, timeout_ms: int | None, run: str | None = None) -> int:
        return await self._news.changed(seen, timeout_ms, run)

    async def work(self, owner: str, seen: int, timeout_ms: int | None) -> int:
        return await self._news.work(owner, seen, timeout_ms)

    async def _look(self, runs: Sequence[str]) -> dict[str, Node]:
        roots = await self.read([(run, "") for run in runs])
        return {root.run: root for root in roots if isinstance(root, Node)}

    async def _follow(self) -> None:
        """Ask for news of changes, unless that was done a short while ago."""
        now_ms = self._time.monotonic_ms()
        if now_ms >= self._follow_at_ms:
            try:
                await self._client.call(b"SET", self._prefix + b"f", b"", b"EX", FOLLOW_S)
            except BackpressureError:
                return  # whoever follows looks every now and then anyway
            self._follow_at_ms = now_ms + FOLLOW_S * 1_000 // 3
