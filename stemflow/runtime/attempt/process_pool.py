"""Processes for handlers with `isolation="process"`: each takes one call at a time and can be killed."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from msgspec import Struct

from stemflow.errors import OptionError, StemflowError
from stemflow.model.facts import Outcome
from stemflow.model.policy import Options
from stemflow.runtime.attempt import process_pipe as pipe
from stemflow.runtime.attempt.execute import Output
from stemflow.runtime.attempt.process_pipe import Job
from stemflow.runtime.attempt.task_import import TaskSource
from stemflow.runtime.tasks.context import Backstage, TaskContext
from stemflow.runtime.values.binding import Bound

log = logging.getLogger("stemflow.isolate")

BYE_S = 1.0
"""How long a process that is sent away may take to end."""

_CONTEXT = [name for name in inspect.signature(TaskContext).parameters if name != "backstage"]
_BACKSTAGE = frozenset(name for name in vars(Backstage) if not name.startswith("_"))
_OUTPUT = frozenset(("write", "plan"))


class Processes(Struct, frozen=True, kw_only=True):
    """The pool for `isolation="process"`: how many processes at most, and when one is replaced between two tasks.

    `max_tasks_per_child`: after so many tasks. `max_memory_per_child`: when it takes more than so many bytes.
    """

    size: int = os.cpu_count() or 1
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise OptionError(f"processes: {name}: expected a whole number from 1, got {value!r}")


class Crashed(Struct, frozen=True):
    """The process of a handler died under it: a lost delivery, not a failure of the handler."""

    how: str


class Child:
    """A process of the pool, seen from the worker."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self.process = process
        self.tasks = 0
        self.memory = 0
        self.alive = True
        self._gone = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcome: asyncio.Future[Outcome | Crashed] | None = None
        self._serving: tuple[TaskContext, Backstage, Output] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._reading = asyncio.ensure_future(self._read(connection))
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    async def spawn(cls) -> Child:
        """Start a process, and wait until it can take a call. Raises StemflowError when it dies before that."""
        ours, theirs = socket.socketpair()
        # Nothing is imported before the search path is this process's; standard output belongs to the program.
        program = f"import sys; sys.path[:] = {sys.path!r}\nfrom stemflow.runtime.attempt.process_main import main\n"
        program += f"main({theirs.fileno()})"
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-c", program, stdin=asyncio.subprocess.DEVNULL, stdout=2,
                pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        child = cls(process, ours)
        try:
            await child.ready
        except BaseException:
            child.kill()
            raise
        return child

    # -- one call

    async def attempt(
        self, place: TaskSource, options: Options, context: TaskContext, bound: Bound, output: Output
    ) -> Outcome | Crashed:
        """Have it make the call; Crashed when it dies meanwhile. A caller that does not wait for it has it killed."""
        outcome: asyncio.Future[Outcome | Crashed] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        self._serving = (context, context._backstage, output)
        context.strike = self.soften
        self.tasks += 1
        given = {name: getattr(context, name) for name in _CONTEXT}
        try:
            if self.alive:
                self._send(pipe.CALL, Job(place, options, given, list(bound), bound.chunked))
            else:
                outcome.set_result(Crashed(self._how()))
            return await outcome
        finally:
            if not outcome.done() or outcome.cancelled():
                self.kill()
            self._outcome = self._serving = context.strike = None
            for answering in self._answering:
                answering.cancel()

    def soften(self) -> None:
        self._send(pipe.SOFT)

    def cancel(self) -> None:
        """Tell the handler to end."""
        self._send(pipe.CANCEL)

    # -- its end

    def kill(self) -> None:
        """End it now, with everything that it has started."""
        self.alive = False
        if not self._gone:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def retire(self) -> None:
        """Send it away; what it does not end by itself, and what it has started, is killed."""
        self.alive = False
        self._send(pipe.BYE)
        with suppress(TimeoutError):
            async with asyncio.timeout(BYE_S):
                await self.process.wait()
        self.kill()
        await self._reading

    async def gone(self) -> None:
        """Wait for the end of one that was killed, or died."""
        await self._reading

    def _how(self) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    # -- the pipe

    def _send(self, *message: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pipe.framed(message))

    async def _read(self, connection: socket.socket) -> None:
        reader, self._writer = await asyncio.open_connection(sock=connection)
        try:
            while True:
                (size,) = pipe.HEAD.unpack(await reader.readexactly(pipe.HEAD.size))
                self._hear(*pipe.opened(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        # It has ended, or closed its pipe and would never be asked again; what it has started goes with it.
        self.kill()
        self._writer.close()
        await self.process.wait()
        self._gone = True
        if not self.ready.done():
            self.ready.set_exception(StemflowError(f"{self._how()} before it was ready"))
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(Crashed(self._how()))

    def _hear(self, kind: str, *said: Any) -> None:
        if kind == pipe.READY:
            self.ready.set_result(None)
        elif kind == pipe.ENDED and self._outcome is not None and not self._outcome.done():
            outcome, self.memory = said
            self._outcome.set_result(outcome)
        elif kind == pipe.ASK and self._serving is not None:
            answering = asyncio.ensure_future(self._answer(said, *self._serving))
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)

    async def _answer(
        self, asked: tuple[Any, ...], context: TaskContext, backstage: Backstage, output: Output
    ) -> None:
        number, what, arguments = asked
        try:
            if what in _OUTPUT:
                value = getattr(output, what)(*arguments)
                value = await value if inspect.isawaitable(value) else value
            elif what in _BACKSTAGE:
                value = await getattr(backstage, what)(context, *arguments)
            else:
                raise AttributeError(f"task {context.id}: there is no {what!r} to ask the worker for")
            self._send(pipe.ANSWER, number, True, value)
        except Exception as error:
            try:
                self._send(pipe.ANSWER, number, False, error)
            except Exception:
                self._send(pipe.ANSWER, number, False, StemflowError(f"{type(error).__name__}: {error}"))


class Pool:
    """Keeps up to `settings.size` processes; one is started when none is idle."""

    def __init__(self, settings: Processes) -> None:
        self.settings = settings
        self.children: set[Child] = set()
        self._idle: list[Child] = []
        self._room: asyncio.Semaphore | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def take(self) -> Child:
        """A process that is free; waits for one. Give it back with `give`. Raises StemflowError."""
        if self._room is None:
            self._room = asyncio.Semaphore(self.settings.size)
        await self._room.acquire()
        try:
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child
                self.children.discard(child)
            child = await Child.spawn()
            self.children.add(child)
            return child
        except BaseException:
            self._room.release()
            raise

    def give(self, child: Child) -> None:
        """It has no call any more: keep it, or replace it."""
        assert self._room is not None
        self._room.release()
        if child.alive and not self._worn(child):
            self._idle.append(child)
            return
        self.children.discard(child)
        leaving = asyncio.ensure_future(child.retire() if child.alive else child.gone())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _worn(self, child: Child) -> bool:
        tasks, memory = self.settings.max_tasks_per_child, self.settings.max_memory_per_child
        if memory is not None and child.memory > memory:
            log.info("process %d is replaced: it takes %d bytes, more than %d", child.process.pid, child.memory, memory)
            return True
        return tasks is not None and child.tasks >= tasks

    async def close(self) -> None:
        """Send every process away."""
        self._idle.clear()
        await asyncio.gather(*(child.retire() for child in self.children), *self._leaving)
        self.children.clear()
