"""Rate limited queues: the indexes of blocked lanes next to a plain scan over all lanes, on each store.

Everything is measured at the store, without tasks: leaves are created, then exchanges lease and end them. `free`: no
limit is reached. `blocked`: every key has used its limit, so that an exchange finds nothing. `shared`: every leaf has
a limit of its own key and one that all keys share, which admits ten leaves at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from heapq import heappop, heappush
from typing import Any, Final
from unittest import mock

from measure import store_url

from stemflow.model.effects import Decision
from stemflow.model.rates import Rate
from stemflow.store.base import Store
from stemflow.store.lane_choice import choose
from stemflow.store.memory import queue as memory_queue
from stemflow.store.open import open_store
from stemflow.store.rate_windows import Lane, Windows, lane_of
from stemflow.store.redis import scripts
from stemflow.store.redis.open import open_redis
from stemflow.store.sqlite import commit as sqlite_commit
from stemflow.store.sqlite import lanes as sqlite_lanes
from stemflow.store.sqlite import lease as sqlite_lease
from stemflow.testing.contract.world import ManualClock, User, leaf, succeed

HOUR_MS: Final = 3_600_000
LIMIT: Final = 100
"""Leaves that one exchange may lease."""


# -- the plain scan


class Scan:
    """As `lane_choice.LaneIndex`: every lane in which something is ready, for one exchange; nothing is remembered."""

    def __init__(self, lanes: Iterator[tuple[Any, Lane]], head: Callable[[Lane], Any], take: Callable[[Lane], Any]):
        self._best: list[tuple[Any, Lane]] = []
        for found in lanes:
            heappush(self._best, found)
        self.head, self.take = head, take
        self.until_ms: int | None = None

    def first(self) -> tuple[Any, Lane] | None:
        return self._best[0] if self._best else None

    def remove(self, lane: Lane) -> None:
        heappop(self._best)

    def put(self, lane: Lane, rank: Any, blocked_by: Rate | None) -> None:
        """A lane that has to wait is not looked at again in this exchange."""

    def block(self, limit: Rate, until_ms: int) -> None:
        self.until_ms = until_ms if self.until_ms is None else min(self.until_ms, until_ms)


class ScannedHeaps(memory_queue.MemoryLanes):
    """The lanes of a queue in memory, without an index of those that wait."""

    def add(self, lane: Lane, entry: Any) -> None:
        heappush(self._heaps.setdefault(lane, []), entry)

    def ready(self) -> Iterator[tuple[Any, Lane]]:
        for lane in tuple(self._heaps):
            rank = self.head(lane)
            if rank is not None:
                yield rank, lane


def scan_memory(self: Any, want: Any, records: Any, windows: Windows, now_ms: int) -> Any:
    scans = []
    for queue in self._named(want.queues):
        if lanes := self._lanes.get(queue):
            lanes.look(records, now_ms)
            scans.append(Scan(lanes.ready(), lanes.head, lanes.take))
    taken = choose([], scans, windows, want.limit)
    return taken, min((one.until_ms for one in scans if one.until_ms is not None), default=None)


_HEADS: Final = f"""WITH RECURSIVE found(lane) AS (
    SELECT min(lane) FROM nodes INDEXED BY ready WHERE stage = 1 AND queue = :queue AND lane > ''
    UNION ALL SELECT (SELECT min(lane) FROM nodes INDEXED BY ready
        WHERE stage = 1 AND queue = :queue AND lane > found.lane) FROM found WHERE lane IS NOT NULL)
    SELECT (SELECT {sqlite_lanes.RANK} FROM nodes INDEXED BY ready WHERE stage = 1 AND queue = :queue
        AND lane = found.lane ORDER BY priority DESC, id LIMIT 1), lane FROM found WHERE lane IS NOT NULL"""


def scan_sqlite(db: sqlite3.Connection, known: Any, want: Any, windows: Windows, now_ms: int) -> Any:
    scans = []
    for queue in want.queues:
        lanes = sqlite_lanes.SqliteLanes(db, queue, windows, want.limit, now_ms)
        found = db.execute(_HEADS, {"queue": queue}).fetchall()
        ready = iter([(rank, lane_of(name)) for rank, name in found])
        scans.append(Scan(ready, lanes.head, lanes.take))
    taken = choose([], scans, windows, want.limit)
    return taken, min((one.until_ms for one in scans if one.until_ms is not None), default=None)


def has_lane(db: sqlite3.Connection, queue: str, now_ms: int) -> bool:
    some = "SELECT 1 FROM nodes INDEXED BY ready WHERE stage = 1 AND queue = ? AND lane > '' LIMIT 1"
    return db.execute(some, (queue,)).fetchone() is not None


SCAN_LUA: Final = """
local function join(queue, lane, rank) call('HSET', P .. 'H' .. queue, lane, '') end

local function before(one, other)
  if one.priority ~= other.priority then return one.priority < other.priority end
  return one.order > other.order
end

local function take(want, now)
  local taken, lanes, open, rates, soonest = {}, {}, {}, windows(now), nil
  for _, queue in ipairs(queues_of(want)) do
    wake_delayed(queue, now)
    flush_pushes()
    local names = call('HKEYS', P .. 'H' .. queue)
    local size = math.ceil(want.limit / math.max(1, #names)) + 1
    for _, name in ipairs(names) do
      lanes[#lanes + 1] = open_lane(queue, name, size, false, now, limits_of(name))
    end
  end
  for _, lane in ipairs(lanes) do
    if surface(lane) then open[#open + 1] = lane end
  end
  table.sort(open, before)
  while #open > 0 and #taken < want.limit do
    local lane = table.remove(open)
    if not rates.admit(lane.limits) then
      local _, till = rates.obstacle(lane.limits)
      soonest = math.min(soonest or till, till)
    else
      take_head(lane, taken)
      if surface(lane) then
        local low, high = 1, #open + 1
        while low < high do
          local middle = math.floor((low + high) / 2)
          if before(open[middle], lane) then low = middle + 1 else high = middle end
        end
        table.insert(open, low, lane)
      end
    end
  end
  for _, lane in ipairs(lanes) do
    local fresh, back = lane.fresh.finish(), lane.back.finish()
    if fresh and back then call('HDEL', P .. 'H' .. lane.queue, lane.name) end
  end
  rates.save()
  return taken, soonest
end
"""
_source_of = scripts.source_of


def scan_source(name: str) -> str:
    """The scripts with a `join` that remembers names alone, and a `take` that looks at every lane."""
    text = _source_of(name)
    join, take = SCAN_LUA.split("\n\n", 1)
    for function, instead in (("join", join.strip()), ("take", take)):
        begin = text.find(f"local function {function}(")
        if begin >= 0:
            end = text.index("\nend\n", begin) + len("\nend\n")
            text = text[:begin] + instead + "\n" + text[end:]
    return text


@contextmanager
def scanning() -> Iterator[None]:
    """Stores that are opened inside look at every lane in every exchange."""
    with ExitStack() as stack:
        for owner, name, instead in (
            (memory_queue, "MemoryLanes", ScannedHeaps),
            (memory_queue.Queues, "take", scan_memory),
            (sqlite_lease, "_choose", scan_sqlite),
            (sqlite_lanes, "may_admit", has_lane),
            (sqlite_lanes, "queues", lambda db, known, wanted: wanted),
            (sqlite_commit, "_join", lambda db, limited: None),
            (scripts, "source_of", scan_source),
        ):
            stack.enter_context(mock.patch.object(owner, name, instead))
        scripts.script.cache_clear()
        try:
            yield
        finally:
            scripts.script.cache_clear()


# -- what is measured


def lane(number: int, limit: int, shared: int = 0) -> Lane:
    own = Rate(limit, HOUR_MS, f"key {number}")
    return (own, Rate(shared, 1_000, "all")) if shared else (own,)


async def fill(user: User, keys: int, leaves: int, limit: int, shared: int = 0) -> None:
    """`leaves` of one run, by turns under each key."""
    made = [leaf(f"[{n}]", limits=lane(n % keys, limit, shared), queue="q") for n in range(leaves)]
    await user.begin(*made)


async def free(user: User, clock: ManualClock, keys: int) -> float:
    """Microseconds a leaf, leased and ended, where no limit is reached."""
    count = 3_000
    await fill(user, keys, count, 100_000)
    ended: list[Decision] = []
    done, begun_at = 0, time.perf_counter()
    while done < count:
        answer = await user.exchange(*ended, want=user.want(LIMIT, queues=("q",)))
        ended = [Decision(puts=(succeed(lease),)) for lease in answer.leases]
        assert ended
        done += len(ended)
    return (time.perf_counter() - begun_at) * 1e6 / count


async def blocked(user: User, clock: ManualClock, keys: int) -> float:
    """Microseconds an exchange, where every key has used its limit."""
    await fill(user, keys, 2 * keys, 1)
    while await user.lease(LIMIT, queues=("q",)):
        pass
    rounds, begun_at = 50, time.perf_counter()
    for _ in range(rounds):
        assert not await user.lease(LIMIT, queues=("q",))
    return (time.perf_counter() - begun_at) * 1e6 / rounds


async def shared(user: User, clock: ManualClock, keys: int) -> float:
    """Microseconds an exchange that leases ten leaves, which one limit over all keys admits."""
    rounds = 50
    await fill(user, keys, max(keys, 10 * (rounds + 1)), 100_000, 10)
    await user.lease(LIMIT, queues=("q",))
    took = 0.0
    for _ in range(rounds):
        clock.advance(1_000)
        begun_at = time.perf_counter()
        leases = await user.lease(LIMIT, queues=("q",))
        took += time.perf_counter() - begun_at
        assert len(leases) == 10, len(leases)
    return took * 1e6 / rounds


WORK: Final = {"free": free, "blocked": blocked, "shared": shared}


async def measured(kind: str, work: Callable[[User, ManualClock, int], Any], keys: int, scan: bool) -> float:
    with ExitStack() as stack:
        if scan:
            stack.enter_context(scanning())
        url = stack.enter_context(store_url(kind))
        clock = ManualClock()
        store: Store = open_redis(url, clock, test_time=True) if kind == "redis" else open_store(url, clock)
        await store.open()
        try:
            took: float = await work(User(store, "one"), clock, keys)
            return took
        finally:
            await store.close()


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--keys", type=int, nargs="+", default=[1, 50, 1_500])
    options.add_argument("--stores", nargs="+", default=["memory", "sqlite", "redis"])
    given = options.parse_args()
    found: dict[tuple[str, str, int, bool], list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        for kind in given.stores:
            for name, work in WORK.items():
                for keys in given.keys:
                    for scan in (False, True):
                        found[kind, name, keys, scan].append(await measured(kind, work, keys, scan))
    print(f"{'':<10}{'':<9}{'keys':>6}{'indexed, us':>14}{'plain scan, us':>16}{'scan / indexed':>16}")
    for kind in given.stores:
        for name in WORK:
            for keys in given.keys:
                indexed, scanned = (statistics.median(found[kind, name, keys, scan]) for scan in (False, True))
                print(f"{kind:<10}{name:<9}{keys:>6}{indexed:>14.1f}{scanned:>16.1f}{scanned / indexed:>16.2f}")


if __name__ == "__main__":
    asyncio.run(main())
