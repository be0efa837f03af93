"""The main program of a process of the pool: it makes one call after another, and ends when the worker has gone.

The handler runs on the main thread. A second thread reads the pipe, so that a running handler gets its soft limit and
its cancellation, and so that the death of the worker ends the process and everything that its handlers have started.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import os
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from stemflow.model.facts import Failed, HandedBack, Outcome
from stemflow.model.records import ErrorInfo
from stemflow.model.signature import Signature
from stemflow.runtime.attempt import process_pipe as pipe
from stemflow.runtime.attempt.execute import execute
from stemflow.runtime.attempt.process_pipe import Job
from stemflow.runtime.attempt.process_tree import MARK, kill_tree
from stemflow.runtime.attempt.soft_limit import SoftLimit
from stemflow.runtime.attempt.task_import import TaskSource, find
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.payloads.json_data import plain
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.retry_decision import RetryDecider, describe
from stemflow.runtime.tasks.sync_context import SyncTaskContext
from stemflow.runtime.tasks.task import Task
from stemflow.runtime.values.binding import Bound, Chunk

_clock = SystemClock()


class Link:
    """The end of the pipe in the process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.jobs: queue.SimpleQueue[TaskSource | Job | None] = queue.SimpleQueue()
        self._attempt: Attempt | None = None
        self._signals: list[str] = []
        self._answers: dict[int, Future[Any]] = {}
        self._asked = 0
        self._sending, self._signalling = threading.Lock(), threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message to the worker; from any thread."""
        data = pipe.framed(message)
        with self._sending:
            self.connection.sendall(data)

    def ask(self, what: str, *arguments: Any) -> Future[Any]:
        """Have the worker call a method of its services or of the output; returns the future of its answer."""
        with self._sending:
            self._asked += 1
            number = self._asked
        answer: Future[Any] = Future()
        self._answers[number] = answer
        self.send(pipe.ASK, number, what, arguments)
        return answer

    def read(self) -> None:
        """Read messages until the worker has gone; then kill this process and everything that was started here."""
        source = self.connection.makefile("rb")
        try:
            while len(head := source.read(pipe.HEAD.size)) == pipe.HEAD.size:
                self._receive(*pipe.opened(source.read(*pipe.HEAD.unpack(head))))
        finally:
            kill_tree(os.getpid(), os.environ.get(MARK, ""))

    def _receive(self, kind: str, *content: Any) -> None:
        if kind == pipe.LOAD:
            self.serve(None)
            self.jobs.put(content[0])
        elif kind == pipe.CALL:
            self.jobs.put(content[0])
        elif kind == pipe.EXIT:
            self.jobs.put(None)
        elif kind == pipe.ANSWER:
            number, success, value = content
            answer = self._answers.pop(number)
            answer.set_result(value) if success else answer.set_exception(value)
        else:
            with self._signalling:
                self._signals.append(kind)
                if self._attempt is not None:
                    self._attempt.signal(kind)

    def serve(self, attempt: Attempt | None) -> None:
        """Pass signals to this attempt from now on, with those that have come since its task was loaded."""
        with self._signalling:
            self._attempt = attempt
            if attempt is None:
                self._signals.clear()
            else:
                for kind in self._signals:
                    attempt.signal(kind)


class Attempt:
    """The call that is running: services of the handler and encoder of the outcome, both answered by the worker."""

    def __init__(self, link: Link, job: Job, task: Task[..., Any], registry: TaskRegistry, state: Any) -> None:
        self.link, self.job, self.task, self.registry = link, job, task, registry
        self.loop: asyncio.AbstractEventLoop | None = None
        self._early: list[Callable[[], None]] = []
        self._starting = threading.Lock()
        self.running: asyncio.Task[Outcome] | None = None
        self.cancelled = False
        kind = TaskContext if task.is_async else partial(SyncTaskContext, ask=result_of)
        self.context = kind(**job.context, services=self, state=state)
        self.soft_limit = SoftLimit(self.context, job.options.soft_raises)
        strategy = registry.strategy_of(task, job.options)
        age_ms = partial(_age_ms, job, _clock.monotonic_ms())
        self.decide_retry = RetryDecider(
            task.name, job.options, self.context.attempt, strategy, job.known, age_ms
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the services."""

        async def ask(context: TaskContext, *arguments: Any) -> Any:
            answer = self.link.ask(name, *arguments)
            return await asyncio.wrap_future(answer) if self.task.is_async else answer.result()

        return ask

    def write(self, value: Any, what: str) -> bytes:
        """Have the worker encode a value."""
        return bytes(self.link.ask("write", plain(value, what), what).result())

    async def plan(self, signature: Signature[Any, Any]) -> Any:
        """Have the worker make the plan of a signature."""
        return self.link.ask("plan", signature).result()

    def run(self) -> Outcome:
        """Make the call, on an event loop of its own where the handler or a middleware needs one."""
        bound = (Chunk if self.job.chunked else Bound)(self.job.calls)
        called = execute(self.task, self.context, bound, in_this_thread, self, self.decide_retry, self.soft_limit)
        chain = self.registry.middleware
        if self.task.is_async or chain.on_execute or chain.on_error:
            return asyncio.run(self._on_loop(called))
        outcome: Outcome = result_of(called)
        return outcome

    async def _on_loop(self, called: Coroutine[Any, Any, Outcome]) -> Outcome:
        loop = asyncio.get_running_loop()
        self.running = loop.create_task(called)
        with self._starting:
            self.loop = loop
            for act in self._early:
                loop.call_soon(act)
        try:
            return await self.running
        except asyncio.CancelledError as cancelled:
            return HandedBack() if self.cancelled else self.decide_retry(cancelled)

    def signal(self, kind: str) -> None:
        """Pass a soft limit or a cancellation to the handler; called in the thread that reads."""
        act = self._cancel if kind == pipe.CANCEL else self.soft_limit.expire
        if not self.task.is_async:
            return act()
        with self._starting:
            if self.loop is None:
                return self._early.append(act)
            with suppress(RuntimeError):  # the handler has just ended, and its loop with it
                self.loop.call_soon_threadsafe(act)

    def _cancel(self) -> None:
        self.cancelled = True
        self.context.cancelled.set()
        if self.running is not None and self.task.is_async:
            self.running.cancel()


def _age_ms(job: Job, called_at_ms: int) -> int:
    """For how long the task of a call has been known now."""
    return job.age_ms + _clock.monotonic_ms() - called_at_ms


async def in_this_thread(work: Callable[[], Any]) -> Any:
    """Call a plain function here, since the process is its own; an awaitable that it returns gets a loop if needed."""
    value, error = work()
    if inspect.isawaitable(value) and asyncio._get_running_loop() is None:
        return asyncio.run(_awaited(value)), error
    return value, error


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("expected a coroutine that never waits")


def memory() -> int:
    """The resident memory of this process in bytes; its peak on systems without /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1_024)


def main(descriptor: int) -> None:
    """Serve the pipe with this file descriptor until the worker says so, or has gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # The worker decides when this process ends. A handler, unlike SIG_IGN, is not inherited by started programs.
        signal.signal(number, lambda *_: None)
    faulthandler.enable()
    os.set_inheritable(descriptor, False)
    link = Link(socket.socket(fileno=descriptor))
    threading.Thread(target=link.read, name="stemflow-pipe", daemon=True).start()
    link.send(pipe.READY)
    loaded: tuple[Task[..., Any], TaskRegistry] | None = None
    with ProcessStates() as states:
        while (job := link.jobs.get()) is not None:
            if isinstance(job, TaskSource):
                loaded = _load(link, job, states)
            else:
                assert loaded is not None
                attempt = Attempt(link, job, *loaded, states.of(loaded[1]))
                link.serve(attempt)
                with environment(attempt.context.env):
                    outcome = attempt.run()
                link.send(pipe.ENDED, outcome, memory())


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for one call: the process runs no other task meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class ProcessStates(ExitStack):
    """What the lifespans of the registries have yielded in this process; each is entered before its first task."""

    def __init__(self) -> None:
        super().__init__()
        self._entered: list[tuple[TaskRegistry, Any]] = []

    def of(self, registry: TaskRegistry) -> Any:
        """The state of the tasks of a registry. Raises what its lifespan raises."""
        if not registry.lifespans.in_processes:
            return None
        for known, state in self._entered:
            if known is registry:
                return state
        state = self.enter_context(registry.lifespans.of_process())
        self._entered.append((registry, state))
        return state


def _load(link: Link, source: TaskSource, states: ProcessStates) -> tuple[Task[..., Any], TaskRegistry] | None:
    try:
        loaded = find(source)
        states.of(loaded[1])
    except (Exception, SystemExit) as error:
        text = f"task {source.name}: its process cannot load it: {type(error).__name__}: {error}"
        info = ErrorInfo("TaskNotImportable", text, "stemflow.TaskNotImportable", (), describe(error).traceback)
        link.send(pipe.LOADED, Failed(info, "final"))
        return None
    link.send(pipe.LOADED, None)
    return loaded
