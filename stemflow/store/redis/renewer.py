"""Renewing leases from a thread, over a connection of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError

from stemflow.model.records import Key
from stemflow.store.base import Renewed, StoreError
from stemflow.store.redis.requests import pack, text
from stemflow.store.redis.script_errors import unwrapped
from stemflow.store.redis.scripts import script
from stemflow.store.run_names import run_name

log = logging.getLogger("stemflow.store")


class RedisRenewer:
    """Connects at the first renewal; any thread may call it."""

    def __init__(
        self,
        connect: Callable[[bytes], redis.Redis],
        on_error: Callable[[bytes, Exception], bool],
        problem: Callable[[Exception], StoreError],
        prefix_of: Callable[[str], bytes],
        version: Callable[[], tuple[int, int]],
        now_ms: Callable[[], int],
    ) -> None:
        self._connect, self._on_error = connect, on_error
        self._problem, self._prefix_of = problem, prefix_of
        self._version, self._now_ms = version, now_ms
        self._clients: dict[bytes, redis.Redis] = {}
        self._lock = threading.Lock()

    def renew(self, held: Sequence[tuple[Key, int, int]]) -> Renewed:
        parts: dict[bytes, list[tuple[Key, int, int]]] = {}
        for lease in held:
            parts.setdefault(self._prefix_of(lease[0][0]), []).append(lease)
        gone: list[tuple[Key, int]] = []
        stopping: list[tuple[Key, bool]] = []
        failed: list[StoreError] = []
        for prefix, some in parts.items():
            try:
                letters = self._renew(prefix, some)
            except StoreError as error:
                # Leases of other partitions are renewed all the same.
                failed.append(error)
                continue
            for (key, token, _), letter in zip(some, letters, strict=True):
                if letter == "g":
                    gone.append((key, token))
                elif letter != "h":
                    stopping.append((key, letter == "k"))
        if failed and len(failed) == len(parts):
            raise failed[0]
        for one in failed:
            log.warning("%s; leases of one partition were not renewed", one)
        return Renewed(tuple(gone), tuple(stopping))

    def _renew(self, prefix: bytes, held: Sequence[tuple[Key, int, int]]) -> str:
        leases = [(text(run_name(key[0])), key[1], token, lease_ms) for key, token, lease_ms in held]
        request = pack((self._now_ms(), leases))
        with self._lock:
            try:
                answer = self._ask(prefix, request)
            except (RedisError, OSError) as error:
                # Whatever was wrong with the server, the next connection finds out where it is now.
                self._let_go(prefix)
                if not self._on_error(prefix, error) and not isinstance(error, Broken | MovedError):
                    # A slot that has moved is asked for again even where its new node was known to others before, and
                    # a connection that was closed since the last renewal says nothing of the server.
                    raise self._problem(error) from error
                try:
                    answer = self._ask(prefix, request)
                except (RedisError, OSError) as again:
                    raise self._problem(again) from again
        return str(answer, "ascii")

    def _ask(self, prefix: bytes, request: bytes) -> Any:
        found = script("renew", self._version())
        client = self._clients.get(prefix)
        if client is None:
            client = self._clients[prefix] = self._connect(prefix)
        try:
            try:
                return client.evalsha(found.sha.decode(), 1, prefix, request)
            except NoScriptError:
                return client.eval(found.text.decode(), 1, prefix, request)
        except ResponseError as error:
            raise unwrapped(error) from None

    def _let_go(self, prefix: bytes) -> None:
        client = self._clients.pop(prefix, None)
        if client is not None:
            client.close()

    def close(self) -> None:
        with self._lock:
            for prefix in tuple(self._clients):
                self._let_go(prefix)
