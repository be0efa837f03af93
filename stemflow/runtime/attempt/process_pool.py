"""The processes in which handlers with `isolation="process"` run: each makes one call at a time and can be killed."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from itertools import count
from typing import Any

from msgspec import Struct

from stemflow.errors import OptionError, StemflowError
from stemflow.model.facts import Failed, Outcome
from stemflow.model.policy import Options
from stemflow.model.records import ErrorInfo
from stemflow.runtime.attempt import process_pipe as pipe
from stemflow.runtime.attempt.execute import Output
from stemflow.runtime.attempt.process_pipe import Job
from stemflow.runtime.attempt.process_tree import MARK, kill_tree
from stemflow.runtime.attempt.task_import import TaskSource
from stemflow.runtime.tasks.context import HandlerServices, TaskContext
from stemflow.runtime.tasks.retry_decision import RetryDecider
from stemflow.runtime.values.binding import Bound

log = logging.getLogger("stemflow.isolate")

EXIT_S = 1.0
"""How long a process that was asked to end may take before it is killed."""
IMPORT_S = 120.0
"""How long a process may take to import the module of a task; no time limit of the task counts meanwhile."""

_CONTEXT = [name for name in inspect.signature(TaskContext).parameters if name not in ("services", "state")]
"""What the process is sent of a context; its services answer through the pipe, and its state is made there."""
_SERVICES = frozenset(name for name in vars(HandlerServices) if not name.startswith("_"))
_OUTPUT = frozenset(("write", "plan"))
_numbers = count(1)


class Processes(Struct, frozen=True, kw_only=True):
    """Settings of the pool for `isolation="process"`: `Stemflow(..., processes=Processes(size=4))`.

    `size`: processes at most; default: one for each CPU. A process is replaced between two tasks after
    `max_tasks_per_child` tasks, or when it takes more than `max_memory_per_child` bytes; None: never.
    Raises OptionError.
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
    """The process of a handler died during the attempt: a lost delivery, not a failure of the handler. `how`: why."""

    how: str


class PoolProcess:
    """A process of the pool, seen from the worker."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket, mark: str) -> None:
        self.process = process
        self.tasks = 0
        self.memory = 0
        self.alive = True
        self._mark = mark
        self._gone = False
        self._killing: asyncio.Future[None] | None = None
        self._room: asyncio.Semaphore | None = None
        """The slots of the pool, while it has one of them or has lent its own."""
        self._lent = False
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self._loaded: asyncio.Future[Failed | Crashed | None] | None = None
        self._outcome: asyncio.Future[Outcome | Crashed] | None = None
        self._serving: tuple[TaskContext, HandlerServices, Output] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._reading = asyncio.ensure_future(self._read(connection))
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    async def spawn(cls) -> PoolProcess:
        """Start a process; await `ready` before its first call, which raises StemflowError if it dies before."""
        ours, theirs = socket.socketpair()
        # Nothing is imported before the search path is this process's; standard output belongs to the program.
        program = f"import sys; sys.path[:] = {sys.path!r}\nfrom stemflow.runtime.attempt.process_main import main\n"
        program += f"main({theirs.fileno()})"
        mark = f"{os.getpid()}.{next(_numbers)}"
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-c", program, stdin=asyncio.subprocess.DEVNULL, stdout=2,
                pass_fds=(theirs.fileno(),), start_new_session=True, env={**os.environ, MARK: mark},
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, mark)

    # -- one call

    async def load(self, source: TaskSource) -> Failed | Crashed | None:
        """Have it import a task, before the time of the attempt starts; returns None when it has."""
        loaded: asyncio.Future[Failed | Crashed | None] = asyncio.get_running_loop().create_future()
        self._loaded = loaded
        self.tasks += 1
        try:
            if not self.alive:
                return Crashed(self._cause())
            self._send(pipe.LOAD, source)
            async with asyncio.timeout(IMPORT_S):
                return await loaded
        except TimeoutError:
            text = f"task {source.name}: its process did not import it within {IMPORT_S:g} s"
            return Failed(ErrorInfo("TaskNotImportable", text, "stemflow.TaskNotImportable"))
        finally:
            if not loaded.done() or loaded.cancelled():
                self.kill()
            self._loaded = None

    async def attempt(
        self, options: Options, context: TaskContext, bound: Bound, output: Output, decide_retry: RetryDecider
    ) -> Outcome | Crashed:
        """Have it call the task that it has loaded; Crashed if it dies. It is killed if this call is cancelled."""
        outcome: asyncio.Future[Outcome | Crashed] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        self._serving = (context, context._services, output)
        given = {name: getattr(context, name) for name in _CONTEXT}
        try:
            if self.alive:
                known = dict(decide_retry.known)
                self._send(pipe.CALL, Job(options, given, list(bound), bound.chunked, known, decide_retry.age_ms()))
            else:
                outcome.set_result(Crashed(self._cause()))
            return await outcome
        finally:
            if not outcome.done() or outcome.cancelled():
                self.kill()
            self._outcome = self._serving = None
            for answering in self._answering:
                answering.cancel()

    def signal_soft_limit(self) -> None:
        """Pass on that the soft time limit has passed."""
        self._send(pipe.SOFT)

    def cancel(self) -> None:
        """Ask the handler to end."""
        self._send(pipe.CANCEL)

    # -- its slot in the pool

    def take_slot(self, room: asyncio.Semaphore) -> None:
        """It was leased from the pool, and has acquired a slot in `room`."""
        self._room = room

    def lend_slot(self) -> None:
        """Its handler waits: another process may run meanwhile."""
        if self._room is not None and not self._lent:
            self._lent = True
            self._room.release()

    async def retake_slot(self) -> None:
        """Wait for a slot, if it has lent its own."""
        if self._room is not None and self._lent:
            await self._room.acquire()
            self._lent = False

    def leave_slot(self) -> None:
        """The call is over: its slot is free."""
        if self._room is not None and not self._lent:
            self._room.release()
        self._room, self._lent = None, False

    # -- its end

    def kill(self) -> None:
        """Kill it, with everything that its handlers have started; finding that takes a thread some milliseconds."""
        self.alive = False
        if not self._gone and self._killing is None:
            loop = asyncio.get_running_loop()
            self._killing = loop.run_in_executor(None, kill_tree, self.process.pid, self._mark)

    async def retire(self) -> None:
        """Ask it to end; if it does not, it is killed, and in any case what its handlers have started."""
        self.alive = False
        self._send(pipe.EXIT)
        with suppress(TimeoutError):
            async with asyncio.timeout(EXIT_S):
                await self.process.wait()
        self.kill()
        await self._reading

    async def gone(self) -> None:
        """Wait for the end of a process that was killed, or died."""
        await self._reading

    def _cause(self) -> str:
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
                self._receive(*pipe.opened(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        # It has ended, or closed its pipe and cannot be used any more; what its handlers have started is killed, too.
        self.kill()
        self._writer.close()
        assert self._killing is not None
        await self._killing
        await self.process.wait()
        self._gone = True
        if not self.ready.done():
            self.ready.set_exception(StemflowError(f"{self._cause()} before it was ready"))
        for waiting in (self._loaded, self._outcome):
            if waiting is not None and not waiting.done():
                waiting.set_result(Crashed(self._cause()))

    def _receive(self, kind: str, *content: Any) -> None:
        if kind == pipe.READY:
            self.ready.set_result(None)
        elif kind == pipe.LOADED and self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(content[0])
        elif kind == pipe.ENDED and self._outcome is not None and not self._outcome.done():
            outcome, self.memory = content
            self._outcome.set_result(outcome)
        elif kind == pipe.ASK and self._serving is not None:
            answering = asyncio.ensure_future(self._answer(content, *self._serving))
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)

    async def _answer(
        self, asked: tuple[Any, ...], context: TaskContext, services: HandlerServices, output: Output
    ) -> None:
        number, what, arguments = asked
        try:
            if what in _OUTPUT:
                value = getattr(output, what)(*arguments)
                value = await value if inspect.isawaitable(value) else value
            elif what in _SERVICES:
                value = await getattr(services, what)(context, *arguments)
            else:
                raise AttributeError(f"task {context.id}: the worker has no service {what!r}")
            self._send(pipe.ANSWER, number, True, value)
        except Exception as error:
            self._send(pipe.ANSWER, number, False, _portable(error))


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same if it cannot be made again in another process."""
    try:
        pipe.opened(pipe.framed((error,))[pipe.HEAD.size :])
    except Exception:
        return StemflowError(f"{type(error).__name__}: {error}")
    return error


class ProcessPool:
    """Keeps up to `settings.size` processes, and starts one when none is idle."""

    def __init__(self, settings: Processes) -> None:
        self.settings = settings
        self.children: set[PoolProcess] = set()
        self._idle: list[PoolProcess] = []
        self._room: asyncio.Semaphore | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def take(self) -> PoolProcess:
        """Wait for a process that is free; return it with `give`. Raises StemflowError if one cannot be started."""
        if self._room is None:
            self._room = asyncio.Semaphore(self.settings.size)
        await self._room.acquire()
        try:
            child = await self._start()
        except BaseException:
            self._room.release()
            raise
        child.take_slot(self._room)
        return child

    async def _start(self) -> PoolProcess:
        """An idle process, or a new one that is ready."""
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            self.children.discard(child)
        child = await PoolProcess.spawn()
        self.children.add(child)
        try:
            await child.ready
        except BaseException:
            child.kill()
            self._leave(child)
            raise
        return child

    def give(self, child: PoolProcess) -> None:
        """Return a process after its call: it is kept, or replaced if it is worn out or has died."""
        child.leave_slot()
        if child.alive and not self._worn(child):
            self._idle.append(child)
        else:
            self._leave(child)

    def _leave(self, child: PoolProcess) -> None:
        self.children.discard(child)
        leaving = asyncio.ensure_future(child.retire() if child.alive else child.gone())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _worn(self, child: PoolProcess) -> bool:
        tasks, memory = self.settings.max_tasks_per_child, self.settings.max_memory_per_child
        if memory is not None and child.memory > memory:
            log.info("process %d is replaced: it takes %d bytes, more than %d", child.process.pid, child.memory, memory)
            return True
        return tasks is not None and child.tasks >= tasks

    async def close(self) -> None:
        """End every process."""
        self._idle.clear()
        await asyncio.gather(*(child.retire() for child in self.children), *self._leaving)
        self.children.clear()
