"""The store on Redis or Valkey: one script call per exchange and partition, and notifications in place of polling."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from msgspec import structs

from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.plan import Plan
from stemflow.model.records import NO_RUN, Claim, Header, Key, Node, Record
from stemflow.ports import Clock
from stemflow.store.base import (
    ALL_DEAD_LETTERS,
    BackpressureError,
    DeadLetterFilter,
    EndedBadly,
    Exchange,
    ExpiredCounts,
    Lease,
    Request,
    RunInfo,
    StoreUnavailable,
    Want,
)
from stemflow.store.health import HealthReport, Inventory, joined
from stemflow.store.process_owner import owner_id
from stemflow.store.redis.client import PATIENCE_S
from stemflow.store.redis.connections import Connections
from stemflow.store.redis.loss_detection import LossLog
from stemflow.store.redis.notifications import Notifications
from stemflow.store.redis.partition import FOLLOW_S, Partition
from stemflow.store.redis.partitioned_exchange import PartitionedExchange, PartOf, part_of
from stemflow.store.redis.renewer import RedisRenewer
from stemflow.store.redis.server_time import ServerTime
from stemflow.store.redis.subscriber import Subscriber
from stemflow.store.redis.url import RedisLocation

T = TypeVar("T")

_count: Final = itertools.count()


def _name_of_listener() -> str:
    """A short name for this store of this process, since each run keeps it."""
    digest = hashlib.blake2b(f"{owner_id()}/{next(_count)}".encode(), digest_size=6).digest()
    return base64.urlsafe_b64encode(digest).decode()


class RedisStore:
    """One partition or many. For tests alone: with `test_time` the given clock is the store's time, in place of the
    server's; `part_of` gives the partition of a run."""

    def __init__(
        self,
        place: RedisLocation,
        clock: Clock,
        connections: Connections,
        *,
        test_time: bool = False,
        part_of: PartOf = part_of,
    ) -> None:
        self.url = place.shown
        self.address = _name_of_listener()
        self.concurrent_exchanges = True
        self._place, self._connections, self._part_of = place, connections, part_of
        self._time = ServerTime(clock, test_time)
        self.now_ms = self._time.now_ms
        self._notifications = Notifications(place.name.encode(), self.address, self._look, self._follow)
        self._losses = LossLog(self._notifications.on_data_loss)
        self._parts = [
            Partition(place, number, connections, self.address, self._notifications, self._time, self._losses)
            for number in range(place.partitions)
        ]
        self._partitioned = PartitionedExchange(place.shown, self._parts, self._time, part_of)
        self._turn = 0
        self._follow_at_ms = 0
        self._opened = False
        self._users = 0

    # -- opening

    async def open(self) -> None:
        self._users += 1
        if self._opened:
            return
        try:
            # The first one says how many there are; none is made before that is known to fit.
            await self._parts[0].open()
            await self._each(self._parts[1:], Partition.open)
        except BaseException:
            self._users -= 1
            await self._let_go()
            raise
        self._opened = True
        await self._notifications.open(
            Subscriber(
                self.url,
                self._connections.subscriber_connection,
                self._notifications.on_message,
                self._notifications.on_reconnect,
            )
        )

    async def close(self) -> None:
        self._users = max(0, self._users - 1)
        if self._opened and not self._users:
            self._opened = False
            await self._notifications.close(self.url)
            await self._let_go()

    async def _let_go(self) -> None:
        for part in self._parts:
            await part.close()
        await self._connections.close()

    @property
    def epoch(self) -> int:
        return self._losses.count

    # -- partitions

    def partition_of(self, run: str) -> int:
        return self._part_of(run, len(self._parts))

    def _of(self, run: str) -> Partition:
        return self._parts[self.partition_of(run)]

    async def _each(self, parts: Sequence[Partition], work: Callable[[Partition], Awaitable[T]]) -> list[T]:
        """What `work` gives for each of them, at the same time."""
        return list(await asyncio.gather(*(work(part) for part in parts)))

    @property
    def _patience_s(self) -> float:
        """How long a call is retried that other partitions can answer, too."""
        return PATIENCE_S if len(self._parts) == 1 else 0.0

    def _in_turn(self) -> Iterable[Partition]:
        """All of them, beginning with another one each time."""
        self._turn += 1
        first = self._turn % len(self._parts)
        return (*self._parts[first:], *self._parts[:first])

    # -- exchange

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        if len(self._parts) == 1:
            return await self._parts[0].exchange(request, decisions, want)
        return await self._partitioned.exchange(request, decisions, want)

    # -- leases

    async def take_expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        if run is not None:
            return await self._of(run).take_expired(owner, limit, run)
        found: list[Lease] = []
        away: StoreUnavailable | None = None
        for part in self._in_turn():
            if len(found) < limit:
                try:
                    found += await part.take_expired(owner, limit - len(found), patience_s=self._patience_s)
                except StoreUnavailable as error:
                    away = error  # what expired in the others cannot wait for it
        if away is not None and not found:
            raise away
        return found

    def renewer(self) -> RedisRenewer:
        first = self._parts[0]
        return RedisRenewer(
            self._connections.blocking,
            self._connections.on_error,
            first.client.problem,
            lambda run: self._of(run).prefix,
            lambda: first.loss_detector.version,
            self._time.given,
        )

    # -- reading

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        if len(self._parts) == 1:
            return await self._parts[0].read(keys)
        groups: dict[Partition, list[Key]] = {}
        for key in keys:
            groups.setdefault(self._of(key[0]), []).append(key)
        found: dict[Key, Record | None] = {}
        for some, records in zip(
            groups.values(), await self._each(list(groups), lambda part: part.read(groups[part])), strict=True
        ):
            found.update(zip(some, records, strict=True))
        return [found[key] for key in keys]

    async def nodes(self, run: str) -> list[Node]:
        return await self._of(run).nodes(run)

    async def leaf_status(self, keys: Sequence[Key]) -> list[LeafStatus | None]:
        groups: dict[Partition, list[Key]] = {}
        for key in keys:
            groups.setdefault(self._of(key[0]), []).append(key)
        answers = await self._each(list(groups), lambda part: part.leaf_status(groups[part]))
        found: dict[Key, LeafStatus | None] = {}
        for some, statuses in zip(groups.values(), answers, strict=True):
            found.update(zip(some, statuses, strict=True))
        return [found[key] for key in keys]

    async def leased(self, limit: int) -> list[Lease]:
        found = await self._each(self._parts, lambda part: part.leased(limit))
        return sorted((lease for some in found for lease in some), key=lambda one: one.until_ms)[:limit]

    async def claims(self, limit: int, after: str = "") -> list[Claim]:
        return await self._of(NO_RUN).claims(limit, after)

    async def header(self, run: str) -> Header | None:
        return await self._of(run).header(run)

    async def plan(self, digest: str) -> Plan | None:
        # A partition with a run of the plan has the plan: one that is away is waited for only if no other has it.
        asked = self._parts
        if len(self._parts) > 1:
            asked = []
            for part in self._parts:
                try:
                    found = await part.plan(digest, self._patience_s)
                except StoreUnavailable:
                    asked.append(part)
                else:
                    if found is not None:
                        return found
        for part in asked:
            found = await part.plan(digest)
            if found is not None:
                return found
        return None

    async def page(self, key: Key, number: int) -> bytes | None:
        return await self._of(key[0]).page(key, number)

    async def runs(
        self, limit: int, prefix: str = "", after: str = "", state: EndedBadly | None = None
    ) -> list[RunInfo]:
        last = None
        if after:
            (root,), header = await self.read([(after, "")]), await self.header(after)
            if not isinstance(root, Node) or header is None:
                return []
            last = RunInfo(header, root), self.partition_of(after)
        parts = await self._each(self._parts, lambda part: part.runs(limit, prefix, last, state))
        if len(parts) == 1:
            return parts[0]
        found = [info for some in parts for info in some]
        return sorted(found, key=lambda info: info.header.created_at_ms, reverse=True)[:limit]

    async def dead_letters(
        self, run: str | None = None, which: DeadLetterFilter = ALL_DEAD_LETTERS
    ) -> list[DeadLetter]:
        parts = self._parts if run is None else [self._of(run)]
        found = await self._each(parts, lambda part: part.dead_letters(run, which))
        letters = [letter for some in found for letter in some]
        return sorted(letters, key=lambda one: -one.at_ms)[: which.limit]

    async def check_health(self) -> HealthReport:
        try:
            first, *others = await self._each(self._parts, Partition.check_health)
        finally:
            if not self._opened:
                await self._connections.close()
        findings = list(first.findings)
        for number, one in enumerate(others, 1):
            noted = [structs.replace(found, text=f"partition {number}: {found.text}") for found in one.findings]
            findings += [found for found in noted if found.level != "ok" and self._place.kind == "cluster"]
        return HealthReport(tuple(findings), all(one.usable for one in (first, *others)))

    async def inventory(self) -> Inventory:
        return joined(await self._each(self._parts, Partition.inventory))

    async def waiting_tasks(self) -> list[tuple[str, str]]:
        found = await self._each(self._parts, Partition.waiting_tasks)
        return list(dict.fromkeys(one for part in found for one in part))

    async def count_expired(self) -> ExpiredCounts:
        """Dead letters: all else expires by itself, and what is left of it are names."""
        counts = await self._each(self._parts, Partition.past_letters)
        return ExpiredCounts(runs=0, dead_letters=sum(counts), others=0)

    async def prune(self, limit: int) -> int:
        gone = 0
        for part in self._in_turn():
            if gone < limit:
                gone += await part.prune(limit - gone)
        return gone

    # -- hints

    async def put_hint(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        await self._of_topic(topic).put_hint(topic, name, body, ttl_ms)

    async def hints(self, topic: str) -> dict[str, bytes]:
        return await self._of_topic(topic).hints(topic)

    def _of_topic(self, topic: str) -> Partition:
        return self._of(topic[4:]) if topic.startswith("run:") else self._parts[0]

    # -- waiting

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        return self._notifications.watch(run)

    def unwatch(self, run: str, future: asyncio.Future[Node | None]) -> None:
        self._notifications.unwatch(run, future)

    @property
    def watching(self) -> int:
        return self._notifications.watching

    async def wait_for_change(self, seen: int, timeout_ms: int | None, run: str | None = None) -> int:
        return await self._notifications.wait_for_change(seen, timeout_ms, run)

    def pushed_leases(self, owner: str) -> list[Lease]:
        names = {part.loss_detector.name for part in self._parts}
        return [lease for name, lease in self._notifications.pushed_leases(owner) if name in names]

    async def wait_for_work(self, owner: str, seen: int, timeout_ms: int | None) -> int:
        return await self._notifications.wait_for_work(owner, seen, timeout_ms)

    async def _look(self, runs: Sequence[str]) -> dict[str, Node]:
        roots = await self.read([(run, "") for run in runs])
        return {root.run: root for root in roots if isinstance(root, Node)}

    async def _follow(self) -> None:
        """Ask for notifications of changes, unless that was done a short while ago."""
        now_ms = self._time.monotonic_ms()
        if now_ms >= self._follow_at_ms:
            try:
                await self._each(self._parts, Partition.follow)
            except BackpressureError:
                return  # a follower looks every now and then anyway
            self._follow_at_ms = now_ms + FOLLOW_S * 1_000 // 3
