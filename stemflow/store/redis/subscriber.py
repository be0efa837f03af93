"""The one connection of a process that receives notifications: of work, of changes, of the ends of runs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from stemflow.store.redis.client import ANSWER_S, PAUSES_S, abort, close

log = logging.getLogger("stemflow.store")

PING_S: Final = 10.0
"""How often a silent connection is tried, so that one that was cut without a word is noticed."""


class Subscriber:
    """Calls `on_message(channel, body)` for each message, and `on_reconnect()` when some may have been lost."""

    def __init__(
        self,
        shown: str,
        make: Callable[[], AbstractConnection],
        on_message: Callable[[bytes, bytes], None],
        on_reconnect: Callable[[], None],
    ) -> None:
        self._shown, self._make, self._on_message, self._on_reconnect = shown, make, on_message, on_reconnect
        self._channels: dict[bytes, asyncio.Event] = {}
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._silent = 0

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._listen(), name="stemflow-listen")

    def __contains__(self, channel: bytes) -> bool:
        return channel in self._channels

    async def add(self, channel: bytes) -> None:
        """Returns once the server has said that it will tell of this channel; after a cut, that may take a while."""
        known = self._channels.get(channel)
        if known is None:
            known = self._channels[channel] = asyncio.Event()
            await self._send(b"SUBSCRIBE", channel)
        await known.wait()

    async def drop(self, channel: bytes) -> None:
        known = self._channels.pop(channel, None)
        if known is not None:
            known.set()  # of those who wait to be subscribed: the answer finds the channel gone
            await self._send(b"UNSUBSCRIBE", channel)

    async def _send(self, *command: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        except (RedisError, OSError):
            # The reader gets the same error, reconnects and subscribes to everything again.
            return

    async def _listen(self) -> None:
        pause, again, warned = PAUSES_S[0], False, False
        while True:
            connection = self._make()
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                self._connection = connection
                for known in self._channels.values():
                    known.clear()
                if self._channels:
                    await self._send(b"SUBSCRIBE", *self._channels)
                if warned:
                    log.warning("%s: notifications of other processes are received again", self._shown)
                if again:
                    self._on_reconnect()
                pause, again, warned = PAUSES_S[0], True, False
                self._check_connection(connection)
                while True:
                    self._take(await connection.read_response(timeout=math.inf, disable_decoding=True))
            except (RedisError, OSError) as error:
                if not warned:
                    log.warning(
                        "%s: notifications of other processes are interrupted (%s); reconnecting", self._shown, error
                    )
                warned = True
            finally:
                self._connection = None
                await close(connection)
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSES_S[1])

    def _take(self, message: Any) -> None:
        self._silent = 0
        kind = message[0]
        if kind == b"message":
            self._receive(message[1], message[2])
        elif kind == b"subscribe":
            known = self._channels.get(message[1])
            if known is not None:
                known.set()

    def _receive(self, channel: bytes, body: bytes) -> None:
        """Anybody may publish: what cannot be read is passed over."""
        try:
            self._on_message(channel, body)
        except Exception as error:
            log.error(
                "%s: a notification on channel %r cannot be read (%s); it is passed over",
                self._shown, channel, type(error).__name__,
            )  # fmt: skip

    def _check_connection(self, connection: AbstractConnection) -> None:
        """Ask for a sign of life; give the connection up when the last one did not come."""
        if self._connection is not connection:
            return
        loop = asyncio.get_running_loop()
        if self._silent > 1:
            abort(connection)
            return
        self._silent += 1
        self._pinging = loop.create_task(self._send(b"PING"))
        self._ping = loop.call_later(PING_S if self._silent == 1 else ANSWER_S, self._check_connection, connection)

    async def close(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
