"""Connections to a real server for programs in virtual time: `open_redis(url, clock, wire=...)`.

Virtual time does not pass while a command is executed, and notifications that it causes are received before its reply.
Keys with an expiry age by the virtual time that passes.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.connection import Connection, parse_url
from redis.retry import Retry

_PATIENCE_S: Final = 20.0
_FENCE: Final = b"fence"
_PACKED_FENCE: Final = b"*2\r\n$4\r\nPING\r\n$5\r\nfence\r\n"
_PUBLISHES: Final = (b"EVALSHA", b"EVAL", b"PUBLISH")
"""Commands after which notifications may have been sent."""
_AGE: Final = b"""
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 and left <= ARGV[1] + 5 then redis.call('DEL', key)
  elseif left >= 0 then redis.call('PEXPIRE', key, left - ARGV[1]) end
end
"""


class VirtualWire:
    """All connections of one test to the server at `url`; used by the thread of its virtual loop alone."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.sent = 0
        """The number of commands that the store has sent and waited for."""
        self.ages = True
        """Whether keys with an expiry age by virtual time. The commands for that are not counted."""
        self._listeners: list[VirtualConnection] = []
        self._ahead_ms = round((asyncio.get_running_loop().time() - time.monotonic()) * 1_000)

    def real(self) -> Connection:
        """A blocking connection."""
        retry = Retry(NoBackoff(), 0)
        return Connection(**parse_url(self._url), retry=retry, protocol=2, socket_timeout=_PATIENCE_S)

    def make_connection(self) -> VirtualConnection:
        return VirtualConnection(self)

    def age(self) -> tuple[Any, ...] | None:
        """The command that ages the keys with an expiry by the virtual time that has passed; None if none has."""
        ahead_ms = round((asyncio.get_running_loop().time() - time.monotonic()) * 1_000)
        passed_ms = ahead_ms - self._ahead_ms
        if not self.ages or not passed_ms:
            return None
        self._ahead_ms = ahead_ms
        return b"EVAL", _AGE, b"0", str(passed_ms).encode()

    def settle(self) -> None:
        """Receive everything that the server has published so far."""
        for listener in self._listeners:
            listener.ask()
        for listener in self._listeners:
            listener.receive()

    def listen(self, connection: VirtualConnection) -> None:
        if connection not in self._listeners:
            self._listeners.append(connection)

    def forget(self, connection: VirtualConnection) -> None:
        if connection in self._listeners:
            self._listeners.remove(connection)


class VirtualConnection:
    """The part of a redis-py connection that the store uses."""

    def __init__(self, wire: VirtualWire) -> None:
        self._wire = wire
        self._real = wire.real()
        self._received: deque[Any] = deque()
        self._arrival = asyncio.Event()
        self._aged = False
        """The reply to the command that ages keys comes before that to the command which was sent."""
        self._may_publish = False
        self.is_connected = False

    async def connect(self) -> None:
        self._real.connect()
        self.is_connected = True

    async def disconnect(self, nowait: bool = False) -> None:
        self.is_connected = False
        self._wire.forget(self)
        self._real.disconnect()

    def pack_command(self, *words: Any) -> Any:
        return [words]

    async def send_packed_command(self, packed: Sequence[Sequence[Any]], check_health: bool = True) -> None:
        (words,) = packed
        if words == (b"PING",):
            self._deliver([b"pong", b""])
            return
        if words[0] in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
            self._send(words)
            self._wire.listen(self)
            self.ask()
            self.receive()
            return
        age = self._wire.age()
        self._aged = age is not None
        self._may_publish = words[0] in _PUBLISHES
        self._send(*([words] if age is None else [age, words]))

    def _send(self, *commands: Sequence[Any]) -> None:
        packed = [part for words in commands for part in self._real.pack_command(*words)]
        self._real.send_packed_command([b"".join(packed)], check_health=False)

    async def read_response(self, timeout: float | None = None, disable_decoding: bool = False) -> Any:
        """The reply, or, with a `timeout` (which never expires), the next message."""
        if timeout is None:
            self._wire.sent += 1
            if self._aged:
                self._real.read_response(disable_decoding=True)
                self._aged = False
            answer = self._real.read_response(disable_decoding=True)
            if self._may_publish:
                self._wire.settle()
            await asyncio.sleep(0)
            return answer
        while not self._received:
            self._arrival.clear()
            await self._arrival.wait()
        return self._received.popleft()

    def ask(self) -> None:
        """Ask the server for a reply that comes after everything that it has sent on this connection so far."""
        self._real.send_packed_command([_PACKED_FENCE], check_health=False)

    def receive(self) -> None:
        """Receive everything up to the reply to `ask`."""
        while True:
            message = self._real.read_response(disable_decoding=True)
            if message in (_FENCE, [b"pong", _FENCE]):
                return
            self._deliver(message)

    def _deliver(self, message: Any) -> None:
        self._received.append(message)
        self._arrival.set()
