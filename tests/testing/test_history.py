"""The checker of histories finds what is planted in a history that is clean without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from stemflow import Stemflow, TaskContext, TaskRegistry
from stemflow.model.records import Node
from stemflow.runtime.clock import SystemClock
from stemflow.store.open import open_store
from stemflow.testing.history.checker import Clients, Said, Verdict, check
from stemflow.testing.history.witness import Sight, Witness

SAID = [Said("r1", "ok"), Said("r2", "info"), Said("r3", "fail")]
AFTER = {"b": ["a"]}


def sight(event: Any, run: str, node: str, at_ns: int, token: int = 1, attempt: int = 0, state: str = "") -> Sight:
    return Sight(event, run, node, attempt, token, 1, at_ns, state)


def node(run: str, path: str, state: Any = "succeeded", delivery: int = 1) -> Node:
    return Node(run=run, path=path, plan="p", node=0, state=state, delivery=delivery)


SIGHTS = [
    sight("begin", "r1", "a", 1),
    sight("end", "r1", "a", 2),
    sight("commit", "r1", "a", 3, state="succeeded"),
    sight("begin", "r1", "b", 4),
    sight("end", "r1", "b", 5),
    sight("commit", "r1", "b", 6, state="succeeded"),
    sight("begin", "r2", "a", 7),
    sight("end", "r2", "a", 8),
]
FINAL = {
    "r1": [node("r1", "", delivery=0), node("r1", "a"), node("r1", "b")],
    "r2": [node("r2", "", delivery=0), node("r2", "a")],
}


def judged(
    said: Sequence[Said] = SAID, sights: Sequence[Sight] = SIGHTS, final: dict[str, list[Node]] = FINAL
) -> Verdict:
    return check(said, sights, final, AFTER)


def test_a_clean_history_breaks_nothing() -> None:
    verdict = judged()
    assert verdict.fatal == {}
    assert (verdict.runs, verdict.doubled, verdict.recovered, verdict.refused) == (3, 0, 1, 0)


def test_an_accepted_run_that_is_not_there_is_lost() -> None:
    assert judged([*SAID, Said("r4", "ok")]).fatal == {"lost": ("r4",)}


def test_a_task_that_succeeded_and_never_came_to_its_end_is_lost() -> None:
    assert judged(sights=[s for s in SIGHTS if s.at_ns != 8]).fatal == {"lost": ("r2",)}


def test_a_run_that_has_not_ended_is_stuck() -> None:
    assert judged(final={**FINAL, "r2": [node("r2", "", "running")]}).fatal == {"stuck": ("r2",)}


@pytest.mark.parametrize("run", ["r3", "r9"])
def test_what_was_refused_or_never_asked_for_and_yet_ran_is_unexpected(run: str) -> None:
    assert judged(sights=[*SIGHTS, sight("begin", run, "a", 9)]).fatal == {"unexpected": (run,)}


def test_two_outcomes_of_one_task_are_a_double_commit() -> None:
    later = sight("commit", "r1", "a", 9, token=2, state="succeeded")
    assert judged(sights=[*SIGHTS, later]).fatal == {"double_commits": (("r1", "a"),)}


def test_an_outcome_that_was_overwritten_later_is_a_double_commit() -> None:
    final = {**FINAL, "r1": [FINAL["r1"][0], structs.replace(FINAL["r1"][1], delivery=3), FINAL["r1"][2]]}
    assert judged(final=final).fatal == {"double_commits": (("r1", "a"),)}


def test_two_handlers_under_one_token_are_a_double_lease() -> None:
    verdict = judged(sights=[*SIGHTS, sight("begin", "r1", "a", 9)])
    assert verdict.fatal == {"double_leases": (("r1", "a"),)}


def test_a_second_delivery_is_counted_and_allowed_and_its_end_is_refused() -> None:
    zombie = [sight("begin", "r2", "a", 1, token=0), sight("end", "r2", "a", 9, token=0)]
    verdict = judged(sights=[*SIGHTS, *zombie])
    assert verdict.fatal == {}
    assert (verdict.doubled, verdict.refused) == (1, 1)


def test_one_that_began_before_what_it_waits_for_had_ended_is_out_of_order() -> None:
    early = [structs.replace(s, at_ns=1) if (s.node, s.event) == ("b", "begin") else s for s in SIGHTS]
    assert judged(sights=early).fatal == {"out_of_order": (("r1", "b"),)}


async def test_handlers_engines_and_clients_write_a_history_that_is_judged(tmp_path: Path) -> None:
    # Given an engine whose handlers and store are witnessed
    witness, clients, registry = Witness(tmp_path / "witness"), Clients(), TaskRegistry()

    @registry.task("a")
    async def a(context: TaskContext) -> int:
        with witness.sees(context):
            return 1

    async with Stemflow("memory:", registry, store=witness.watching(open_store("memory:", SystemClock()))) as app:
        # When it runs what a client has submitted
        handle = await clients.submit("x", app.submit(a.s(), run_id="x"))
        assert handle is not None
        await handle.wait()

        # Then each saw it once, under one token
        sights = witness.sights()
        assert [(s.event, s.run, s.state) for s in sights] == [
            ("begin", "x", ""), ("end", "x", ""), ("commit", "x", "succeeded")
        ]  # fmt: skip
        assert len({s.token for s in sights}) == 1
        assert check(clients.said, sights, {"x": await handle.records()}).fatal == {}
    witness.close()
