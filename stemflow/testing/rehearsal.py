"""Rehearsals: run a workflow or canvas in a test, in virtual time, with stubs for tasks and a record of all calls."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from msgspec import Struct

from stemflow.errors import StemflowError
from stemflow.model.plan import LeafPlan
from stemflow.model.records import FINAL, HELD, READY, RUNNING, Node
from stemflow.model.signature import Signature
from stemflow.model.workflow import Workflow
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.middleware import Middleware
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.values.resolver import Values
from stemflow.testing.simulation.idle_time import IdleTime
from stemflow.testing.simulation.virtual_loop import SeededIds, VirtualClock, VirtualLoop, run

P = ParamSpec("P")
T = TypeVar("T")
StandIn = Callable[..., Any]

HORIZON_S = 86_400.0
"""The default number of virtual seconds after which a test that has not ended is considered stuck."""


def virtual_time(
    test: Callable[P, Coroutine[Any, Any, T]], horizon_s: float = HORIZON_S
) -> Callable[P, T]:
    """Turn an `async def` into a plain function that runs it on an event loop with virtual time: waiting takes no time.

    Args:
        test: The test.
        horizon_s: The maximum virtual duration in seconds (default: a day).

    Raises:
        Deadlock: Nothing can run any more, and no timer is set.
        OutOfTime: The test lasts longer than `horizon_s`. A virtual day of an idle worker takes a few real seconds.
    """

    @functools.wraps(test)
    def on_virtual_time(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(lambda loop: test(*args, **kwargs), horizon_s=horizon_s)[0]

    return on_virtual_time


def answers(*outcomes: Any) -> StandIn:
    """A stub whose calls return `outcomes` in turn and then repeat the last one. An exception among them is raised."""
    if not outcomes:
        raise StemflowError("answers: expected at least one outcome, got none; write answers(None) for null")
    left = list(outcomes)

    async def answer(*args: Any, **kwargs: Any) -> Any:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, BaseException) or (isinstance(outcome, type) and issubclass(outcome, BaseException)):
            raise outcome
        return outcome

    return answer


class Call(Struct, frozen=True, kw_only=True):
    """One call of a handler or its stub. `task`: its name. `args`, `kwargs`: the arguments. `run_id`, `node`: the
    address of the node. `attempt`: from 0. `at_ms`: virtual milliseconds since the rehearsal began."""

    task: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run_id: str
    node: str
    attempt: int
    at_ms: int


class Enqueued(Struct, frozen=True, kw_only=True):
    """A task that waits for a worker, with the arguments of its call."""

    task: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    run_id: str
    node: str
    queue: str
    priority: int
    state: str
    at_ms: int
    """The earliest start, in epoch milliseconds of the store's clock; 0: at once."""


class _Recorder(Middleware):
    """Records each call, and calls the stub if there is one."""

    def __init__(self, calls: list[Call], stubs: Mapping[str, StandIn], elapsed_ms: Callable[[], int]) -> None:
        self.calls, self.stubs, self.elapsed_ms = calls, stubs, elapsed_ms

    async def on_execute(self, context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        call = Call(
            task=context.name, args=tuple(context.args), kwargs=dict(context.kwargs), run_id=context.run_id,
            node=context.node, attempt=context.attempt, at_ms=self.elapsed_ms(),
        )  # fmt: skip
        self.calls.append(call)
        stand_in = self.stubs.get(context.name)
        if stand_in is None:
            return await call_next()
        answer = stand_in(*context.args, **context.kwargs)
        return await answer if inspect.isawaitable(answer) else answer


class Rehearsal:
    """An in-memory engine in virtual time with a copy of `registry`. Use it as an async context manager under
    `virtual_time`.

    Args:
        registry: The tasks. The registry itself is not changed.
        stubs: Functions by task name that are called, with the task's arguments, instead of its handler. A name that is
            not registered becomes a task.
        worker: False: nothing runs, so that a test can inspect what was enqueued.
        skip_idle: Jump over time in which no task can run: a wait of two days takes milliseconds. The periodic work of
            the engine (heartbeats, retention) is done once after a jump. An idle test must then wait by `pause`.
        settings: Further arguments of `Stemflow`.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        *,
        stubs: Mapping[str, StandIn] | None = None,
        worker: bool = True,
        skip_idle: bool = False,
        **settings: Any,
    ) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise StemflowError("Rehearsal: expected a loop with virtual time; put @virtual_time over the test")
        self._loop = loop
        self.calls: list[Call] = []
        """All calls of handlers and stubs so far, in order."""
        self.clock = VirtualClock(loop)
        stubs = dict(stubs or {})
        tasks = registry.copy()
        for name in stubs:
            if name not in tasks:
                tasks.task(name)(_stand_in_for(name))
        tasks.use(_Recorder(self.calls, stubs, loop.elapsed_ms))
        ids = SeededIds(random.Random(0))
        self.app = Stemflow("memory:", tasks, worker=worker, clock=self.clock, ids=ids, **settings)
        self._idle = IdleTime(loop, self.app.store) if skip_idle else None

    async def __aenter__(self) -> Rehearsal:
        await self.app.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._idle is not None:
            self._idle.stop()
        await self.app.__aexit__(kind, error, trace)

    async def pause(self, delay_ms: int) -> None:
        """Wait `delay_ms` virtual milliseconds; the end of the pause counts as an event for `skip_idle`."""
        if self._idle is None:
            await asyncio.sleep(delay_ms / 1_000)
        else:
            await self._idle.pause(delay_ms)

    async def run(self, what: Signature[Any, Any] | Workflow, *args: Any, **kwargs: Any) -> Any:
        """Run `what` as `Stemflow.run` does."""
        return await self.app.run(what, *args, **kwargs)

    async def submit(self, what: Signature[Any, Any] | Workflow, *args: Any, **kwargs: Any) -> RunHandle[Any]:
        """Submit `what` as `Stemflow.submit` does."""
        return await self.app.submit(what, *args, **kwargs)

    @property
    def elapsed_ms(self) -> int:
        """Virtual milliseconds since the loop started."""
        return self._loop.elapsed_ms()

    def calls_of(self, task: str) -> list[Call]:
        """The calls of `task`, in order; each attempt is a call."""
        return [call for call in self.calls if call.task == task]

    async def enqueued(self, task: str | None = None) -> list[Enqueued]:
        """The tasks that wait for a worker, for their time, or for a key, oldest run first; only those of `task` if
        given."""
        found = []
        for known in reversed(await self.app.store.runs(1_000_000)):
            for node in await self.app.store.nodes(known.header.run):
                if node.tally is None and node.state in (READY, HELD, RUNNING) and node.state not in FINAL:
                    found += await self._waiting(node)
        return [one for one in found if task is None or one.task == task]

    async def _waiting(self, node: Node) -> list[Enqueued]:
        leaf = (await self.app.library.shape(node.plan)).nodes[node.node]
        if not isinstance(leaf, LeafPlan):
            return []
        values = Values(self.app.library, known=self.app.decider.records)
        calls = await (await self.app.decider.binder(node.plan)).calls(values, node, leaf)
        return [
            Enqueued(
                task=leaf.task, args=tuple(args), kwargs=kwargs, run_id=node.run, node=node.path, queue=node.queue,
                priority=node.priority, state=node.state, at_ms=node.at_ms,
            )
            for args, kwargs in calls
        ]  # fmt: skip

    async def assert_enqueued(self, task: str, *args: Any, **kwargs: Any) -> Enqueued:
        """Return the first waiting call of `task` with these arguments.

        Raises AssertionError, which lists the waiting tasks.
        """
        waiting = await self.enqueued()
        for one in waiting:
            if one.task == task and one.args == args and dict(one.kwargs) == kwargs:
                return one
        listed = "; ".join(_shown(one.task, one.args, one.kwargs) for one in waiting) or "nothing"
        raise AssertionError(f"expected {_shown(task, args, kwargs)} to be enqueued; there is {listed}")


def _stand_in_for(name: str) -> Callable[..., Awaitable[Any]]:
    async def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"task {name} is a stub and was called itself")

    return never


def _shown(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    return f"{task}({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())])})"
