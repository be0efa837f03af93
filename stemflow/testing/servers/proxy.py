"""A TCP proxy on the loopback that understands RESP, to simulate a bad network between an engine and its server.

`fate` is called for each request; settings of the proxy apply to all connections. Only replies to requests are counted
and dropped, never notifications of a subscribed connection.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal

from msgspec import Struct

_READ: Final = 1 << 16
_HOST: Final = "127.0.0.1"


class Call(Struct, frozen=True):
    """One request: its number on this proxy, from 1, and its words."""

    number: int
    words: tuple[bytes, ...]

    @property
    def name(self) -> bytes:
        return self.words[0].upper()


class DropReply(Struct, frozen=True):
    """The server executes the request, its reply is dropped, and the connection is cut."""


class CutAfter(Struct, frozen=True):
    """The server gets the first `size` bytes of the request, then the connection is cut."""

    size: int


class Answer(Struct, frozen=True):
    """The server never sees the request; its caller gets `error`, for example `READONLY You can't write against a
    replica.`"""

    error: str


Fate = DropReply | CutAfter | Answer | None
"""None: the request passes."""


def drop_reply(number: int) -> Callable[[Call], Fate]:
    """A fate that drops one reply: that to call `number`."""
    return lambda call: DropReply() if call.number == number else None


def frame_end(data: bytes | bytearray, at: int = 0) -> int | None:
    """The end of the RESP2 frame that begins at `at`, or None while it is incomplete."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, end = data[at : at + 1], line + 2
    if kind == b"$":
        size = int(data[at + 1 : line])
        end += size + 2 if size >= 0 else 0
        return end if end <= len(data) else None
    if kind == b"*":
        for _ in range(int(data[at + 1 : line])):
            found = frame_end(data, end)
            if found is None:
                return None
            end = found
    return end


def words_of(frame: bytes) -> tuple[bytes, ...]:
    """The words of a request, an array of bulk strings."""
    words, at = [], frame.index(b"\r\n") + 2
    while at < len(frame):
        line, end = frame.index(b"\r\n", at), frame_end(frame, at)
        assert end is not None
        words.append(frame[line + 2 : end - 2])
        at = end
    return tuple(words)


class _Frames:
    """Splits a stream into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._data += data
        found, at = [], 0
        while at < len(self._data) and (end := frame_end(self._data, at)) is not None:
            found.append(bytes(self._data[at:end]))
            at = end
        del self._data[:at]
        return found


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.proxy, self.near, self.far = proxy, near, far
        self.awaited: deque[Fate] = deque()
        self.subscribed = False

    def cut(self) -> None:
        for writer in (self.near, self.far):
            writer.transport.abort()

    async def requests(self, reader: asyncio.StreamReader) -> None:
        frames = _Frames()
        while data := await self.proxy.read(reader):
            for frame in frames.feed(data):
                await self._request(frame)
        self.far.write_eof()

    async def _request(self, frame: bytes) -> None:
        words = words_of(frame)
        self.subscribed = self.subscribed or words[0].upper() == b"SUBSCRIBE"
        fate = None if self.subscribed else self.proxy.judge(words)
        if isinstance(fate, Answer):
            return await self.proxy.write(self.near, b"-" + fate.error.encode() + b"\r\n")
        if isinstance(fate, CutAfter):
            # Closed, not aborted: what was written must arrive, and then nothing.
            await self.proxy.write(self.far, frame[: fate.size])
            self.far.close()
            self.near.transport.abort()
            return
        if not self.subscribed:
            self.awaited.append(fate)
        await self.proxy.write(self.far, frame)

    async def replies(self, reader: asyncio.StreamReader) -> None:
        frames = _Frames()
        while data := await self.proxy.read(reader):
            for frame in frames.feed(data):
                if self.awaited and isinstance(self.awaited.popleft(), DropReply):
                    return self.cut()
                await self.proxy.write(self.near, frame)
        self.near.write_eof()


class Proxy:
    """`async with Proxy(server.port) as proxy:`; engines open `proxy.url`.

    Args:
        fate: Called for each request; decides what happens to it.
        delay_s: Minimum and maximum delay of each chunk, in seconds.
        segment: The number of bytes written at a time; None: all.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.server_port = port
        self.fate: Callable[[Call], Fate] = lambda call: None
        self.delay_s = (0.0, 0.0)
        self.segment: int | None = None
        self.calls = 0
        """Requests seen so far."""
        self.struck = 0
        """Requests that were affected by a fault."""
        self._rng = random.Random(seed)
        self._open = asyncio.Event()
        self._open.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._serve, _HOST, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        self._listening.close()
        # They end with their connections: asyncio's callback complains about a cancelled task.
        self.delay_s = (0.0, 0.0)
        self.release()
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.1)

    @property
    def url(self) -> str:
        assert self._listening is not None
        return f"redis://{_HOST}:{self._listening.sockets[0].getsockname()[1]}/0"

    @property
    def connections(self) -> int:
        return len(self._links)

    # -- faults of the whole network

    def hold(self) -> None:
        """Become a black hole: nothing is read or written any more, without any notice, on new connections too."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def cut(self) -> int:
        """Reset every connection; returns how many there were."""
        links = tuple(self._links)
        for link in links:
            link.cut()
        return len(links)

    def half_close(self, towards: Literal["client", "server"]) -> int:
        """Close one direction of every connection; the other stays open."""
        links = tuple(self._links)
        for link in links:
            writer = link.near if towards == "client" else link.far
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()
        return len(links)

    # -- what links ask

    def judge(self, words: tuple[bytes, ...]) -> Fate:
        self.calls += 1
        fate = self.fate(Call(self.calls, words))
        self.struck += fate is not None
        return fate

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        await self._open.wait()
        data = await reader.read(_READ)
        await self._open.wait()
        if any(self.delay_s):
            await asyncio.sleep(self._rng.uniform(*self.delay_s))
        return data

    async def write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = self.segment or len(data) or 1
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            if self.segment is not None:
                await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far = await asyncio.open_connection(_HOST, self.server_port)
        except OSError:
            near.transport.abort()
            return
        link = _Link(self, near, far)
        self._links.add(link)
        ways = [asyncio.create_task(link.requests(reader)), asyncio.create_task(link.replies(far_reader))]
        try:
            await asyncio.wait(ways, return_when=asyncio.ALL_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._links.discard(link)
            link.cut()
