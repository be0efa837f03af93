"""Handles of submitted runs: waiting for them, following and cancelling them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct, structs

from stemflow.core.ending import LEAST_KEPT_MS
from stemflow.core.journal import attempts_of
from stemflow.errors import StemflowError
from stemflow.model.plan import LeafPlan, ScopePlan
from stemflow.model.records import FAILED, FINAL, SUCCEEDED, Attempt, ErrorInfo, Node, parent_path
from stemflow.model.signature import AnySig
from stemflow.model.tree import members_of
from stemflow.runtime.runs.decode import Decode, ResultTypes, decoder
from stemflow.runtime.runs.progress import Progress, progress_of_run
from stemflow.runtime.runs.run_node import RunNode, run_node
from stemflow.runtime.values.library import Library
from stemflow.runtime.values.resolver import Values
from stemflow.store.base import StateLost, Store
from stemflow.units import Duration, timeout_s

T = TypeVar("T")
D = TypeVar("D")
READ_EVERY_S = 60.0
"""How often an awaited run is read, in case its end is never announced."""
EVENTS_PAUSE_MS = 1_000
PAUSE_A_NODE_S = 0.000_2
"""Seconds between two readings of a run for each of its nodes: large runs are read less often."""


class UnknownRun(StemflowError):
    """There is no run with this id in the store."""

    def __init__(self, run_id: str, url: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id}: expected it in {url}, found none; `stemflow runs` lists those that are there")


class DuplicateRun(StemflowError):
    """The unique key is held by another run, and the mode is `reject`."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"submit: the unique key is held by run {run_id}; wait for it, or cancel it")


class TaskResult(Struct, Generic[T], frozen=True, kw_only=True, dict=True):
    """How a run, or a node of it, has ended.

    `task_id`: `RUN`, or `RUN/path`. `status`: `succeeded`, `failed`, `cancelled` or `skipped`; a state such as
    `running` if it has not ended. `raw`: the stored JSON data. `error`: that of the node with the path `failed_at`, at
    its attempt `attempt`, from 0. `timed_out`: it had not ended when waiting was over. `decode`: turns `raw` into
    `value`.

        result = await handle.wait(timeout=30)
        total = result.value_or(0)
    """

    task_id: str
    status: str
    raw: Any = None
    error: ErrorInfo | None = None
    failed_at: str | None = None
    attempt: int = 0
    timed_out: bool = False
    decode: Decode | None = None

    @cached_property
    def value(self) -> T | None:
        """The value as the result type of the task, or by `decode=`; None if it has not succeeded. Raises BadResult."""
        if self.decode is None or self.raw is None:
            return self.raw  # type: ignore[no-any-return]
        return self.decode(self.raw)  # type: ignore[no-any-return]

    def value_or(self, default: D) -> T | D:
        """The value; `default` if it has not succeeded."""
        return self.value if self.status == SUCCEEDED else default  # type: ignore[return-value]

    def required(self) -> T:
        """The value. Raises RunFailed if it has not succeeded."""
        if self.status != SUCCEEDED:
            raise RunFailed(self)
        return self.value  # type: ignore[return-value]


class RunConflict(StemflowError):
    """A run of this id exists and does other work than the one that was submitted under it."""

    def __init__(self, run_id: str, stored: str, asked: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"submit: run {run_id}: expected the work that this id stands for already ({stored}), got other work "
            f"({asked}); choose another run_id"
        )


class RunFailed(StemflowError):
    """A run did not succeed. `node`: the path of the failed node; `attempt`: of it, from 0; `error`: its error."""

    def __init__(self, result: TaskResult[Any]) -> None:
        self.result = result
        self.run_id, self.node, self.attempt, self.error = (
            result.task_id,
            result.failed_at,
            result.attempt,
            result.error,
        )
        what = f"{self.error.type}: {self.error.message}" if self.error is not None else result.status
        at = f" at {self.node} (attempt {self.attempt + 1})" if self.node else ""
        super().__init__(f"run {self.run_id} {'timed out' if result.timed_out else result.status}{at}: {what}")

    def __reduce__(self) -> tuple[Any, ...]:
        return RunFailed, (structs.replace(self.result, decode=None),)


class NodeEvent(Struct, frozen=True, kw_only=True):
    """A change of a node: a new state, attempt or progress.

    `path`: the address of the node in its run. `state`: such as `running`. `attempt`: from 0. `at_ms`: epoch
    milliseconds, of another attempt the instant at which it is seen. `task`: the task of a leaf. `error`: of a failed
    node. `progress`: the last report of its handler.
    """

    path: str
    state: str
    attempt: int
    at_ms: int
    task: str | None = None
    error: ErrorInfo | None = None
    progress: Progress | None = None


class RunAccess(Protocol):
    """What a handle reads its run with, and how it cancels it."""

    @property
    def store(self) -> Store: ...
    @property
    def library(self) -> Library: ...
    @property
    def result_types(self) -> ResultTypes: ...
    def require_open(self) -> None:
        """Raise NotOpen unless the engine is open on the running event loop."""

    def warned_if_unserved(self, run_id: str) -> AbstractContextManager[None]:
        """While it is entered, log why no worker works on the run, if none does."""
        ...

    def slot_released(self) -> AbstractAsyncContextManager[None]:
        """While it is entered, the handler that waits here, if any, holds no slot of its worker."""
        ...

    async def cancel(self, run_id: str, *, force: bool = False) -> str: ...


class RunHandle(Generic[T]):
    """A run that was submitted, in whichever process it is executed.

    `id`: the run id. `existing`: the submission found an earlier run with the same unique key or id, which this is.
    `holder`: the id of the run or task that held the unique key when this run was submitted.

        handle = await app.submit(add.s(1, 2))
        result = await handle.wait(timeout=30)
    """

    def __init__(
        self,
        access: RunAccess,
        run_id: str,
        *,
        existing: bool = False,
        holder: str | None = None,
        known_at_ms: int = 0,
        asked: tuple[str, AnySig] | None = None,
    ) -> None:
        self._access = access
        self._asked = asked
        self.id = run_id
        self.existing = existing
        self.holder = holder
        self._epoch = access.store.epoch
        self._known_until_ms = known_at_ms + LEAST_KEPT_MS if known_at_ms else 0
        """Until then the run exists for certain, since it was submitted here."""

    async def root(self) -> Node:
        """The record of the run itself. Raises UnknownRun, StateLost if the store has lost it, StoreError."""
        (root,) = await self._access.store.read([(self.id, "")])
        if isinstance(root, Node):
            return root
        if self._epoch != self._access.store.epoch:
            url = self._access.store.url
            raise StateLost(
                f"run {self.id}: {url} has lost data since this run was known to be there, and it with them; "
                "submit it again"
            )
        raise UnknownRun(self.id, self._access.store.url)

    async def wait(self, timeout: Duration | None = None) -> TaskResult[T]:
        """Wait until the run has ended, at most `timeout` (a duration, or seconds); then the result is `timed_out`.

        After five seconds a warning is logged if no worker serves what the run waits for, with the reason.

        Raises UnitError, StateLost when the store has lost the run, NotOpen if the engine is not open, and StoreClosed
        if it is closed meanwhile; the run goes on in its store.
        """
        self._access.require_open()
        limit_s = timeout_s("wait: timeout", timeout)
        future = self._access.store.watch(self.id)
        try:
            if self._access.store.now_ms() >= self._known_until_ms:
                # The id may be wrong, and the run may have been removed.
                root = await self.root()
                if root.state in FINAL:
                    return await self.result_of(root)
            with self._access.warned_if_unserved(self.id):
                if not future.done():
                    async with self._access.slot_released():
                        ended = await self._ended(future, limit_s)
                else:
                    ended = future.result()
            return await self.result_of(ended if ended is not None else await self.root())
        finally:
            self._access.store.unwatch(self.id, future)

    async def _ended(self, future: asyncio.Future[Node | None], limit_s: float | None) -> Node | None:
        """The result of `future` within `limit_s` seconds, else None. The run is read every READ_EVERY_S seconds: one
        that was deleted does not end any more."""
        loop = asyncio.get_running_loop()
        until = math.inf if limit_s is None else loop.time() + limit_s
        while True:
            left_s = until - loop.time()
            await asyncio.wait((future,), timeout=max(0.0, min(READ_EVERY_S, left_s)))
            if future.done():
                return future.result()
            if left_s <= READ_EVERY_S:  # a comparison with the clock could miss the end by a rounding error
                return None
            root = await self.root()
            if root.state in FINAL:
                return root

    async def result_of(self, root: Node) -> TaskResult[T]:
        """The result of the run whose record is `root`; `timed_out` if it has not ended."""
        sig = self._asked[1] if self._asked is not None and self._asked[0] == root.plan else None
        return await result_of(self._access, root, sig)

    async def duplicates(self) -> int:
        """How many other submissions have met the unique key of this run while it was held."""
        return await Values(self._access.library).duplicates(await self.root())

    async def cancel(self, *, force: bool = False) -> str:
        """Cancel the run, as `Stemflow.cancel`. `force`: do not wait for running handlers. Returns the state before."""
        return await self._access.cancel(self.id, force=force)

    async def nodes(self) -> list[RunNode]:
        """The state of each node of the run, in order of creation. A member that never opened has none."""
        shape = self._access.library.shape
        return [run_node(node, (await shape(node.plan)).nodes[node.node]) for node in await self.records()]

    async def records(self) -> list[Node]:
        """As `nodes`, as the store keeps them; what is in them may change with any version."""
        return await self._access.store.nodes(self.id)

    async def value_of(self, path: str) -> Any:
        """The value of the node at `path`, such as `stock[2]`; None for a node without one."""
        values = Values(self._access.library)
        return await values.value(await values.node((self.id, path)))

    async def attempts(self, path: str = "") -> tuple[Attempt, ...]:
        """The attempts of the task at `path` that have ended, the oldest first: failures, losses, returned ones too.

        Of many, the first 4 and the last 12 are kept. The worker of a task whose first attempt succeeded is not known.
        """
        node = await Values(self._access.library).node((self.id, path))
        return () if node is None else attempts_of(node)

    async def events(self) -> AsyncIterator[NodeEvent]:
        """Every change of a node that is seen, from the start, until the run has ended; no end is missed."""
        seen: dict[str, tuple[Any, ...]] = {}
        version = 0
        while True:
            reported = await self.progress()
            nodes = await self.records() or [await self.root()]
            for node in sorted(nodes, key=_in_time):
                last = reported.get(node.path)
                progress = last if last is not None and last.of(node) else None
                mark = (node.state, node.attempt, progress)
                if seen.get(node.path) != mark:
                    seen[node.path] = mark
                    yield await self._event(node, progress)
            if any(not node.path and node.state in FINAL for node in nodes):
                return
            async with self._access.slot_released():
                await asyncio.sleep(min(1.0, len(nodes) * PAUSE_A_NODE_S))
                version = await self._access.store.wait_for_change(version, EVENTS_PAUSE_MS, self.id)

    async def members(self, path: str = "") -> AsyncIterator[TaskResult[Any]]:
        """How each member of the run (or of the composite at `path`) ended, as they end; first those that have ended.

        Members are those of a group, map, chain or graph, and of a chord its header and body; what members add is among
        them. One that never opened, or was skipped by another's failure, has no record and is left out.
        """
        async for event in self.events():
            if event.state in FINAL and event.path != path and parent_path(event.path) == path:
                (node,) = await self._access.store.read([(self.id, event.path)])
                if isinstance(node, Node) and node.index >= 0:
                    yield await result_of(self._access, node, await self._signature_of(node))

    async def _signature_of(self, node: Node) -> AnySig | None:
        """What was submitted for a member of the run, which may say how to decode it."""
        if self._asked is None or self._asked[0] != node.plan or parent_path(node.path):
            return None
        root = (await self._access.library.shape(node.plan)).nodes[0]
        given = [member for _, member in members_of(self._asked[1])]
        return given[root.members.index(node.node)] if isinstance(root, ScopePlan) and given else None

    async def progress(self) -> dict[str, Progress]:
        """What handlers of this run last reported, by path, in whichever process they run."""
        return await progress_of_run(self._access.store, self.id)

    async def _event(self, node: Node, progress: Progress | None) -> NodeEvent:
        plan = (await self._access.library.shape(node.plan)).nodes[node.node]
        return NodeEvent(
            path=node.path,
            state=node.state,
            attempt=node.attempt,
            at_ms=self._time_of(node, progress),
            task=plan.task if isinstance(plan, LeafPlan) else None,
            error=node.error,
            progress=progress,
        )

    def _time_of(self, node: Node, progress: Progress | None) -> int:
        """When it changed, epoch ms; that another attempt is due or runs is known from when it is seen."""
        if node.ended_at_ms:
            return node.ended_at_ms
        if progress is not None:
            return progress.at_ms
        return self._access.store.now_ms() if node.attempt else node.started_at_ms or node.opened_at_ms


async def result_of(access: RunAccess, node: Node, sig: AnySig | None = None) -> TaskResult[Any]:
    """The result of a run or of one of its nodes; `timed_out` when it has not ended. `sig`: the tree of its plan."""
    name = f"{node.run}/{node.path}" if node.path else node.run
    if node.state not in FINAL:
        return TaskResult(task_id=name, status=node.state, timed_out=True)
    access.library.trust.verify(node)
    values = Values(access.library)
    if node.state == SUCCEEDED:
        plan = (await access.library.shape(node.plan)).plan
        decode = decoder(plan, access.result_types, sig, node.node)
        return TaskResult(task_id=name, status=node.state, raw=await values.value(node), decode=decode)
    if node.state != FAILED:
        return TaskResult(task_id=name, status=node.state)
    leaf = await values.node((node.run, node.failed_at or node.path))
    return TaskResult(
        task_id=name,
        status=node.state,
        error=await values.error_of(node),
        failed_at=node.failed_at or node.path,
        attempt=leaf.attempt if leaf is not None else 0,
    )


def _in_time(node: Node) -> tuple[int, int]:
    """Sorts changes by time; at the same instant the end of a member comes before that of its scope."""
    depth = sum(node.path.count(mark) for mark in ".[!") + bool(node.path and node.path[0] not in "[!")
    if node.state in FINAL:
        return node.ended_at_ms, -depth
    return node.started_at_ms or node.opened_at_ms, depth
