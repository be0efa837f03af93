"""Connections and calls. redis-py connects and parses; when to try again is decided here."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import TimeoutError as Slow

from stemflow.store.base import BackpressureError, StateLost, StoreError, StoreUnavailable
from stemflow.store.redis.connections import Connections
from stemflow.store.redis.loss_detection import Ask, LossDetector, PassiveObserver
from stemflow.store.redis.script_errors import unwrapped
from stemflow.store.redis.scripts import script
from stemflow.store.redis.server import parsed

T = TypeVar("T")

ANSWER_S: Final = 5.0
"""How long one call may take before its connection is given up."""
PATIENCE_S: Final = 5.0
"""How long a call is retried before it fails; after an answer that came too late there is one try more."""
CONNECTIONS: Final = 16
"""Calls that may be under way at once in one process."""
PAUSES_S: Final = (0.02, 1.0)
"""The first pause between tries, and the longest; each is drawn between half of it and all of it."""

AGAIN: Final = (BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
WRONG_SERVER: Final = (MasterDownError, MovedError, ReadOnlyError)
"""Errors after which a connection is of no more use: it leads to a server that no longer has the partition."""
AGAIN_WORDS: Final = ("BUSY", "NOREPLICAS", "MISCONF", "UNKILLABLE")
"""Errors of a server that may be gone in a moment: those that redis-py has a class for, and those it has none for."""


class Client:
    """Calls to one server. Every call may be sent twice: each is safe to repeat.

    `loss_detector` asks on every new connection first, before anything else is sent on it.
    """

    def __init__(self, shown: str, connections: Connections, loss_detector: LossDetector | PassiveObserver) -> None:
        self.shown = shown
        self._connections, self._loss_detector = connections, loss_detector
        self._free: list[AbstractConnection] = []
        self._changes = 0
        self._jitter = random.Random()
        self._closed = False
        self._pid = os.getpid()
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def run(
        self, name: str, prefix: bytes, *arguments: bytes, epoch: int | None = None, patience_s: float = PATIENCE_S
    ) -> Any:
        """Call a script on the partition `prefix`; one the server has forgotten is given to it again.

        What rests on data that was read in `epoch` is not sent once some of that is lost; then StateLost is raised.
        """
        found = script(name, self._loss_detector.version)
        words = b"1", prefix, *arguments
        try:
            return await self.call(b"EVALSHA", found.sha, *words, epoch=epoch, patience_s=patience_s)
        except NoScriptError:
            return await self.call(b"EVAL", found.text, *words, epoch=epoch, patience_s=patience_s)

    async def call(self, *command: Any, epoch: int | None = None, patience_s: float = PATIENCE_S) -> Any:
        """One command, tried again for a while when the server cannot be reached. Raises StoreError."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + patience_s, PAUSES_S[0]
        spare = patience_s > 0
        while True:
            try:
                return await self._once(command, epoch)
            except NoScriptError:
                raise
            except (RedisError, OSError) as error:
                problem, late = self.problem(error), isinstance(error, Slow)
                elsewhere = self._connections.on_error(self._loss_detector.prefix, error)
            if elsewhere and loop.time() < until:
                await self.let_go()
                await asyncio.sleep(0)
                continue
            if not isinstance(problem, StoreUnavailable) or self._closed:
                raise problem
            if loop.time() + pause > until:
                if not (late and spare):
                    raise problem
                # One missing answer uses up the whole time, even if it was this machine that was suspended.
                spare = False
            await asyncio.sleep(self._jitter.uniform(pause / 2, pause))
            pause = min(pause * 2, PAUSES_S[1])

    async def _once(self, command: Sequence[Any], epoch: int | None) -> Any:
        if os.getpid() != self._pid:
            # A child that was forked would write into the conversations of its parent.
            raise StoreError(
                f"{self.shown}: this store was opened in another process ({self._pid}) and not in this one, which was "
                "forked from it; open an engine of its own here"
            )
        async with self._slots:
            return await self._send(command, epoch)

    async def _send(self, command: Sequence[Any], epoch: int | None) -> Any:
        if self._connections.doubt and self._free:
            await self._connections.ask()
        if self._connections.changes != self._changes:
            self._changes = self._connections.changes
            await self.let_go()
        free = self._free
        connection = free.pop() if free else self._connections.connection(self._loss_detector.prefix)
        try:
            if not connection.is_connected:
                await self._connect(connection)
            if epoch is not None and not self._loss_detector.holds(epoch):
                raise self._loss_detector.loss()
            answer = await answered(connection, *command)
        except StateLost:
            await self._give_back(connection, free)
            raise
        except ResponseError as error:
            if isinstance(error, WRONG_SERVER):
                await close(connection)
            else:
                await self._give_back(connection, free)
            raise
        except BaseException as error:
            # Whatever was under way, cancellation too: an answer may still come, and would be taken for the next one.
            abort(connection)
            await close(connection)
            if isinstance(error, Broken | Slow | OSError):
                # So were those that lie idle; each would cost a try.
                await self.let_go()
            raise
        await self._give_back(connection, free)
        return answer

    async def _give_back(self, connection: AbstractConnection, free: list[AbstractConnection]) -> None:
        """Keep a connection for the next call, unless those that were `free` when it was taken were let go since."""
        if free is self._free:
            free.append(connection)
        else:
            await close(connection)

    async def info(self) -> dict[str, str]:
        """What the server says of itself, by INFO."""
        return parsed(bytes(await self.call(b"INFO")))

    async def _connect(self, connection: AbstractConnection) -> None:
        ask: Ask = partial(answered, connection)
        try:
            await in_time(connection, connection.connect())  # type: ignore[no-untyped-call]
            await self._loss_detector.identify(ask)
        except ResponseError:
            # It answers, but cannot be used yet: the next try is over a new one.
            await close(connection)
            raise

    def problem(self, error: Exception) -> StoreError:
        """What an error of redis-py or of the server means for the caller."""
        words = str(error) or type(error).__name__
        if isinstance(error, OutOfMemoryError) or words.startswith("OOM "):
            return BackpressureError(
                f"{self.shown}: the server is short of memory and takes no new work; let workers drain it, "
                "or raise maxmemory"
            )
        if isinstance(error, AGAIN) or words.partition(" ")[0] in AGAIN_WORDS:
            return StoreUnavailable(f"{self.shown}: the server is not ready ({words})")
        if isinstance(error, AskError | MovedError):
            return StoreUnavailable(f"{self.shown}: the slot of this partition is moving to another node ({words})")
        if isinstance(error, AuthenticationError):
            return StoreError(f"{self.shown}: the server refuses the login ({words}); check user and password")
        if "CERTIFICATE_VERIFY_FAILED" in words:
            return StoreError(
                f"{self.shown}: expected a certificate that is trusted here ({words}); "
                "name who signed it with ?ssl_ca_certs=FILE"
            )
        if isinstance(error, Broken | Slow | OSError):
            return StoreUnavailable(f"{self.shown}: the server cannot be reached ({words})")
        return StoreError(f"{self.shown}: the server said: {words}")

    async def close(self) -> None:
        self._closed = True
        await self.let_go()

    async def reconnect(self) -> None:
        """Ask the server over a new connection what data it has; see `LossDetector.identify`."""
        await self.let_go()
        await self.call(b"PING")

    async def let_go(self) -> None:
        """Close the connections that nobody uses."""
        free, self._free = self._free, []
        for connection in free:
            await close(connection)


async def in_time(connection: AbstractConnection, work: Awaitable[T]) -> T:
    """What `work` gives; when it takes longer than a call may take, its connection is cut, and `Slow` raised."""
    cut = False

    def give_up() -> None:
        nonlocal cut
        cut = True
        abort(connection)

    alarm = asyncio.get_running_loop().call_later(ANSWER_S, give_up)
    try:
        return await work
    except Broken as error:
        if cut:
            raise Slow(f"no answer within {ANSWER_S:g} s") from error
        raise
    finally:
        alarm.cancel()


async def answered(connection: AbstractConnection, *command: Any) -> Any:
    """The answer to one command."""

    async def answer() -> Any:
        await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        try:
            return await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            raise unwrapped(error) from None

    return await in_time(connection, answer())


def abort(connection: AbstractConnection) -> None:
    """Cut a connection at once; a reader gets an error."""
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        writer.transport.abort()


async def close(connection: AbstractConnection) -> None:
    await connection.disconnect(nowait=True)
