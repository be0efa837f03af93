"""Renewing leases beside the event loop, over a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from stemflow.model.records import Key
from stemflow.store.base import Renewed, StoreError
from stemflow.store.redis.blob import pack, text
from stemflow.store.redis.client import ANSWER_S
from stemflow.store.redis.keys import run_name
from stemflow.store.redis.scripts import script


class RedisRenewer:
    """Connects at the first renewal; any thread may call it."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        problem: Callable[[Exception], StoreError],
        prefix_of: Callable[[str], bytes],
        version: Callable[[], tuple[int, int]],
        now_ms: Callable[[], int],
    ) -> None:
        self._connect, self._problem, self._prefix_of = connect, problem, prefix_of
        self._version, self._now_ms = version, now_ms
        self._redis: redis.Redis | None = None
        self._lock = threading.Lock()

    def renew(self, held: Sequence[tuple[Key, int, int]]) -> Renewed:
        parts: dict[bytes, list[tuple[Key, int, int]]] = {}
        for one in held:
            parts.setdefault(self._prefix_of(one[0][0]), []).append(one)
        gone: list[tuple[Key, int]] = []
        stopping: list[tuple[Key, bool]] = []
        for prefix, some in parts.items():
            for (key, token, _), letter in zip(some, self._renew(prefix, some), strict=True):
                if letter == "g":
                    gone.append((key, token))
                elif letter != "h":
                    stopping.append((key, letter == "k"))
        return Renewed(tuple(gone), tuple(stopping))

    def _renew(self, prefix: bytes, held: Sequence[tuple[Key, int, int]]) -> str:
        leases = [(text(run_name(key[0])), key[1], token, lease_ms) for key, token, lease_ms in held]
        request = pack((self._now_ms(), leases))
        found = script("renew", self._version())
        with self._lock:
            try:
                if self._redis is None:
                    self._redis = self._connect()
                try:
                    answer = self._redis.evalsha(found.sha.decode(), 1, prefix, request)
                except NoScriptError:
                    answer = self._redis.eval(found.text.decode(), 1, prefix, request)
            except (RedisError, OSError) as error:
                raise self._problem(error) from error
        return str(answer, "ascii")

    def close(self) -> None:
        with self._lock:
            if self._redis is not None:
                self._redis.close()
                self._redis = None


def connect(url: str) -> redis.Redis:
    """A client for one thread, without the retries of redis-py."""
    return redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=ANSWER_S,
        socket_connect_timeout=ANSWER_S,
        single_connection_client=True,
        decode_responses=False,
    )
