"""Opening a store on Redis; loaded only when a URL asks for one, since redis-py takes its time."""

from __future__ import annotations

from typing import Any

from stemflow.ports import Clock
from stemflow.store.base import Store, StoreError
from stemflow.store.redis.client import new_connection, pool_of
from stemflow.store.redis.store import RedisStore
from stemflow.store.redis.url import EXAMPLE, place_of


def open_redis(url: str, clock: Clock, *, test_time: bool = False, wire: Any = None) -> Store:
    """The store that `url` names, not yet connected; with `test_time` the clock is the store's time.

    `wire` makes its connections in place of redis-py (`stemflow.testing.wire`).
    """
    place = place_of(url)
    try:
        new_connection(pool_of(place.url))
    except (TypeError, ValueError) as error:
        # redis-py says only now which parameters it does not know.
        raise StoreError(
            f"store {place.shown}: expected `prefix` and parameters of redis-py ({error}); write for example {EXAMPLE}"
        ) from error
    return RedisStore(place, clock, test_time=test_time, pool=wire)
