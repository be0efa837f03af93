"""Opening a store on Redis; loaded only when a URL asks for one, since redis-py takes its time."""

from __future__ import annotations

from stemflow.ports import Clock
from stemflow.store.base import Store, StoreError
from stemflow.store.redis.cluster import ClusterConnections
from stemflow.store.redis.connections import ConnectionFactory, Connections, DirectConnections, SentinelConnections
from stemflow.store.redis.store import RedisStore
from stemflow.store.redis.url import EXAMPLE, RedisLocation, parse_url


def open_redis(url: str, clock: Clock, *, test_time: bool = False, wire: ConnectionFactory | None = None) -> Store:
    """The store that `url` names, not yet connected; with `test_time` the clock is the store's time.

    `wire` makes its connections in place of redis-py (`stemflow.testing.simulation.virtual_connections`).
    """
    place = parse_url(url)
    try:
        connections = connections_of(place, wire)
        connections.subscriber_connection()
    except (TypeError, ValueError) as error:
        # redis-py says only now which parameters it does not know.
        raise StoreError(
            f"store {place.shown}: expected `prefix`, `partitions` and parameters of redis-py ({error}); "
            f"write for example {EXAMPLE}"
        ) from error
    return RedisStore(place, clock, connections, test_time=test_time)


def connections_of(place: RedisLocation, wire: ConnectionFactory | None = None) -> Connections:
    if place.kind == "cluster":
        return ClusterConnections(place)
    return SentinelConnections(place) if place.kind == "sentinel" else DirectConnections(place, wire)
