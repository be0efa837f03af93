"""A small HTTP server that answers GET /metrics and GET /healthz."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from stemflow.errors import StemflowError
from stemflow.runtime.client.metrics import TYPE

log = logging.getLogger("stemflow.metrics")

PATIENCE_S: Final = 10.0
"""How long a client may take to send its request."""
MOST_BYTES: Final = 16_384
"""The longest request."""


async def serve_metrics(text: Callable[[], Awaitable[str]], host: str, port: int) -> asyncio.Server:
    """Answer on this address until the server is closed; `text` gives the metrics. Raises OSError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                request = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _answer(request, text))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=MOST_BYTES)


async def _answer(request: bytes, text: Callable[[], Awaitable[str]]) -> bytes:
    method, _, rest = request.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered\n", method)
    if path == "/healthz":
        return _response(HTTPStatus.OK, "ok\n", method)
    if path != "/metrics":
        return _response(HTTPStatus.NOT_FOUND, "expected /metrics or /healthz\n", method)
    try:
        return _response(HTTPStatus.OK, await text(), method)
    except StemflowError as error:
        log.warning("%s; /metrics is answered with an error", error)
        return _response(HTTPStatus.SERVICE_UNAVAILABLE, "the store cannot be read\n", method)


def _response(status: HTTPStatus, text: str, method: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
