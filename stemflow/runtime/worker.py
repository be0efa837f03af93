"""The worker: leases, runs, reports. One pump a process; each round is one exchange with the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from stemflow.core.shape import body_index
from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError
from stemflow.model.effects import Decision
from stemflow.model.facts import Distrusted, Ended, Fact, Failed, HandedBack, Lost, Ok, Outcome
from stemflow.model.plan import LeafPlan, ScopePlan
from stemflow.model.policy import Options
from stemflow.model.records import CANCELLED, STOPPING, ErrorInfo, Key, Node, parent_path, task_id
from stemflow.runtime.advance import Advance
from stemflow.runtime.apart import Apart
from stemflow.runtime.bind import Bound
from stemflow.runtime.context import Backstage, TaskContext
from stemflow.runtime.encoders import BadPayload, UnknownEncoder, Write, encoders_told
from stemflow.runtime.execute import Output, attempt, refused
from stemflow.runtime.headers import merged
from stemflow.runtime.isolate import Crashed, Pool, Processes
from stemflow.runtime.limits import place_of
from stemflow.runtime.locate import locate
from stemflow.runtime.narrate import narrate
from stemflow.runtime.pause import Pauses
from stemflow.runtime.registry import Task, TaskRegistry
from stemflow.runtime.running import Running
from stemflow.runtime.signals import WorkerEvent
from stemflow.runtime.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.sync_context import SyncTaskContext, ask_loop
from stemflow.runtime.telling import context_event, task_event, tell_commit
from stemflow.runtime.values import Values
from stemflow.runtime.verdict import Judge, describe
from stemflow.runtime.vouch import vouch
from stemflow.store.base import Exchange, Lease, Request, Store, StoreError, StoreUnavailable, Want

T = TypeVar("T")

log = logging.getLogger("stemflow.worker")

YIELDS = 3
"""Turns of the loop that quick handlers are given before the worker rests; resting costs more than they do."""
STORE_PAUSE_S = 0.5
"""The pause after the store could not be read."""
IDLE_MS = 1_000
"""The longest an idle worker waits before it looks again."""
UNKNOWN_KEY_DELAY_MS = 5_000
"""A worker that lacks the key of a signature gives the task back for this long, that others may take it."""
UNKNOWN_TASK_DELAY_MS = 5_000
"""A worker that lacks a task gives it back for this long."""


async def hand_back_unknown(task: str, node: Node) -> HandedBack:
    log.warning("task %s is not registered here; it is handed back", task)
    return HandedBack(UNKNOWN_TASK_DELAY_MS)


class Worker:
    """Leases from one store, runs handlers of one registry, reports outcomes in batches."""

    def __init__(
        self,
        store: Store,
        advance: Advance,
        registry: TaskRegistry,
        backstage: Backstage,
        *,
        owner: str,
        channel: str,
        concurrency: int = 100,
        queues: tuple[str, ...] | None = None,
        only_run: str | None = None,
        pool: Executor | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.store, self.advance, self.registry, self.backstage = store, advance, registry, backstage
        self.owner, self.channel, self.concurrency = owner, channel, concurrency
        self.queues, self.only_run = queues, only_run
        self.signals, self.middleware = registry.signals, registry.middleware
        self.without: Callable[[str, Node], Awaitable[Failed | HandedBack]] = hand_back_unknown
        self.pool = pool or ThreadPoolExecutor(concurrency, thread_name_prefix="stemflow")
        self.processes = Pool(processes or Processes())
        self.apart = Apart(self)
        self.held_ms: Callable[[], int] = lambda: 0
        """For how long the event loop has been held."""
        self.running: dict[tuple[Key, int], Running] = {}
        self.facts: list[Fact] = []
        self.sequence = 0
        self.draining = False
        self.handing_back = False
        self.leaked: dict[asyncio.Future[Any], Running] = {}
        """Handlers that were given up and still work; each takes a slot."""
        self.stale_reports = 0
        self.stale_decisions = 0
        self._poked = asyncio.Event()
        self._impatient = asyncio.Event()
        self._seen = 0
        self._next_at_ms: int | None = None

    # -- the pump

    async def run(self) -> None:
        """Exchange until `drain` was called and nothing is left to report."""
        while not (self.draining and not self.facts and not self.running):
            await self.round()
            for _ in range(YIELDS):
                await asyncio.sleep(0)
                if self.facts:
                    break
            else:
                await self._rest()

    async def round(self) -> None:
        """One exchange: commit what has ended, start what is leased. It leased all that it could."""
        batches, decisions = [], []
        for batch in self._batches():
            decision = await self._decided(batch)
            if decision is not None:
                batches.append(batch)
                decisions.append(decision)
        free = self.apart.limit(max(0, self.concurrency - len(self.running) - len(self.leaked)))
        want = Want(owner=self.owner, limit=free, queues=self.queues, only_run=self.only_run)
        answer = await self.exchange(decisions, None if self.draining else want)
        for batch, decision, committed in zip(batches, decisions, answer.committed, strict=True):
            self._settle(batch, decision, committed, answer)
        self.facts.extend(answer.timers)
        started, back = self.apart.sort(answer.leases, asked=free > 0)
        for lease in started:
            self.start(lease)
        for lease in back:
            self.advance.leased(lease)
            self.facts.append(Ended(lease.node.key, lease.node.delivery, HandedBack()))
        self._next_at_ms = answer.next_at_ms

    async def _decided(self, batch: list[Fact]) -> Decision | None:
        """None when the store could not be read (the facts wait) or the machine failed (they are set aside)."""
        try:
            return await self.advance.decide(batch)
        except StoreError as error:
            log.warning("%s; %d reports wait", error, len(batch))
            self.facts.extend(batch)
            await asyncio.sleep(STORE_PAUSE_S)
        except SignatureInvalid as error:
            log.critical("%s", error)
            # Runs that share the batch with the one in question go on; a record of nobody here concerns them all.
            mine = [fact for fact in batch if fact.key[0] == error.run] or batch
            self.facts += [fact for fact in batch if fact not in mine]
            batch[:] = [Distrusted(fact.key, str(error)) for fact in mine]
            return await self.advance.decide(batch)
        except UnknownKey as error:
            log.warning("%s; %d reports are left to a process that has it", error, len(batch))
            await asyncio.sleep(STORE_PAUSE_S)
        except Exception as error:
            log.critical("run %s: its reports are set aside, its leases will be lost", batch[0].key[0], exc_info=True)
            self.trouble(error)
        return None

    def _batches(self) -> list[list[Fact]]:
        """Facts of one run are decided together, and those of runs that meet in a concurrency key, which all change."""
        facts, self.facts = self.facts, []
        met: dict[str, str] = {}
        joined: dict[str, str] = {}

        def group(run: str) -> str:
            while run in joined:
                run = joined[run]
            return run

        for fact in facts:
            node = self.advance.records.get(fact.key)
            if isinstance(node, Node) and node.slot is not None:
                run, other = group(fact.key[0]), group(met.setdefault(node.slot, fact.key[0]))
                if run != other:
                    joined[run] = other
        groups: dict[tuple[str, bool], list[Fact]] = {}
        for fact in facts:
            groups.setdefault((group(fact.key[0]), isinstance(fact, Distrusted)), []).append(fact)
        return list(groups.values())

    def _settle(self, batch: list[Fact], decision: Decision, committed: bool, answer: Exchange) -> None:
        if not committed:
            self.stale_decisions += 1
            self.advance.stale(decision, batch, answer.current)
            self.facts.extend(batch)
            return
        tell_commit(self.signals, self.advance.library, decision, batch, self.store.now_ms())
        self.advance.committed(decision)
        narrate(batch, decision, answer.now_ms)
        self.stale_reports += sum(isinstance(fact, Ended) for fact in decision.refused)
        self.tell_stopped(decision)

    async def exchange(self, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        """One exchange; the same request is sent again until the store answers."""
        self.sequence += 1
        request, pauses = Request(self.channel, self.sequence), Pauses(self.channel, 0.05, 5.0)
        while True:
            try:
                return await self.store.exchange(request, decisions, want)
            except StoreUnavailable as error:
                pause = pauses.next()
                log.warning("%s; trying again in %.2f s", error, pause)
                await asyncio.sleep(pause)

    async def _rest(self) -> None:
        """Wait for a report, a commit by somebody else, or the next instant at which something is due."""
        if self.draining and not self.running:
            return
        timeout = IDLE_MS
        if self._next_at_ms is not None:
            timeout = max(1, min(timeout, self._next_at_ms - self.store.now_ms()))
        self._poked.clear()
        changed = asyncio.ensure_future(self.store.work(self.owner, self._seen, timeout))
        poked = asyncio.ensure_future(self._poked.wait())
        try:
            await asyncio.wait((changed, poked), return_when=asyncio.FIRST_COMPLETED)
            if changed.done():
                self._seen = changed.result()
        except StoreError as error:
            log.warning("%s; trying again in %.1f s", error, STORE_PAUSE_S)
            await asyncio.sleep(STORE_PAUSE_S)
        finally:
            changed.cancel()
            poked.cancel()

    def trouble(self, error: BaseException) -> None:
        """Something of the worker itself went wrong."""
        if self.signals.worker_error:
            self.signals.worker_error.send(self.event("worker_error", describe(error)))

    def event(self, signal: str, error: ErrorInfo | None = None) -> WorkerEvent:
        return WorkerEvent(
            signal=signal, worker=self.owner, at_ms=self.store.now_ms(), running=len(self.running), error=error
        )

    def poke(self) -> None:
        """Something may be ready: do not rest."""
        self._poked.set()

    # -- one lease

    def start(self, lease: Lease) -> None:
        node = lease.node
        self.advance.leased(lease)
        running = self.running[(node.key, node.delivery)] = Running(self, node)
        if self.handing_back:
            return running.report(HandedBack())
        running.task = asyncio.get_running_loop().create_task(self._work(running))
        running.task.add_done_callback(running.ended)

    async def _work(self, running: Running) -> None:
        outcome: Outcome | Crashed
        try:
            outcome = await self._attempt(running)
        except asyncio.CancelledError as cancelled:
            # The engine always says why it cancels; a handler that cancelled itself has failed.
            outcome = running.reason or running.judge(cancelled)
        except SignatureInvalid as error:
            return self.distrust(running, error)
        except UnknownKey as error:
            log.warning("%s; the task is handed back", error)
            outcome = HandedBack(UNKNOWN_KEY_DELAY_MS)
        except StoreError as error:
            log.warning("task %s is handed back: %s", running.node.key, error)
            outcome = HandedBack(int(STORE_PAUSE_S * 1_000))
        except Exception as error:
            log.exception("task %s could not be started", running.node.key)
            self.trouble(error)
            outcome = Failed(describe(error), "final")
        ended_well = isinstance(outcome, Ok) and not running.timed_out
        running.report(running.reason if running.reason is not None and not ended_well else outcome)

    async def _attempt(self, running: Running) -> Outcome | Crashed:
        node = running.node
        early_ms = await vouch(self.advance.library, node, self.queues)
        if early_ms is not None:
            return HandedBack(early_ms)
        shape = self.advance.library.shapes.get(node.plan) or await self.advance.library.shape(node.plan)
        leaf = shape.nodes[node.node]
        assert isinstance(leaf, LeafPlan)
        task = self.registry.get(leaf.task)
        if task is None:
            return await self.without(leaf.task, node)
        if self.signals.received:
            self.signals.received.send(task_event("received", node, leaf.task, self.store.now_ms()))
        options = shape.plan.options[leaf.options]
        running.judge = Judge(leaf.task, options, node.attempt, self.registry.strategy_of(task, options))
        context = running.context = await self._context(node, leaf, options, running, task)
        chain = self.middleware
        if chain.on_consume and (refusal := await refused(chain, context, running.judge)) is not None:
            return refusal
        values = Values(self.advance.library, known=self.advance.records)
        try:
            bound = await (await self.advance.binder(node.plan)).calls(values, node, leaf)
            write = await self.advance.library.writer(
                options.result_encoder or self.advance.library.encoders.results, *node.key, "result"
            )
        except ExpressionError as error:
            return Failed(
                ErrorInfo("ExpressionError", f"args of {node.path}: {error}", "stemflow.ExpressionError"), "final"
            )
        except UnknownEncoder as error:
            return Failed(describe(error), "final", dead="unknown-encoder")
        except BadPayload as error:
            return Failed(describe(error), "final", dead="bad-arguments")
        output = await self._output(node, write)
        if place_of(task.is_async, options) == "process":
            return await self._in_process(running, task, options, context, bound, output)
        if isinstance(context, SyncTaskContext):
            context.ask = partial(ask_loop, asyncio.get_running_loop(), context)
        running.begin(context, options)
        attempted = attempt(task, context, bound, self._in_thread(running), output, running.judge)
        return await self._called(context, attempted)

    async def _called(self, context: TaskContext, attempted: Coroutine[Any, Any, T]) -> T:
        """The attempt, with the signals before and after it."""
        outcome: T | None = None
        if self.signals.prerun:
            self.signals.prerun.send(context_event("prerun", context, self.store.now_ms()))
        try:
            outcome = await attempted
            return outcome
        finally:
            if self.signals.postrun:
                error = outcome.error if isinstance(outcome, Failed) else None
                self.signals.postrun.send(context_event("postrun", context, self.store.now_ms(), error=error))

    async def _in_process(
        self,
        running: Running,
        task: Task[..., Any],
        options: Options,
        context: TaskContext,
        bound: Bound,
        output: Output,
    ) -> Outcome | Crashed:
        try:
            place = locate(task, self.registry)
        except OptionError as error:
            return Failed(describe(error), "final")
        try:
            running.child = await self.processes.take()
        except StemflowError as error:
            return Crashed(str(error))
        running.begin(context, options)
        try:
            return await self._called(context, running.child.attempt(place, options, context, bound, output))
        finally:
            self.processes.give(running.child)

    async def _output(self, node: Node, write: Write) -> Output:
        header = await self.advance.library.header(node.run)
        return Output(self.registry, self.advance.library.encoders, write, header.origin or node.run, node.path)

    def _in_thread(self, running: Running) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
        def call(work: Callable[[], Any]) -> Awaitable[Any]:
            running.thread = asyncio.get_running_loop().run_in_executor(self.pool, work)
            return asyncio.shield(running.thread)

        return call

    async def _context(
        self, node: Node, leaf: LeafPlan, options: Options, running: Running, task: Task[..., Any]
    ) -> TaskContext:
        kind = TaskContext if place_of(task.is_async, options) == "loop" else SyncTaskContext
        header = await self.advance.library.header(node.run)
        before = await Values(self.advance.library, known=self.advance.records).parent_path(node)
        told = encoders_told(node, leaf, options, header, self.advance.library.encoders)
        parent = header.parent if before is None else (node.run, before)
        return kind(
            run_id=node.run,
            node=node.path,
            name=leaf.task,
            backstage=self.backstage,
            attempt=node.attempt,
            max_retries=options.max_retries,
            headers=merged(merged(header.headers, leaf.headers), told.headers),
            meta=merged(merged(header.meta, leaf.meta), told.meta),
            queue=node.queue,
            enqueued_at_ms=node.opened_at_ms,
            parent_id=None if parent is None else task_id(parent),
            root_id=header.root,
            delivery=node.delivery,
            in_fan_in=bool(node.path) and await self._in_fan_in(node),
        )

    async def _in_fan_in(self, node: Node) -> bool:
        """Whether `add_to_group` has a group, chord header or map to join."""
        while node.path:
            scope = self.advance.records.get((node.run, parent_path(node.path)))
            if scope is None:
                (scope,) = await self.store.read([(node.run, parent_path(node.path))])
            assert isinstance(scope, Node)
            plan = (await self.advance.library.shape(scope.plan)).nodes[scope.node]
            assert isinstance(plan, ScopePlan)
            if plan.kind in ("group", "map") or (plan.kind == "chord" and node.index != body_index(plan)):
                return node.index >= 0
            node = scope
        return False

    def report(self, running: Running, outcome: Outcome | Crashed) -> None:
        node = running.node
        self.running.pop((node.key, node.delivery), None)
        if isinstance(outcome, Crashed):
            log.warning("%s: %s; this delivery is lost", running.title, outcome.how)
            self.facts.append(Lost(node.key, node.delivery, outcome.how))
        else:
            self.facts.append(Ended(node.key, node.delivery, outcome, running.started_at_ms))
        self._poked.set()

    def distrust(self, running: Running, error: SignatureInvalid) -> None:
        """A lease that nobody with a key has made: nothing is started, and its run ends."""
        log.critical("%s", error)
        node, running.reported = running.node, True
        self.running.pop((node.key, node.delivery), None)
        self.facts.append(Distrusted(node.key, str(error), node.delivery))
        self._poked.set()

    def leak(self, running: Running, work: asyncio.Future[Any]) -> None:
        """A handler was given up: it works on, nobody hears of it, and its slot is taken until it ends."""
        log.warning(
            "%s does not end although it was told to; it is disowned: its lease is given up and its slot stays "
            "taken until it ends",
            running.title,
        )
        self.leaked[work] = running
        work.add_done_callback(self._returned)
        if len(self.leaked) >= self.concurrency:
            names = sorted({one.context.name for one in self.leaked.values() if one.context is not None})
            log.critical(
                "all %d slots of this worker are taken by handlers that were given up (%s); it leases nothing until "
                "one ends: restart it, and give such tasks isolation='process'",
                self.concurrency, ", ".join(names),
            )  # fmt: skip

    def _returned(self, work: asyncio.Future[Any]) -> None:
        running = self.leaked.pop(work)
        log.warning("%s, which was disowned, has ended; its slot is free again", running.title)
        if not work.cancelled():
            work.exception()
        self._poked.set()

    def tell_stopped(self, decision: Decision) -> None:
        """Tell the handlers here of what a commit has told to end, or has ended by force."""
        for put in decision.puts:
            node = put.record
            if isinstance(node, Node) and node.tally is None and node.state in (STOPPING, CANCELLED):
                self.tell(node.key, node.delivery, node.kill or node.state == CANCELLED)

    def tell(self, key: Key, token: int, kill: bool) -> None:
        """The node was told to stop. Only `kill` cancels its handler; else it may end well."""
        running = self.running.get((key, token))
        if running is not None and kill:
            running.cancel(
                Failed(ErrorInfo("TaskCancelled", "its run was cancelled", "stemflow.TaskCancelled"), "final")
            )

    def lose(self, key: Key, token: int) -> None:
        """The lease is gone: whatever the handler reports would be refused."""
        running = self.running.get((key, token))
        if running is not None:
            log.warning("the lease of %s was lost; its handler is cancelled and its report will not count", key)
            running.cancel(HandedBack())

    def lost(self, lease: Lease) -> None:
        """A lease of somebody else was taken over: report its loss."""
        self.advance.leased(lease)
        self.facts.append(Lost(lease.node.key, lease.node.delivery))
        self._poked.set()

    def held(self) -> list[tuple[Key, int, int]]:
        """What is leased here and still to be renewed: (key, token, lease_ms)."""
        now_ms, loop_held_ms = self.store.now_ms(), self.held_ms()
        return [one.held() for one in self.running.values() if one.renewable(now_ms, loop_held_ms)]

    # -- going away

    async def drain(self, grace_ms: int) -> None:
        """Lease nothing more; after `grace_ms`, or when `hand_back` is called, hand back what still runs, uncharged."""
        self.draining = True
        self.poke()
        if self.running and grace_ms:
            ending = asyncio.gather(*(r.task for r in self.running.values() if r.task), return_exceptions=True)
            impatient = asyncio.ensure_future(self._impatient.wait())
            await asyncio.wait((ending, impatient), timeout=grace_ms / 1_000, return_when=asyncio.FIRST_COMPLETED)
            impatient.cancel()
        self.hand_back()

    def hand_back(self) -> None:
        """Cancel what runs and give it back now, uncharged."""
        self.handing_back = True
        self._impatient.set()
        for running in list(self.running.values()):
            running.cancel(HandedBack())
