"""One partition: its records, queues and claims, under one hash tag, so that a script finds all of it in one place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final

from stemflow.model import wire
from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.plan import Plan
from stemflow.model.records import NO_RUN, Claim, Header, Key, Node, Record
from stemflow.store.base import (
    LOSS_LEASE_MS,
    DeadLetterFilter,
    EndedBadly,
    Exchange,
    Lease,
    Request,
    RunInfo,
    StoreError,
    Want,
)
from stemflow.store.codec import read_header, read_node
from stemflow.store.damaged import damaged_letter, decoded_hints, decoded_or_none
from stemflow.store.health import HealthReport, Inventory
from stemflow.store.index_rules import level_of
from stemflow.store.places import split
from stemflow.store.rate_windows import Past, Windows, lane_name
from stemflow.store.redis.client import PATIENCE_S, Client
from stemflow.store.redis.connections import Connections
from stemflow.store.redis.health import check_health
from stemflow.store.redis.keys import key_of, page_field, page_key
from stemflow.store.redis.layout import LIMITS, Answer, KeyFamily
from stemflow.store.redis.loss_detection import LossDetector, LossLog, PassiveObserver
from stemflow.store.redis.notifications import Notifications
from stemflow.store.redis.replies import (
    exchange_of,
    header_of,
    inventory_of,
    leaf_status_of,
    leases_of,
    limit_keys,
    past_of,
    record_of,
)
from stemflow.store.redis.requests import Encoder, pack, text
from stemflow.store.redis.server import refuse_unfit
from stemflow.store.redis.server_time import ServerTime
from stemflow.store.redis.url import RedisLocation
from stemflow.store.run_names import run_name, run_of

FOLLOW_S: Final = 60
"""How long notifications of changes are published after a request for them; it is repeated at a third."""
LISTED: Final = 500
"""Names of runs that are read at a time."""
LEAST_LISTED: Final = 20
"""Runs that are read at a time, at least."""


class Partition:
    """Partition `number` of a store, over connections of its own."""

    def __init__(
        self,
        place: RedisLocation,
        number: int,
        connections: Connections,
        address: str,
        notifications: Notifications,
        time: ServerTime,
        losses: LossLog,
    ) -> None:
        self.url, self.number = place.shown, number
        self.prefix = b"{%s:%d}" % (place.name.encode(), number)
        self._base, self._address = place.name.encode(), address.encode()
        self._connections, self._notifications, self._time = connections, notifications, time
        self._encoder = Encoder()
        self.loss_detector = LossDetector(place.shown, self.prefix, address, place.partitions, time.given, losses)
        self.client = Client(place.shown, connections, self.loss_detector)

    def _key(self, family: KeyFamily, name: bytes = b"") -> bytes:
        return self.prefix + family.value + name

    async def open(self) -> None:
        visitor = self._visitor()
        try:
            refuse_unfit(self.url, await visitor.info())
        finally:
            await visitor.close()
        # The connection that this makes is asked which data there are.
        await self.client.call(b"INFO", b"server")
        self._time.observe(self.loss_detector.now_ms)

    async def close(self) -> None:
        await self.client.close()

    def _visitor(self) -> Client:
        """A client that makes no partition."""
        return Client(self.url, self._connections, PassiveObserver(self.prefix))

    async def check_health(self) -> HealthReport:
        visitor = self._visitor()
        try:
            return await check_health(visitor, self.prefix)
        finally:
            await visitor.close()

    async def inventory(self) -> Inventory:
        answer = await self.client.run("inventory", self.prefix, pack((self._time.given(),)))
        return inventory_of(answer, await self._past(limit_keys(answer)))

    async def _past(self, names: Sequence[str]) -> dict[str, Past]:
        """What is remembered of starts under the keys of rate limits."""
        keys = [self._key(KeyFamily.rate_window, name.encode()) for name in names]
        values = await self.client.call(b"MGET", *keys) if keys else []
        found = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        return decoded_hints("the rate window of", past_of, found)

    # -- exchange

    async def exchange(
        self, request: Request, decisions: Sequence[Decision], want: Want | None, patience_s: float = PATIENCE_S
    ) -> Exchange:
        """See `Store.exchange`; a server that is away is given up after `patience_s`."""
        submitted = [header.run for decision in decisions for header in (*decision.headers, *decision.also)]
        for run in submitted:
            self._notifications.submitted(run)
        blob = self._encoder.exchange(self._time.given(), request, decisions, want, self.loss_detector.name.decode())
        script = "submit" if submitted else "exchange"
        while True:
            answer = await self.client.run(
                script, self.prefix, blob, self._base, self._address, epoch=request.epoch, patience_s=patience_s
            )
            if answer[0] != b"tasks" or want is None or want.tasks is None:
                break
            await self._declare(want, want.tasks)
        if answer[0] == b"lost":
            await self.client.reconnect()
        if answer[0] == b"lost" or not self.loss_detector.holds(request.epoch):
            raise self.loss_detector.loss()
        if answer[0] != b"ok":
            raise self._overtaken(answer, request)
        made = Answer(*answer)
        self._time.observe(made.now_ms)
        await self._seen(made.boot, made.position)
        if not self.loss_detector.holds(request.epoch):
            raise self.loss_detector.loss()
        found = exchange_of(made, decisions)
        for decision, committed in zip(decisions, found.committed, strict=True):
            self._note_committed(decision, committed)
        return found

    async def _declare(self, want: Want, tasks: frozenset[str]) -> None:
        """Store the names of the tasks that a worker has, under their digest."""
        digest = self._encoder.digest(want) or ""
        key = self._key(KeyFamily.tasks, digest.encode())
        # A worker without tasks has an empty set, which a server cannot hold.
        await self.client.call(b"SADD", key, b"", *[name.encode() for name in tasks])
        await self.client.call(b"PEXPIRE", key, LIMITS["tasks_ms"])

    async def waiting_tasks(self) -> list[tuple[str, str]]:
        """See `Store.waiting_tasks`."""
        places = await self.client.call(b"SMEMBERS", self._key(KeyFamily.queues, b""))
        return [found for place in places if (found := split(place.decode(errors="replace")))[1]]

    async def _seen(self, boot: int, position: int) -> None:
        """Note the position of an answer. When it comes from a boot that this process has missed, the server is asked
        first what that boot lost: compared with this position, which is later, it would always seem to be a loss."""
        if self.loss_detector.missed(boot):
            await self.client.reconnect()
        self.loss_detector.seen(boot, position)

    def _note_committed(self, decision: Decision, committed: bool) -> None:
        if committed:
            for end in decision.ended:
                self._notifications.ended(end.run, decision.root_of(end.run))
        else:
            for header in (*decision.headers, *decision.also):
                self._notifications.refused(header.run)

    def _overtaken(self, answer: Sequence[Any], request: Request) -> StoreError:
        return StoreError(
            f"{self.url}: channel {request.channel}: expected request {answer[1]} or later, got {request.sequence}; "
            "give each caller a channel of its own"
        )

    async def take_expired(
        self, owner: str, limit: int, run: str | None = None, patience_s: float = PATIENCE_S
    ) -> list[Lease]:
        request = pack((self._time.given(), limit, LOSS_LEASE_MS, "" if run is None else text(run_name(run))))
        now_ms, leases = await self.client.run("take_expired", self.prefix, request, patience_s=patience_s)
        self._time.observe(now_ms)
        return leases_of(leases)

    # -- reading

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        if not keys:
            return []
        wanted = [part for run, path in keys for part in (text(run_name(run)), path)]
        epoch = self.loss_detector.epoch
        name, position, boot, *values = await self.client.run("read", self.prefix, pack(wanted))
        if name != self.loss_detector.name:
            await self.client.reconnect()
        elif self.loss_detector.holds(epoch):
            await self._seen(boot, position)
        return [record_of(key, value) for key, value in zip(keys, values, strict=True)]

    async def nodes(self, run: str) -> list[Node]:
        name = run_name(run)
        root = await self.client.call(b"GET", self._key(KeyFamily.root, name))
        others = await self.client.call(b"HGETALL", self._key(KeyFamily.nodes, name))
        found = [("", root)] if root is not None else []
        found += [(path.decode(errors="replace"), value) for path, value in zip(others[::2], others[1::2], strict=True)]
        return [read_node(run, path, value)[0] for path, value in sorted(found, key=lambda pair: pair[1][:5])]

    async def leaf_status(self, keys: Sequence[Key]) -> list[LeafStatus | None]:
        nodes = [found if isinstance(found, Node) else None for found in await self.read(keys)]
        leaves = [
            (text(run_name(node.run)), node.path, node.queue, level_of(node), text(lane_name(node.limits).encode()))
            for node in nodes
            if node is not None
        ]
        now_ms, *answer = await self.client.run("leaf_status", self.prefix, pack((self._time.given(), leaves)))
        names = sorted({limit.key for node in nodes if node is not None for limit in node.limits})
        past = await self._past(names)
        return leaf_status_of(nodes, answer, Windows(now_ms, past.get), now_ms)

    async def leased(self, limit: int) -> list[Lease]:
        """Not more than that are ever under way at once: the members of the index, then their records."""
        found = await self.client.call(b"ZRANGE", self._key(KeyFamily.leases), 0, limit - 1, b"WITHSCORES")
        keys = [key_of(member[5:]) for member in found[::2]]
        nodes = zip(await self.read(keys), found[1::2], strict=True)
        return [Lease(node, int(float(until_ms))) for node, until_ms in nodes if isinstance(node, Node)]

    async def claims(self, limit: int, after: str) -> list[Claim]:
        first = b"(" + after.encode() if after else b"-"
        keys = await self.client.call(
            b"ZRANGE", self._key(KeyFamily.claims), first, b"+", b"BYLEX", b"LIMIT", 0, limit
        )  # fmt: skip
        found = await self.read([(NO_RUN, key.decode()) for key in keys])
        return [one for one in found if isinstance(one, Claim)]

    async def header(self, run: str) -> Header | None:
        name = run_name(run)
        keys = (self._key(KeyFamily.header, name), self._key(KeyFamily.root, name))
        alone, value = await self.client.call(b"MGET", *keys)
        if value is None:
            return None if alone is None else read_header(run, alone)
        return header_of(run, *read_node(run, "", value), alone)

    async def plan(self, digest: str, patience_s: float = PATIENCE_S) -> Plan | None:
        body = await self.client.call(b"GET", self._key(KeyFamily.plan, digest.encode()), patience_s=patience_s)
        return None if body is None else decoded_or_none(f"plan {digest}", wire.decode_plan, body)

    async def page(self, key: Key, number: int) -> bytes | None:
        found: bytes | None = await self.client.call(b"HGET", page_key(self.prefix, key[0]), page_field(key[1], number))
        return found

    async def runs(
        self, limit: int, prefix: str, after: tuple[RunInfo, int] | None, state: EndedBadly | None
    ) -> list[RunInfo]:
        """Newest first; those that follow the run `after`, which may be in another partition: its number comes with it.

        Runs of one instant are in the order of their partitions.
        """
        if state is not None:
            return await self._badly_ended(limit, prefix, after, state)
        first = await self._place_of(after) if after is not None else 0
        found: list[RunInfo] = []
        seen: set[str] = set()
        oldest_ms = math.inf
        if first and after is not None:
            seen, oldest_ms = {after[0].header.run}, after[0].header.created_at_ms
        for start in itertools.count(first, LISTED):
            names = await self.client.call(b"LRANGE", self._key(KeyFamily.runs), start, start + LISTED - 1)
            named = ((name, decoded_or_none("the name of a run", run_of, name)) for name in names)
            wanted = [name for name, run in named if run is not None and run.startswith(prefix)]
            while wanted and len(found) < limit:
                # Some may have expired, so that more are read than are asked for.
                most = len(wanted) if after is not None else max(limit - len(found), LEAST_LISTED)
                listed, wanted = await self._listed(wanted[:most]), wanted[most:]
                for info in listed:
                    run, made_ms = info.header.run, info.header.created_at_ms
                    # The id of a run that has expired may be that of a newer one, further up in the list.
                    if run in seen or (made_ms > oldest_ms and await self._first_place(info, start + LISTED) < start):
                        continue
                    seen.add(run)
                    oldest_ms = min(oldest_ms, made_ms)
                    if after is None or first or self._follows(info, *after):
                        found.append(info)
            if len(names) < LISTED or len(found) >= limit:
                return found[:limit]
        return found

    async def _badly_ended(
        self, limit: int, prefix: str, after: tuple[RunInfo, int] | None, state: EndedBadly
    ) -> list[RunInfo]:
        key, place = self._key(KeyFamily[state]), None
        if after is not None and after[1] == self.number:
            place = await self.client.call(b"ZSCORE", key, run_name(after[0].header.run))
        found: list[RunInfo] = []
        low = b"-inf" if place is None else b"(" + place
        for start in itertools.count(0, LISTED):
            names = await self.client.call(b"ZRANGEBYSCORE", key, low, b"+inf", b"LIMIT", start, LISTED)
            named = ((name, decoded_or_none("the name of a run", run_of, name)) for name in names)
            listed = await self._listed([name for name, run in named if run is not None and run.startswith(prefix)])
            # The id of a run that has expired may be that of another one now, which is elsewhere.
            found += [
                info
                for info in listed
                if info.root.state == state
                and (after is None or place is not None or self._follows(info, *after))
            ]
            if len(names) < LISTED or len(found) >= limit:
                return found[:limit]
        return found

    async def _first_place(self, info: RunInfo, most: int) -> int:
        """The first place of a run in the list of runs, among the first `most`."""
        name = run_name(info.header.run)
        place = await self.client.call(b"LPOS", self._key(KeyFamily.runs), name, b"MAXLEN", most)
        return most if place is None else int(place)

    async def _place_of(self, after: tuple[RunInfo, int]) -> int:
        """Where the runs begin that follow `after`; 0 if it is in another partition."""
        if after[1] != self.number:
            return 0
        place = await self.client.call(b"LPOS", self._key(KeyFamily.runs), run_name(after[0].header.run))
        return 0 if place is None else int(place) + 1

    def _follows(self, info: RunInfo, after: RunInfo, number: int) -> bool:
        at_ms, after_ms = info.header.created_at_ms, after.header.created_at_ms
        return at_ms < after_ms or (at_ms == after_ms and self.number > number)

    async def _listed(self, names: Sequence[bytes]) -> list[RunInfo]:
        if not names:
            return []
        keys = [self._key(family, name) for name in names for family in (KeyFamily.root, KeyFamily.header)]
        values = await self.client.call(b"MGET", *keys)
        found = []
        for name, value, alone in zip(names, values[::2], values[1::2], strict=True):
            run = run_of(name)
            root, section = read_node(run, "", value) if value is not None else (None, b"")
            header = header_of(run, root, section, alone) if root is not None else None
            if root is not None and header is not None:
                found.append(RunInfo(header, root))
        return found

    async def dead_letters(self, run: str | None, which: DeadLetterFilter) -> list[DeadLetter]:
        values = await self.client.call(b"HGETALL", self._key(KeyFamily.dead_letters))
        now_ms = self._time.now_ms()
        pairs = sorted(zip(values[1::2], values[::2], strict=True), reverse=True)
        letters = [one for value, name in pairs if (one := _letter(name, value, now_ms)) is not None]
        found = [
            one
            for one in letters
            if (run is None or one.run == run) and which.fit(one) and one.at_ms + one.keep_ms > now_ms
        ]
        return sorted(found, key=lambda one: -one.at_ms)[: which.limit]

    async def past_letters(self) -> int:
        """The number of expired dead letters."""
        found: int = await self.client.call(
            b"ZCOUNT", self._key(KeyFamily.dead_letters_by_end), b"-inf", b"%d" % self._time.now_ms()
        )
        return found

    async def prune(self, limit: int) -> int:
        """Runs, plans, claims, starts and memos expire by themselves; their names and dead letters do not."""
        gone: int = await self.client.run("prune", self.prefix, pack((self._time.given(), limit)))
        return gone

    # -- hints

    async def put_hint(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        run = text(run_name(topic[4:])) if topic.startswith("run:") else False
        request = pack((self._time.given(), topic, name, text(body), ttl_ms, run))
        self._time.observe(await self.client.run("put_hint", self.prefix, request, self._base))

    async def hints(self, topic: str) -> dict[str, bytes]:
        found = await self.client.call(b"HGETALL", self._key(KeyFamily.hints, topic.encode()))
        now_ms = self._time.now_ms()
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode(): one[6:] for name, one in pairs if int.from_bytes(one[:6], "little") > now_ms}

    async def follow(self) -> None:
        """Ask for notifications of changes for a while."""
        await self.client.call(b"SET", self._key(KeyFamily.followers), b"", b"EX", FOLLOW_S)


def _letter(name: bytes, value: bytes, now_ms: int) -> DeadLetter | None:
    """A dead letter; if it cannot be decoded, what its name says of it; None if even that is unreadable."""
    try:
        return wire.decode_dead_letter(memoryview(value)[5:])
    except Exception as error:  # bytes that anybody may have written raise anything
        key = decoded_or_none("the name of a dead letter", key_of, name)
        return None if key is None else damaged_letter(key, error, queue="default", reason="damaged", at_ms=now_ms)
