"""`decide` is a fold: deciding facts together leaves what deciding them one after the other leaves."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stemflow.model.effects import Decision
from stemflow.model.facts import Fact
from stemflow.model.records import Key
from tests.core.explored_cases import CASES
from tests.core.explorer import Explorer, Point, meaning, steps_from
from tests.core.world import World

Numbers = st.lists(st.integers(0, 1_000), max_size=20)


def walked(explorer: Explorer, choices: list[int]) -> Point:
    """Where these choices among what may happen lead."""
    point = explorer.case.start()
    for choice in choices:
        steps = list(steps_from(point, explorer.case))
        if not steps:
            break
        point = explorer.follow(point, steps[choice % len(steps)])
    return point


def contents(world: World) -> dict[Key, Any]:
    """All records but for their revisions."""
    return {key: (meaning(record), getattr(record, "delivery", 0)) for key, record in world.records.items()}


def effects(decisions: list[Decision]) -> list[list[Any]]:
    """The notifications in order, whichever decision caused them."""
    names = ("headers", "pages", "dead", "ended", "replies", "refused")
    told = [[one for decision in decisions for one in getattr(decision, name)] for name in names]
    return [*told, sorted({plan.digest for decision in decisions for plan in decision.plans})]


@settings(max_examples=400)
@given(st.sampled_from(CASES), Numbers, st.lists(st.integers(0, 1_000), min_size=2, max_size=5))
def test_facts_decided_together_or_one_by_one_leave_the_same(case: Any, path: list[int], picks: list[int]) -> None:
    # Given any state of a small plan, and facts about it of which later ones may be stale by then, or doubled
    point = walked(Explorer(case), path)
    possible = [step.fact for step in steps_from(point, case) if step.fact is not None]
    if not possible:
        return
    facts: list[Fact] = [possible[pick % len(possible)] for pick in picks]

    # When they are decided at once, with nothing read before, and one by one
    together = point.world.fork()
    at_once = together.decide(*facts, empty=True)
    together.commit(at_once)
    apart = point.world.fork()
    singly = []
    for fact in facts:
        singly.append(apart.decide(fact))
        apart.commit(singly[-1])

    # Then the same records are there, and the same was notified
    assert contents(together) == contents(apart)
    assert effects([at_once]) == effects(singly)


@settings(max_examples=100)
@given(st.sampled_from(CASES), Numbers)
def test_the_same_facts_on_the_same_records_decide_the_same(case: Any, path: list[int]) -> None:
    point = walked(Explorer(case), path)
    for step in steps_from(point, case):
        if step.fact is not None:
            before = contents(point.world)
            assert point.world.decide(step.fact) == point.world.decide(step.fact, empty=True)
            assert contents(point.world) == before
