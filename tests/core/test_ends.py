"""Ends that exploration does not reach or cannot tell apart: what a stopped task adds, reruns, expiry, long plans."""

from __future__ import annotations

import pytest
from msgspec import structs

from stemflow.core.shape import Shape
from stemflow.core.work import View, Work
from stemflow.model.facts import Due, Ended, Requested, Stop
from stemflow.model.policy import Options
from stemflow.model.records import Claim, Header, Key, Node
from tests.core.plans import FAIL, FINAL_FAIL, OK, OUTCOMES, Spec, build, chain, group, leaf, steps
from tests.core.world import World, world_of


def begun(spec: Spec) -> World:
    """A run of this plan, just asked for."""
    plan = build(spec, "plan")
    world = world_of(Header(run="run", plan="plan"), shapes={"plan": Shape(plan)})
    happen(world, Requested(world.headers["run"]))
    return world


def happen(world: World, *facts: Requested | Ended | Stop) -> None:
    for fact in facts:
        world.commit(world.decide(fact))


def node_of(world: World, path: str) -> Node:
    node = world.records["run", path]
    assert isinstance(node, Node)
    return node


def leased(world: World, path: str) -> Key:
    return world.take(node_of(world, path), lease=True).key


def states(world: World, run: str) -> dict[str, str]:
    nodes = [node for node in world.records.values() if isinstance(node, Node) and node.run == run]
    return {node.path: node.state for node in nodes}


def test_a_task_that_was_asked_to_stop_keeps_its_result_but_adds_no_members() -> None:
    # Given a running member of a group that is stopped alone
    world = begun(group(leaf("add"), leaf()))
    key = leased(world, "[0]")
    happen(world, Stop(key))

    # When it ends well and wants to add members
    happen(world, Ended(key, 1, OUTCOMES["add"][1]))

    # Then it has succeeded and the group is as large as it was
    assert states(world, "run") == {"": "running", "[0]": "succeeded", "[1]": "ready"}


def test_a_rerun_takes_over_what_succeeded_and_runs_the_rest() -> None:
    # Given a run whose second step failed
    world = begun(chain(leaf(), leaf("maybe"), leaf()))
    happen(world, Ended(leased(world, "[0]"), 1, OK))
    happen(world, Ended(leased(world, "[1]"), 1, FINAL_FAIL))
    assert states(world, "run") == {"": "failed", "[0]": "succeeded", "[1]": "failed"}

    # When it is run again, once as it is and once from its first step on
    again = Header(run="again", plan="plan", rerun_of="run")
    whole = structs.replace(again, run="whole", redo=("[0]",))
    world.headers = {header.run: header for header in (again, whole)}
    happen(world, Requested(again), Requested(whole))

    # Then only what was not kept is ready
    assert states(world, "again") == {"": "running", "[0]": "succeeded", "[1]": "ready"}
    assert states(world, "whole") == {"": "running", "[0]": "ready"}


def test_a_task_that_was_started_does_not_expire_while_it_waits_for_its_next_attempt() -> None:
    # Given a task that must be started within 5 ms
    world = begun(chain(leaf(options=Options(max_retries=1, expires_ms=5))))
    due_at_ms = node_of(world, "[0]").due_at_ms
    assert due_at_ms is not None

    # When it was started and failed, and its time comes
    happen(world, Ended(leased(world, "[0]"), 1, FAIL))
    decision = world.decide(Due(("run", "[0]"), due_at_ms))

    # Then it still waits for its next attempt
    assert decision.refused
    assert node_of(world, "[0]").state == "ready"


LONG = 2_000


@pytest.mark.parametrize("shape", ["chain", "steps"])
@pytest.mark.parametrize("end", ["fails", "is stopped"])
def test_what_will_never_run_costs_bits_and_no_records(shape: str, end: str) -> None:
    # Given a run of 2,000 steps one after the other
    after = {f"s{number}": (leaf(), f"s{number - 1}" if number else "") for number in range(LONG)}
    world = begun(steps(after) if shape == "steps" else chain(*[leaf()] * LONG))
    first = "s0" if shape == "steps" else "[0]"

    # When its first step fails for good, or it is stopped
    fact = Ended(leased(world, first), 1, FINAL_FAIL) if end == "fails" else Stop(("run", ""))
    decision = world.decide(fact)
    world.commit(decision)

    # Then one commit of two records ends it
    assert {put.key[1] for put in decision.puts} == {"", first}
    assert states(world, "run") == {"": "failed" if end == "fails" else "cancelled", first: node_of(world, first).state}
    tally = node_of(world, "").tally
    assert tally is not None and tally.complete
    assert (tally.upstream if end == "fails" else tally.cancelled).bit_count() >= LONG - 1


def test_a_claim_that_comes_and_goes_in_one_decision_must_not_exist() -> None:
    # Given a view, older than the store, in which nobody holds the key
    key = ("", "concurrency:b")
    w = Work(View({key: None}, {}, {}, {}), 0)
    # When one decision takes a place under it and gives it up
    w.set_shared(key[1], Claim(key=key[1], holders=(("r", "a"),)))
    w.set_shared(key[1], None)
    # Then it writes nothing there, but it is stale should somebody hold the key
    decision = w.decision()
    assert (decision.puts, decision.seen) == ((), ((key, 0, 0),))
