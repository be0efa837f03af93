"""Connections to a server: how they are made, and how they find their server."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry
from redis.sentinel import Sentinel as BlockingSentinel

from stemflow.store.redis.url import Host, RedisLocation, joined

CONNECT_S: Final = 5.0
"""How long connecting, and an answer on a blocking connection, may take."""
FIND_S: Final = 1.0
"""How long one sentinel, or node of a cluster, is asked where a server is before the next one is."""


class Connections(Protocol):
    """Makes the connections to the servers of one store, unconnected: `connect()` of a connection finds its server."""

    changes: int
    """How often partitions were found at other servers than before; connections from before are of no more use."""
    doubt: bool
    """Whether `ask` should be awaited before a connection that there is already is used again."""

    async def ask(self) -> None:
        """Find out which servers have the partitions now."""
        ...

    def connection(self, prefix: bytes) -> AbstractConnection:
        """A new connection to the server that has this partition."""
        ...

    def subscriber_connection(self) -> AbstractConnection:
        """A new connection to a server that delivers the notifications of all partitions."""
        ...

    def blocking(self, prefix: bytes) -> redis.Redis:
        """A client for one thread, to the server that has this partition."""
        ...

    def on_error(self, prefix: bytes, error: Exception) -> bool:
        """Take note of a failed call; returns whether another server should be tried at once."""
        ...

    async def close(self) -> None: ...


class ConnectionFactory(Protocol):
    """What makes connections."""

    def make_connection(self) -> Any: ...


class StableConnections:
    """Connections to a partition whose server never changes, or is looked up with each connection."""

    changes = 0
    doubt = False

    async def ask(self) -> None:
        return


class DirectConnections(StableConnections):
    """One server that its URL names; `wire` makes the connections in place of redis-py."""

    def __init__(self, place: RedisLocation, wire: ConnectionFactory | None = None) -> None:
        self._url = place.url
        self._wire: ConnectionFactory = wire if wire is not None else ConnectionPool.from_url(place.url, **settings())

    def connection(self, prefix: bytes) -> AbstractConnection:
        return self.subscriber_connection()

    def subscriber_connection(self) -> AbstractConnection:
        made: AbstractConnection = self._wire.make_connection()
        return made

    def blocking(self, prefix: bytes) -> redis.Redis:
        return blocking(self._url)

    def on_error(self, prefix: bytes, error: Exception) -> bool:
        return False

    async def close(self) -> None:
        return


class SentinelConnections(StableConnections):
    """The primary, as sentinels know it; they are asked at each new connection."""

    def __init__(self, place: RedisLocation) -> None:
        self._place = place
        login: dict[str, Any] = dict(place.sentinel_login)
        given = {"socket_timeout": FIND_S, "socket_connect_timeout": FIND_S, **login}
        self._sentinel = Sentinel(place.hosts, sentinel_kwargs={**given, "retry": Retry(NoBackoff(), 0)})
        self._blocking = BlockingSentinel(
            list(place.hosts), sentinel_kwargs={**given, "retry": BlockingRetry(NoBackoff(), 0)}
        )
        self._make = finder(place.url)

    async def _primary(self) -> Host:
        found: Host = await self._sentinel.discover_master(self._place.service)
        return found

    def connection(self, prefix: bytes) -> AbstractConnection:
        return self._make(self._primary)

    def subscriber_connection(self) -> AbstractConnection:
        return self._make(self._primary)

    def blocking(self, prefix: bytes) -> redis.Redis:
        return blocking(at(self._place.url, self._blocking.discover_master(self._place.service)))

    def on_error(self, prefix: bytes, error: Exception) -> bool:
        return False

    async def close(self) -> None:
        for one in self._sentinel.sentinels:
            await one.aclose()
        for other in self._blocking.sentinels:
            other.close()


FindHost = Callable[[], Awaitable[Host]]


class FoundConnection(Connection):
    """A connection that asks for its server each time it connects."""

    def __init__(self, find: FindHost, **given: Any) -> None:
        super().__init__(**given)
        self._find = find

    async def connect(self) -> None:
        self.host, self.port = await self._find()
        await super().connect()


class FoundTlsConnection(FoundConnection, SSLConnection):
    """The same with TLS."""


def finder(url: str) -> Callable[[FindHost], AbstractConnection]:
    """What makes connections with the login and settings of `url`, to servers that are found."""
    given: dict[str, Any] = {**parse_url(url), **settings()}
    made = FoundTlsConnection if given.pop("connection_class", None) is SSLConnection else FoundConnection
    return lambda find: made(find, **given)


def settings() -> dict[str, Any]:
    """Settings of connections, without the retries and limits of redis-py."""
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_S,
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
    }


def blocking(url: str) -> redis.Redis:
    """A client for one thread, without the retries of redis-py."""
    return redis.Redis.from_url(
        url,
        retry=BlockingRetry(NoBackoff(), 0),
        socket_timeout=CONNECT_S,
        socket_connect_timeout=CONNECT_S,
        single_connection_client=True,
        decode_responses=False,
    )


def at(url: str, host: Host) -> str:
    """The same URL with another server."""
    parts = urlsplit(url)
    login, mark, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}{mark}{joined(host)}").geturl()
