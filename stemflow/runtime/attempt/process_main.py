"""A process of the pool: takes one call after another from its pipe, and ends when the worker has gone.

The handler runs on the main thread; a second thread reads the pipe, so that a handler at work hears of its soft limit
and of a cancel, and so that a worker that dies takes the process and all that it has started with it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from stemflow.model.facts import Failed, HandedBack, Outcome
from stemflow.model.records import ErrorInfo
from stemflow.model.signature import Signature
from stemflow.runtime.attempt import execute
from stemflow.runtime.attempt import process_pipe as pipe
from stemflow.runtime.attempt.process_pipe import Job
from stemflow.runtime.attempt.soft_limit import soften
from stemflow.runtime.attempt.task_import import find
from stemflow.runtime.payloads.json_data import plain
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.registry import Task, TaskRegistry
from stemflow.runtime.tasks.retry_decision import Judge, describe
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.runtime.values.binding import Bound


class Link:
    """The end of the pipe in the process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._attempt: Attempt | None = None
        self._told: list[str] = []
        self._answers: dict[int, Future[Any]] = {}
        self._asked = 0
        self._lock, self._telling = threading.Lock(), threading.Lock()

    def send(self, *message: Any) -> None:
        data = pipe.framed(message)
        with self._lock:
            self.connection.sendall(data)

    def ask(self, what: str, *arguments: Any) -> Future[Any]:
        """Have the worker answer."""
        with self._lock:
            self._asked += 1
            number = self._asked
        answer: Future[Any] = Future()
        self._answers[number] = answer
        self.send(pipe.ASK, number, what, arguments)
        return answer

    def read(self) -> None:
        """Hear the worker until it has gone; then end, with everything that was started here."""
        source = self.connection.makefile("rb")
        try:
            while len(head := source.read(pipe.HEAD.size)) == pipe.HEAD.size:
                self._hear(*pipe.opened(source.read(*pipe.HEAD.unpack(head))))
        finally:
            leave()

    def _hear(self, kind: str, *said: Any) -> None:
        if kind == pipe.CALL:
            self.serve(None)
            self.jobs.put(said[0])
        elif kind == pipe.BYE:
            self.jobs.put(None)
        elif kind == pipe.ANSWER:
            number, well, value = said
            answer = self._answers.pop(number)
            answer.set_result(value) if well else answer.set_exception(value)
        else:
            with self._telling:
                self._told.append(kind)
                if self._attempt is not None:
                    self._attempt.hear(kind)

    def serve(self, attempt: Attempt | None) -> None:
        """From now on what the worker tells is meant for this attempt, also what came while its task was imported."""
        with self._telling:
            self._attempt = attempt
            if attempt is None:
                self._told.clear()
            else:
                for kind in self._told:
                    attempt.hear(kind)


class Attempt:
    """The call at work. It is its own backstage and output: what it asks of them is answered by the worker."""

    def __init__(self, link: Link, job: Job, task: Task[..., Any], registry: TaskRegistry) -> None:
        self.link, self.job, self.task, self.registry = link, job, task, registry
        self.loop: asyncio.AbstractEventLoop | None = None
        self._early: list[Callable[[], None]] = []
        self._starting = threading.Lock()
        self.running: asyncio.Task[Outcome] | None = None
        self.told_to_end = False
        kind = TaskContext if task.is_async else SyncTaskContext
        self.context = kind(**job.context, backstage=self)
        if isinstance(self.context, SyncTaskContext):
            self.context.ask = finished
        strategy = registry.strategy_of(task, job.options)
        self.judge = Judge(task.name, job.options, self.context.attempt, strategy)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the backstage."""

        async def ask(context: TaskContext, *arguments: Any) -> Any:
            answer = self.link.ask(name, *arguments)
            return await asyncio.wrap_future(answer) if self.task.is_async else answer.result()

        return ask

    def write(self, value: Any, what: str) -> bytes:
        return bytes(self.link.ask("write", plain(value, what), what).result())

    async def plan(self, signature: Signature[Any, Any]) -> Any:
        return self.link.ask("plan", signature).result()

    def work(self) -> Outcome:
        bound = Bound(self.job.calls)
        bound.chunked = self.job.chunked
        what = execute.attempt(self.task, self.context, bound, here, self, self.judge)
        chain = self.registry.middleware
        if self.task.is_async or chain.on_execute or chain.on_error:
            return asyncio.run(self._on_loop(what))
        outcome: Outcome = finished(what)
        return outcome

    async def _on_loop(self, what: Coroutine[Any, Any, Outcome]) -> Outcome:
        loop = asyncio.get_running_loop()
        self.running = loop.create_task(what)
        with self._starting:
            self.loop = loop
            for act in self._early:
                loop.call_soon(act)
        try:
            return await self.running
        except asyncio.CancelledError as cancelled:
            return HandedBack() if self.told_to_end else self.judge(cancelled)

    def hear(self, kind: str) -> None:
        """The soft limit has passed, or the handler is told to end; called on the thread that reads."""
        act = self._end if kind == pipe.CANCEL else self._soften
        if not self.task.is_async:
            return act()
        with self._starting:
            if self.loop is None:
                return self._early.append(act)
            with suppress(RuntimeError):  # the handler has just ended, and its loop with it
                self.loop.call_soon_threadsafe(act)

    def _soften(self) -> None:
        soften(self.context)

    def _end(self) -> None:
        self.told_to_end = True
        self.context.cancelled.set()
        if self.running is not None and self.task.is_async:
            self.running.cancel()


async def here(work: Callable[[], Any]) -> Any:
    """In the place of a thread: the process is the handler's own."""
    return work()


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The value of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("expected a coroutine that waits for nothing")


def memory() -> int:
    """Bytes of memory that this process takes; where the system does not tell, the most that it ever took."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1_024)


def leave() -> None:
    """End this process and all that it has started; it leads a process group of its own."""
    os.killpg(0, signal.SIGKILL)


def main(descriptor: int) -> None:
    """Serve the pipe at `descriptor` until the worker says goodbye, or has gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # The worker decides when this process ends. A handler, unlike SIG_IGN, is not passed on to programs started.
        signal.signal(number, lambda *_: None)
    faulthandler.enable()
    os.set_inheritable(descriptor, False)
    link = Link(socket.socket(fileno=descriptor))
    threading.Thread(target=link.read, name="stemflow-pipe", daemon=True).start()
    link.send(pipe.READY)
    while (job := link.jobs.get()) is not None:
        link.send(pipe.ENDED, _serve(link, job), memory())


def _serve(link: Link, job: Job) -> Outcome:
    try:
        task, registry = find(job.place)
    except (Exception, SystemExit) as error:
        text = f"task {job.place.name}: its process cannot import it: {type(error).__name__}: {error}"
        trace = describe(error).traceback
        return Failed(ErrorInfo("TaskNotImportable", text, "stemflow.TaskNotImportable", (), trace), "final")
    attempt = Attempt(link, job, task, registry)
    link.serve(attempt)
    return attempt.work()
