"""The simulation: exchange loop, decisions, renewal and recovery on a seeded loop, in virtual time and under faults.

`simulate(seed)` runs one world: a few processes on one store, random workflows, faults, then a liveness phase with the
faults off. The invariants hold after every commit and at the end. The same seed gives the identical trace.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from stemflow.core.invariants import check_run
from stemflow.core.shape import Shape
from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact
from stemflow.model.plan import LeafPlan
from stemflow.model.records import FINAL, Key, Node
from stemflow.model.signature import Signature
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.approvals import NotWaiting
from stemflow.runtime.client.why import facts_of
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import DuplicateRun, RunHandle
from stemflow.runtime.worker.exchange_loop import ExchangeLoop
from stemflow.runtime.worker.handler_services import WorkerServices
from stemflow.runtime.worker.lease_recovery import recover
from stemflow.runtime.worker.lease_renewal import RenewalSchedule, RenewalTask
from stemflow.runtime.worker.slots import Slots
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import Exchange, Lease, Renewed, Renewer, StoreError
from stemflow.testing.simulation.checked_store import CheckedStore, Violation
from stemflow.testing.simulation.decider_faults import cool_down, grow_old
from stemflow.testing.simulation.explained import check_explained
from stemflow.testing.simulation.faults import Faults, FlakyStore
from stemflow.testing.simulation.virtual_loop import SeededIds, VirtualClock, VirtualLoop, run
from stemflow.testing.simulation.workloads import (
    EVENT_TYPE,
    KEYED,
    WaitingRandom,
    Witness,
    contended_tree,
    keyed_run,
    make_registry,
    random_tree,
    wide_tree,
)

FAULTY_S = 30.0
"""Virtual seconds with faults on."""
LIVENESS_S = 120.0
"""Virtual seconds within which every run must end once the faults are off."""


NEVER_RAN = ("Duplicate", "SelfDeadlock")
"""Errors of tasks that were refused before they were leased; they leave no dead letter."""


class Report(Struct, frozen=True):
    """What one seed did. `digest` is of everything observed: equal for equal seeds."""

    seed: int
    digest: str
    runs: int
    commits: int
    posts: int
    hit: dict[str, int]


class SimWorker(Worker):
    """The real worker, whose facts may come late or twice."""

    def __init__(
        self, faults: Faults, alive: Callable[[], bool], fail: Callable[[BaseException], None], slots: Slots,
        *parts: Any, **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(slots, *parts, **more)
        self.faults, self.alive, self.fail = faults, alive, fail

    def send_error(self, error: BaseException) -> None:
        """A fault of the engine: in this world there is no other reason to set reports aside."""
        self.fail(error)

    def start(self, lease: Lease) -> None:
        # The other of two exchanges may have been answered in the instant of the death.
        if self.alive():
            super().start(lease)

    def report(self, running: Any, outcome: Any) -> None:
        if self.faults.strikes("late fact"):
            asyncio.get_running_loop().call_later(self.faults.rng.uniform(0.1, 5.0), super().report, running, outcome)
            return
        super().report(running, outcome)
        if self.faults.strikes("duplicated fact"):
            self.slots.facts.append(self.slots.facts[-1])


class SimExchangeLoop(ExchangeLoop):
    """The real exchange loop, whose accepted reports are checked for their token."""

    def settle(self, batch: list[Fact], decision: Decision, committed: bool, answer: Exchange) -> None:
        if committed:
            refused = {id(fact) for fact in decision.refused}
            tokens = {put.key: put.token for put in decision.puts}
            for fact in batch:
                if (
                    isinstance(fact, Ended)
                    and id(fact) not in refused
                    and tokens.get(fact.key, fact.token) != fact.token
                ):
                    raise Violation(
                        f"{fact.key}: a report under token {fact.token} was accepted, {tokens[fact.key]} holds"
                    )
        super().settle(batch, decision, committed, answer)


class FlakyRenewer:
    """Renewal that fails to happen when the fault strikes."""

    def __init__(self, inner: Renewer, faults: Faults) -> None:
        self.inner, self.faults = inner, faults

    def renew(self, held: Sequence[tuple[Key, int, int]]) -> Renewed:
        if self.faults.strikes("lease not renewed"):
            return Renewed((), ())
        return self.inner.renew(held)

    def close(self) -> None:
        self.inner.close()


class Process:
    """One worker process of the world; `die` is kill -9."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        skew = world.rng.randint(-2_000, 2_000) if world.faults.strikes("skewed clock") else 0
        self.store = FlakyStore(world.store, world.faults, self.die, skew)
        self.app = Stemflow(
            registry=world.registry_for(self), worker=False, clock=world.clock, ids=world.ids, store=self.store
        )
        self.app.decider.contention.wide_from(world.wide)
        grow_old(self.app.decider, world.faults, world.store)
        if world.cools:
            cool_down(self.app.decider.contention, world.faults)
        self.slots = Slots(self.store, owner=name, concurrency=world.rng.randint(1, 12 if world.cools else 4))
        woken = asyncio.Event()
        schedule = RenewalSchedule(self.slots, woken.set, 1_000)
        services = WorkerServices(
            self.slots, self.app.signals, lambda context, for_ms: None, self.app.submitter.submit, self.app._cancel, ()
        )
        self.worker = SimWorker(
            world.faults, lambda: not self.store.dead, world.fail, self.slots, self.app.decider, self.app.registry,
            services,
            remote_tasks=self.app.preparer.remote_tasks, threads=world.pool, lease_started=schedule.lease_started,
        )  # fmt: skip
        exchange_loop = SimExchangeLoop(self.slots, self.worker, self.app.decider, name, overlap_from=1)
        renewer = FlakyRenewer(world.store.renewer(), world.faults)
        renew = RenewalTask(self.slots, renewer, schedule, woken)
        self.is_open = False
        self.tasks = [
            asyncio.create_task(self._guarded(part), name=f"{name}.{label}")
            for label, part in (
                ("exchange loop", exchange_loop.run),
                ("renew", renew.run),
                ("recover", partial(recover, self.worker)),
            )
        ]

    async def _guarded(self, part: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await part()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.world.fail(error)

    async def opened(self) -> Stemflow:
        """The engine for a submission; never closed, as the store is shared by all processes."""
        if not self.is_open:
            self.is_open = True
            await self.app.__aenter__()
        return self.app

    def die(self) -> None:
        """Nothing of this process has an effect from here on."""
        self.store.cut_off()
        for task in self.tasks:
            task.cancel()
        for running in list(self.slots.running.values()):
            running.drop_report()
            if running.task is not None:
                running.task.cancel()
        self.slots.running.clear()
        self.world.died(self)


class World:
    """A store, some processes, some runs, one seed."""

    def __init__(
        self, loop: VirtualLoop, store_class: type[CheckedStore], waits: bool = False, cools: bool = False
    ) -> None:
        self.loop, self.rng = loop, loop.rng
        self.cools = cools
        """Whether scopes that many change stop being hot at any time; its runs are wide groups that share keys."""
        self.waits = waits
        """Whether steps wait for events and approvals, which come at times that are drawn."""
        self.clock = VirtualClock(loop)
        self.faults = Faults(self.rng)
        if cools:
            self.faults.rate["slow store"] = 0.3
        self.ids = SeededIds(self.rng)
        self.witness = Witness()
        self.store = store_class("memory:", self.clock, loop.observe)
        self.processes: list[Process] = []
        self.rates = self.rng.getrandbits(32)
        self.wide = self.rng.choice((1, 2, 16))
        """From how many members on the ends of those of a scope are posted where many change it."""
        self.pool: Any = None
        self.broken: BaseException | None = None
        self.count = 0

    def registry_for(self, process: Process) -> Any:
        return make_registry(self.rng, self.witness, self.faults, process.die, self.rates)

    def fail(self, error: BaseException) -> None:
        self.broken = self.broken or error

    def start(self) -> None:
        self.count += 1
        self.processes.append(Process(self, f"w{self.count}"))

    def died(self, process: Process) -> None:
        self.processes.remove(process)
        if self.faults.on:
            self.loop.call_later(self.rng.uniform(0.1, 5.0), self.start)

    async def play(self) -> int:
        """Faults on, then liveness; answers the number of runs."""
        for _ in range(3 if self.cools else self.rng.randint(1, 3)):
            self.start()
        app = Stemflow(
            registry=make_registry(self.rng, self.witness, self.faults, lambda: None, self.rates),
            worker=False, clock=self.clock, ids=self.ids, store=self.store,
        )  # fmt: skip
        self.library = app.library
        await app.__aenter__()  # not closed: the processes of this world share its store
        trees = WaitingRandom(self.rng.getrandbits(32)) if self.waits else self.rng
        if self.waits:
            self._disturb(app)
        runs, keyed = [], self.rng.choice(KEYED)
        crowded, contended = self.rng.random() < 0.4, self.rng.random() < 0.3
        for _ in range(self.rng.randint(4, 7) if crowded else self.rng.randint(1, 3)):
            await asyncio.sleep(self.rng.uniform(0, 0.4 if crowded else 2))
            if self.cools:
                tree = wide_tree(self.rng, app.registry)
            elif contended:
                tree = contended_tree(self.rng, app.registry)
            else:
                tree = random_tree(trees, app.registry, 1 if crowded else 3, keyed)
            try:
                runs.append(await self._submit(app, keyed_run(self.rng, tree) if self.rng.random() < 0.3 else tree))
            except DuplicateRun:
                continue
            for fault in ("cancelled run", "forced cancel"):
                if self.faults.strikes(fault):
                    self.loop.call_later(self.rng.uniform(0, 5), self._cancel, runs[-1], fault == "forced cancel")
        await self._until(runs, FAULTY_S)
        self.faults.stop()
        for process in list(self.processes):
            if self.rng.random() < 0.5:
                process.die()
        self.start()
        await self._until(runs, LIVENESS_S)
        for handle in runs:
            await self._judge(handle.id)
        for process in list(self.processes):
            process.die()
        await asyncio.sleep(0)
        return len(runs)

    def _disturb(self, app: Stemflow) -> None:
        """Let events come, and answers to approvals."""
        for number in range(self.rng.randint(2, 12)):
            at_s = self.rng.uniform(0, FAULTY_S)
            id = f"sent {number // 2}" if self.rng.random() < 0.3 else None
            self.loop.call_later(at_s, self._spawn, partial(app.send_event, EVENT_TYPE, {"n": number % 4}, id=id))
        for _ in range(self.rng.randint(2, 12)):
            self.loop.call_later(self.rng.uniform(0, FAULTY_S), self._spawn, self._answer, app)

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, Any]], *given: Any) -> None:
        async def guarded() -> None:
            try:
                await work(*given)
            except Exception as error:
                self.fail(error)

        self.loop.create_task(guarded())

    async def _answer(self, app: Stemflow) -> None:
        """Approve or reject one of the steps that wait for it; somebody else may have answered meanwhile."""
        for one in (await app.approvals())[:1]:
            with contextlib.suppress(NotWaiting):
                if self.rng.random() < 0.7:
                    await app.approve(one.run_id, one.step, by="ann")
                else:
                    await app.reject(one.run_id, one.step, by="ann")

    async def _submit(self, app: Stemflow, what: Signature[Any, Any] | Workflow) -> RunHandle[Any]:
        """Submit from one of the processes that work, where there is one; should it die of it, from another one."""
        run_id = self.ids.run_id()
        if self.processes and self.rng.random() < 0.5:
            process = self.rng.choice(self.processes)
            with contextlib.suppress(TimeoutError, StoreError):
                async with asyncio.timeout(10):
                    busy = await process.opened()
                    run_id = (await busy.submit(what, run_id=run_id)).id
                return await app.handle(run_id)
        return await app.submit(what, run_id=run_id)

    def _cancel(self, handle: RunHandle[Any], force: bool) -> None:
        self.loop.create_task(self._cancelled(handle, force))

    async def _cancelled(self, handle: RunHandle[Any], force: bool) -> None:
        """A forced cancel leaves nothing of its run open."""
        await handle.cancel(force=force)
        going_on = [node.path for node in await handle.records() if node.state not in FINAL]
        if force and going_on:
            self.fail(Violation(f"run {handle.id} goes on after a forced cancel: {going_on}"))

    async def _until(self, runs: Sequence[Any], seconds: float) -> None:
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            if self.broken is not None:
                raise self.broken
            await self._explain(runs)
            states = [(await handle.root()).state for handle in runs]
            if all(state in FINAL for state in states):
                return
            await asyncio.sleep(0.5)

    async def _explain(self, runs: Sequence[Any]) -> None:
        """Every open node of every run has a reason, and it is true."""
        for handle in runs:
            nodes = {node.path: node for node in await self.store.nodes(handle.id)}
            facts = await facts_of(self.store, self.library, nodes)
            broken = check_explained(facts, self.store.has_posts(handle.id))
            if broken:
                raise Violation(f"run {handle.id}: {'; '.join(broken)}")

    async def _judge(self, run: str) -> None:
        nodes = await self.store.nodes(run)
        root = next(node for node in nodes if not node.path)
        if root.state not in FINAL:
            stuck = [f"{n.path or 'root'}={n.state}" for n in nodes if n.state not in FINAL]
            raise Violation(f"run {run} did not end within {LIVENESS_S} s of virtual time: {', '.join(stuck)}")
        shapes = {node.plan: await self._shape(node.plan) for node in nodes}
        broken = check_run({node.key: node for node in nodes}, shapes, self.store.opened, self.store.ended)
        broken += self._dead_letters(nodes, shapes, await self.store.dead_letters(run))
        broken += self.store.leaked_claims()
        if broken:
            raise Violation("; ".join(broken))

    async def _shape(self, digest: str) -> Shape:
        plan = await self.store.plan(digest)
        assert plan is not None
        return Shape(plan)

    def _dead_letters(
        self, nodes: Sequence[Node], shapes: Mapping[str, Shape], letters: Sequence[Any]
    ) -> list[str]:
        """I17: each task that failed for good has one dead letter, and nothing else has."""
        dead = Counter(letter.path for letter in letters)
        failed_here = [n for n in nodes if n.tally is None and n.state == "failed" and n.alias is None]
        ran = [n for n in failed_here if isinstance(shapes[n.plan].nodes[n.node], LeafPlan)]
        failed = {n.path for n in ran if n.error is None or n.error.type not in NEVER_RAN}
        return [f"{path}: {dead[path]} dead letters" for path in failed | set(dead) if dead[path] != (path in failed)]


def simulate(seed: int, store_class: type[CheckedStore] = CheckedStore) -> Report:
    """One world from one seed; raises Violation with the seed in its message."""
    held: list[World] = []

    async def main(loop: VirtualLoop) -> int:
        # Most worlds have neither, so that those in which a planted bug is known to show stay as they are.
        world = World(loop, store_class, waits=seed % 4 == 3, cools=seed % 16 == 13)
        held.append(world)
        return await world.play()

    try:
        runs, digest = run(main, seed, horizon_s=3_600)
    except Exception as error:
        raise Violation(f"seed {seed}: {type(error).__name__}: {error}") from error
    return Report(seed, digest, runs, held[0].store.commits, held[0].store.posts, dict(held[0].faults.hit))


def campaign(seeds: Sequence[int]) -> tuple[int, Counter[str]]:
    """Many worlds; answers commits and how often each fault was hit."""
    hit: Counter[str] = Counter()
    commits = 0
    for seed in seeds:
        report = simulate(seed)
        hit.update(report.hit)
        commits += report.commits
    return commits, hit
