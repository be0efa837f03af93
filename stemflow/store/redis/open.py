"""Opening a store on Redis; loaded only when a URL asks for one, since redis-py takes its time."""

from __future__ import annotations

from stemflow.ports import Clock
from stemflow.store.base import Store
from stemflow.store.redis.store import RedisStore
from stemflow.store.redis.url import place_of


def open_redis(url: str, clock: Clock, *, test_time: bool = False) -> Store:
    """The store that `url` names, not yet connected; with `test_time` the clock is the store's time."""
    return RedisStore(place_of(url), clock, test_time=test_time)
