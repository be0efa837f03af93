"""Opening a store on Redis; loaded only when a URL asks for one, since redis-py takes its time."""

from __future__ import annotations

from stemflow.ports import Clock
from stemflow.store.base import Store, StoreError
from stemflow.store.redis.cluster import Cluster
from stemflow.store.redis.connections import Direct, Sentinels, Ways, Wire
from stemflow.store.redis.store import RedisStore
from stemflow.store.redis.url import EXAMPLE, Place, place_of


def open_redis(url: str, clock: Clock, *, test_time: bool = False, wire: Wire | None = None) -> Store:
    """The store that `url` names, not yet connected; with `test_time` the clock is the store's time.

    `wire` makes its connections in place of redis-py (`stemflow.testing.simulation.virtual_connections`).
    """
    place = place_of(url)
    try:
        ways = ways_of(place, wire)
        ways.news()
    except (TypeError, ValueError) as error:
        # redis-py says only now which parameters it does not know.
        raise StoreError(
            f"store {place.shown}: expected `prefix`, `partitions` and parameters of redis-py ({error}); "
            f"write for example {EXAMPLE}"
        ) from error
    return RedisStore(place, clock, ways, test_time=test_time)


def ways_of(place: Place, wire: Wire | None = None) -> Ways:
    if place.kind == "cluster":
        return Cluster(place)
    return Sentinels(place) if place.kind == "sentinel" else Direct(place, wire)
