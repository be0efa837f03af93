"""The proxy for bad networks: what it does to requests and answers, against a server that counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from stemflow.testing.servers.proxy import Answer, Call, CutAfter, DropReply, Proxy, drop_reply, frame_end, words_of

ADD = b"*2\r\n$3\r\nADD\r\n$1\r\n1\r\n"
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Counting:
    """Answers each whole request with how many it has carried out."""

    def __init__(self) -> None:
        self.done = 0
        self.partial = b""
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while chunk := await reader.read(100):
            data += chunk
            while data and (end := frame_end(data)) is not None:
                data = data[end:]
                self.done += 1
                writer.write(b":%d\r\n" % self.done)
        self.partial = data
        self.left.set()
        writer.close()


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
async def proxy(counting: Counting) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(counting.serve, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


Connect = Callable[[], Awaitable[Ends]]


@pytest.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Connect]:
    opened: list[Ends] = []

    async def one() -> Ends:
        place = urlsplit(proxy.url)
        opened.append(await asyncio.open_connection(place.hostname, place.port))
        return opened[-1]

    yield one
    for _, writer in opened:
        writer.close()


async def ask(ends: Ends, size: int = 4) -> bytes:
    """The answer to one request; b"" when the connection was cut."""
    ends[1].write(ADD)
    try:
        return await ends[0].read(size)
    except ConnectionResetError:
        return b""


def test_a_frame_ends_where_all_that_it_holds_has_ended() -> None:
    nested, simple = b"*2\r\n*1\r\n+a\r\n$1\r\nb\r\n", (b":5\r\n", b"-ERR x\r\n")
    for frame in (ADD, nested, *simple, b"$-1\r\n", b"*-1\r\n", b"$0\r\n\r\n"):
        assert frame_end(frame + b"+more\r\n") == len(frame)
        assert all(frame_end(frame[:size]) is None for size in range(len(frame)))
    assert words_of(ADD) == (b"ADD", b"1")


async def test_what_has_no_fate_passes(proxy: Proxy, counting: Counting, connect: Connect) -> None:
    ends = await connect()
    assert [await ask(ends), await ask(ends)] == [b":1\r\n", b":2\r\n"]
    assert (proxy.calls, proxy.struck) == (2, 0)


async def test_a_dropped_answer_is_of_a_request_that_was_carried_out(
    proxy: Proxy, counting: Counting, connect: Connect
) -> None:
    proxy.fate = drop_reply(2)
    ends = await connect()
    assert [await ask(ends), await ask(ends)] == [b":1\r\n", b""]
    assert (counting.done, proxy.struck) == (2, 1)
    assert await ask(await connect()) == b":3\r\n"


@pytest.mark.parametrize("size", [0, 9])
async def test_half_a_request_is_not_carried_out(size: int, proxy: Proxy, counting: Counting, connect: Connect) -> None:
    proxy.fate = lambda call: CutAfter(size)
    assert await ask(await connect()) == b""
    await counting.left.wait()
    assert (counting.done, counting.partial) == (0, ADD[:size])


async def test_a_scripted_error_answers_in_the_servers_place(
    proxy: Proxy, counting: Counting, connect: Connect
) -> None:
    proxy.fate = lambda call: Answer("LOADING soon") if call.name == b"ADD" and call.number == 1 else None
    ends = await connect()
    assert await ask(ends, 15) == b"-LOADING soon\r\n"
    assert await ask(ends) == b":1\r\n"
    assert counting.done == 1


async def test_in_a_black_hole_nothing_moves_until_it_is_released(
    proxy: Proxy, counting: Counting, connect: Connect
) -> None:
    ends = await connect()
    assert await ask(ends) == b":1\r\n"
    proxy.hold()
    asked = asyncio.ensure_future(ask(ends))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not asked.done()
    assert counting.done == 1
    proxy.release()
    assert await asked == b":2\r\n"


async def test_segments_and_delay_change_nothing_of_what_arrives(
    proxy: Proxy, counting: Counting, connect: Connect
) -> None:
    proxy.segment, proxy.delay_s = 1, (0.0, 0.001)
    ends = await connect()
    ends[1].write(ADD)
    assert await ends[0].readexactly(4) == b":1\r\n"


async def test_connections_are_cut_and_half_closed(proxy: Proxy, counting: Counting, connect: Connect) -> None:
    first = await connect()
    assert await ask(first) == b":1\r\n"
    assert proxy.half_close("client") == 1
    assert await first[0].read() == b""
    assert not first[1].is_closing()
    assert proxy.cut() >= 1
    second = await connect()
    assert await ask(second) == b":2\r\n"
    assert proxy.cut() >= 1
    assert await ask(second) == b""


def test_fates_are_distinguished_by_number() -> None:
    fate = drop_reply(3)
    assert [fate(Call(number, (b"GET",))) for number in (2, 3, 4)] == [None, DropReply(), None]
