"""When an engine may be used: between opening and closing, on the event loop that opened it."""

from __future__ import annotations

import asyncio
from typing import Literal

from stemflow.errors import StemflowError


class NotOpen(StemflowError):
    """The engine was used before it was opened, after it was closed, or on another event loop."""


class Lifecycle:
    """The state of one engine: new, open on one event loop, closed; a closed engine may be opened again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._state: Literal["new", "open", "closed"] = "new"
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> bool:
        """Note that the engine opens on the running loop. Returns whether it was open before.

        Raises StemflowError if it is open.
        """
        if self._state == "open":
            raise StemflowError(
                f"Stemflow({self._url!r}): expected an engine that is not open, got one that is; use the one that "
                "`async with` gave, or make another Stemflow"
            )
        again = self._state == "closed"
        self._state, self._loop = "open", asyncio.get_running_loop()
        return again

    def close(self) -> None:
        """Note that the engine is closed, or could not be opened."""
        self._state, self._loop = "closed", None

    def require(self) -> None:
        """Raise NotOpen unless the engine is open on the running event loop."""
        if self._loop is asyncio.get_running_loop():
            return
        if self._state == "new":
            raise NotOpen(
                f"Stemflow({self._url!r}): expected an open engine, got one that was never opened; write "
                "`async with Stemflow(...) as app:` around this call"
            )
        if self._state == "closed":
            raise NotOpen(
                f"Stemflow({self._url!r}): expected an open engine, got one that is closed; open it again with "
                "`async with app:`"
            )
        raise NotOpen(
            f"Stemflow({self._url!r}): expected the event loop on which it was opened, got another one; use "
            "asyncio.run_coroutine_threadsafe(..., loop) from other threads, or open a Stemflow of its own there"
        )
