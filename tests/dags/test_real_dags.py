"""Recorded executions of real workflows: order, schedule, failure and death of a worker, on graphs nobody here drew."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from stemflow import Stemflow, TaskResult
from stemflow.store.memory.store import MemoryStore
from stemflow.testing.simulation import virtual_loop as vloop
from tests.dags.dag import FILES, LARGEST, Dag, Witness, expected, graph_of, load, make_registry, read_record, shown
from tests.dags.death import POINTS, DagWorld

LEASE_MS = 30_000
RENEWED_EVERY_MS = 1_000
ALL_BUT_LARGEST = tuple(file for file in FILES if file != LARGEST)
BOUNDED = (
    *((file, 4) for file in ALL_BUT_LARGEST),
    *(pytest.param(file, slots, marks=pytest.mark.long) for file in ALL_BUT_LARGEST for slots in (2, 16)),
    pytest.param(LARGEST, 16, marks=pytest.mark.long),
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Played:
    """One run in virtual time, with `slots` handlers at once (None: as many as there are steps)."""

    def __init__(
        self, dag: Dag, slots: int | None = None, *, failing: str | None = None, seed: int | None = None
    ) -> None:
        self.witness = Witness()
        self.result: TaskResult[Any]
        self.makespan_ms = 0
        self.shown: dict[str, tuple[str, str | None]] = {}

        async def main(loop: vloop.VirtualLoop) -> None:
            clock = vloop.VirtualClock(loop)
            store = MemoryStore("memory:", clock)
            registry = make_registry(self.witness, () if failing is None else (failing,))
            app = Stemflow(
                registry=registry, clock=clock, ids=vloop.SeededIds(loop.rng), store=store,
                concurrency=slots or len(dag.steps),
            )  # fmt: skip
            async with app:
                began_ms = loop.elapsed_ms()
                handle = await app.submit(dag.workflow)
                self.result = await handle.wait()
                self.makespan_ms = loop.elapsed_ms() - began_ms
                self.shown = await shown(store, handle.id)

        horizon_s = 2 * dag.work_ms / 1_000 + 60
        vloop.run(main, seed or 0, horizon_s, shuffle=seed is not None)


# -- the schedule


@pytest.mark.parametrize("file", FILES)
def test_with_a_slot_for_each_step_a_run_takes_its_critical_path(file: str) -> None:
    dag = load(file)

    played = Played(dag)

    assert played.result.status == "succeeded"
    assert played.witness.times("start") == played.witness.times("end") == Counter(dag.steps)
    played.witness.check_order(dag.graph)
    assert played.shown == expected(dag)
    assert played.makespan_ms == dag.critical_path_ms


@pytest.mark.parametrize(("file", "slots"), BOUNDED)
def test_with_few_slots_a_run_keeps_within_grahams_bound(file: str, slots: int) -> None:
    """work/k + (1 - 1/k) * critical path (Graham, 1966), multiplied by k to stay in whole milliseconds."""
    dag = load(file)

    played = Played(dag, slots, seed=slots)

    assert played.result.status == "succeeded"
    assert played.witness.times("start") == played.witness.times("end") == Counter(dag.steps)
    played.witness.check_order(dag.graph)
    assert _most_at_once(played.witness) <= slots
    assert dag.critical_path_ms <= played.makespan_ms
    assert dag.work_ms <= slots * played.makespan_ms <= dag.work_ms + (slots - 1) * dag.critical_path_ms


@pytest.mark.parametrize("file", ALL_BUT_LARGEST)
def test_the_order_of_what_happens_at_one_instant_does_not_change_how_long_a_run_takes(file: str) -> None:
    dag = load(file)

    played = Played(dag, seed=1)

    played.witness.check_order(dag.graph)
    assert played.makespan_ms == dag.critical_path_ms


def _most_at_once(witness: Witness) -> int:
    running = most = 0
    for what, _, _ in witness.lines:
        running += 1 if what == "start" else -1
        most = max(most, running)
    return most


# -- failure


def _drawn_failures(file: str) -> list[tuple[str, str]]:
    """A few steps at random, and one that has the most steps after it."""
    graph, rng = graph_of(read_record(file)), random.Random(file)
    steps = sorted(graph)
    if file == LARGEST:
        return [(file, rng.choice([step for step in steps if len(nx.descendants(graph, step)) > 1]))]
    widest = max(steps, key=lambda step: len(nx.descendants(graph, step)))
    return [(file, step) for step in sorted({widest, *rng.sample(steps, 2)})]


@pytest.mark.parametrize(
    ("file", "failing"),
    [
        *(pair for file in ALL_BUT_LARGEST for pair in _drawn_failures(file)),
        *(pytest.param(*pair, marks=pytest.mark.long) for pair in _drawn_failures(LARGEST)),
    ],
)
def test_when_a_step_fails_exactly_those_after_it_do_not_run(file: str, failing: str) -> None:
    dag = load(file)

    played = Played(dag, 16, failing=failing)

    assert (played.result.status, played.result.failed_at) == ("failed", failing)
    assert played.witness.times("start") == Counter(dag.steps - dag.descendants(failing))
    assert played.witness.times("end") == Counter(dag.steps - dag.descendants(failing) - {failing})
    played.witness.check_order(dag.graph)
    assert played.shown == expected(dag, failing)


# -- death of a worker


@pytest.mark.parametrize("fails", [False, True], ids=["all succeed", "one fails"])
@pytest.mark.parametrize("file", ALL_BUT_LARGEST)
def test_when_a_worker_is_killed_only_what_it_had_not_settled_runs_again(file: str, fails: bool) -> None:
    turn = ALL_BUT_LARGEST.index(file) + fails

    _kill_and_judge(load(file), fails, POINTS[turn % len(POINTS)], seed=turn)


@pytest.mark.long
def test_a_killed_worker_of_the_largest_graph_is_survived() -> None:
    assert _kill_and_judge(load(LARGEST), False, "crash in handler", seed=8, slots=64) > 1


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("file", ALL_BUT_LARGEST)
def test_a_worker_may_be_killed_at_any_point(file: str, point: str) -> None:
    again = sum(_kill_and_judge(load(file), seed % 2 == 1, point, seed) for seed in range(100, 110))

    assert again or point == "crash after exchange"


def _kill_and_judge(dag: Dag, fails: bool, point: str, seed: int, slots: int = 8) -> int:
    """A run in which one of one or two workers of `slots` is killed at `point`; how many steps had to run again."""
    print(f"seed {seed}, {point}")
    failing = random.Random(seed).choice(sorted(dag.steps)) if fails else None
    runs = dag.steps if failing is None else dag.steps - dag.descendants(failing)
    witness = Witness()

    async def main(loop: vloop.VirtualLoop) -> DagWorld:
        told_to_fail = () if failing is None else (failing,)
        world = DagWorld(loop, witness, told_to_fail, slots, point, loop.rng.randint(1, len(runs)))
        for _ in range(loop.rng.randint(1, 2)):
            world.start()
        registry = make_registry(witness)
        async with Stemflow(
            registry=registry, worker=False, clock=world.clock, ids=world.ids, store=world.store
        ) as app:
            handle = await app.submit(dag.workflow)
            result = await handle.wait(timeout=2 * dag.work_ms / 1_000 + 120)
            assert world.broken is None, world.broken
            assert result.status == ("succeeded" if failing is None else "failed")
            assert await shown(world.store, handle.id) == expected(dag, failing)
            await world.end()
        return world

    world, _ = vloop.run(main, seed, horizon_s=1_000_000)

    witness.check_order(dag.graph)
    return _judge_death(world, runs)


def _judge_death(world: DagWorld, runs: frozenset[str]) -> int:
    assert world.died_at_ms is not None
    before, after = world.told.lines[: world.lines_before_death], world.told.lines[world.lines_before_death :]
    started_before = Counter(step for what, step, _ in before if what == "start")
    started_after = Counter(step for what, step, _ in after if what == "start")
    assert {step: world.store.settled[step] for step in runs} == dict.fromkeys(runs, 1)
    assert not started_after.keys() & world.settled_before_death
    assert started_before.keys() | started_after.keys() == runs
    assert set(started_before.values()) | set(started_after.values()) == {1}
    for what, step, at_ms in after:
        if what == "start" and step in started_before:
            assert at_ms >= world.died_at_ms + LEASE_MS - RENEWED_EVERY_MS
    return len(started_before.keys() & started_after.keys())


# -- on disk, in real time


@pytest.mark.parametrize("file", ["bwa-chameleon-small-001", "rnaseq-dirt02-001"])
async def test_a_graph_runs_in_order_on_disk(file: str, tmp_path: Path) -> None:
    record = read_record(file)
    dag = Dag({**record, "tasks": [{**task, "runtime_s": 0} for task in record["tasks"]]})
    witness = Witness()

    async with Stemflow(f"sqlite:{tmp_path / 'dag.db'}", make_registry(witness)) as app:
        handle = await app.submit(dag.workflow)
        result = await handle.wait(timeout=30)
        states = await shown(app.store, handle.id)

    assert result.status == "succeeded"
    assert witness.times("start") == witness.times("end") == Counter(dag.steps)
    witness.check_order(dag.graph)
    assert states == expected(dag)
