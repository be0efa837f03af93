"""Cases of deliveries: doubled, late and lost ones, and what travels with them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from stemflow import Canvas, Stemflow
from stemflow.model import wire
from stemflow.model.effects import Decision
from stemflow.model.records import Node

if TYPE_CHECKING:
    from tests.cases.conftest import World


@pytest.mark.case("A22")
@pytest.mark.parametrize("first", ["old", "new"])
async def test_a_step_delivered_twice_leads_to_one_and_the_same_chord(by_hand: World, first: str) -> None:
    # Given a step before a chord whose lease was lost while it ran, so that a second worker runs it too
    world = by_hand
    ident = world.ident
    sig = ident.s(1) | Canvas.chord([ident.s(), ident.s()], world.tsum.s())
    handle = await world.app.submit(sig, run_id="once")
    (old,) = await world.lease()
    await world.lose(old)
    (new,) = await world.lease()
    assert old.node.key == new.node.key

    # When both report, in either order
    reports = {"old": (old, "the old one"), "new": (new, "the new one")}
    counted = {who: await world.report(*reports[who]) for who in sorted(reports, reverse=first == "old")}

    # Then only the report under the lease that holds counts, and there is one chord, under the one id it can have
    assert next(iter(counted)) == first
    assert counted == {"old": False, "new": True}
    assert await handle.value_of("[0]") == "the new one"
    paths = [node.path for node in await handle.records()]
    assert sorted(paths) == ["", "[0]", "[1]", "[1][0]", "[1][1]"]
    assert [lease.node.path for lease in await world.lease()] == ["[1][0]", "[1][1]"]


class LateAnswers:
    """A store whose answer to a commit comes only after `until()` has returned."""

    def __init__(self, store: Any, until: Any) -> None:
        self._store, self._until = store, until

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def exchange(self, request: Any, decisions: Any, want: Any) -> Any:
        answer = await self._store.exchange(request, decisions, want)
        await self._until()
        return answer


@pytest.mark.case("A36")
async def test_members_that_end_before_the_producer_knows_of_its_chord_still_count(world: World) -> None:
    """The counter of a chord is part of the commit that starts it, so it cannot be late; what can is the answer."""

    # Given a producer that is notified of its submit only when every member has ended
    async def members_ended() -> None:
        await world.until(header_is_final)

    async def header_is_final() -> bool:
        states = await world.states(await world.app.handle("late"))
        return [states.get(f"[{i}]") for i in range(2)] == ["succeeded"] * 2

    late = LateAnswers(world.app.store, members_ended)
    async with Stemflow("memory:", world.registry, worker=False, store=late) as producer:
        # When it submits, then the body has everything
        sig = Canvas.chord([world.add.si(1, 1), world.add.si(1, 1)], world.tsum.s())
        world.app.service.slots.wake()
        handle = await producer.submit(sig, run_id="late")
        assert (await world.outcome(handle)).value == 4


@pytest.mark.case("B13")
@pytest.mark.parametrize("seed", range(8))
async def test_members_run_more_than_once_count_once_with_their_first_result(by_hand: World, seed: int) -> None:
    # Given a chord of six members, each delivered one to three times, some after a lost lease, every time with
    # another result
    world, rng, width = by_hand, random.Random(seed), 6
    handle = await world.app.submit(Canvas.chord([world.ident.s(i) for i in range(width)], world.ident.s()))
    leases = {lease.node.path: lease for lease in await world.lease()}
    for path in rng.sample(sorted(leases), 2):
        zombie = leases.pop(path)
        await world.lose(zombie)
        leases.update({lease.node.path: lease for lease in await world.lease()})
        leases[f"{path} again"] = zombie
    deliveries = [(lease, f"{lease.node.delivery}.{k}") for lease in leases.values() for k in range(rng.randint(1, 3))]
    rng.shuffle(deliveries)

    # When they are reported in random order
    first: dict[str, str] = {}
    for lease, said in deliveries:
        holds = lease is leases.get(lease.node.path)
        counted = await world.report(lease, said)
        assert counted == (holds and lease.node.path not in first)
        if counted:
            first[lease.node.path] = said

        # Then the body is ready after the last distinct member, and not before
        states = await world.states(handle)
        assert states.get("then") == ("ready" if len(first) == width else None)

    # And it runs once, with the first result that was stored of each
    (body,) = await world.lease()
    assert [await world.report(body, "done") for _ in range(3)] == [True, False, False]
    assert await world.lease() == []
    assert (await world.outcome(handle)).value == "done"
    assert [await handle.value_of(f"[{i}]") for i in range(width)] == [first[f"[{i}]"] for i in range(width)]


@pytest.mark.case("B5")
async def test_what_travels_does_not_grow_with_the_length_of_a_chain(world: World) -> None:
    # Given chains of 1, 10 and 100 chords of 10
    written: list[Decision] = []
    committed = world.app.decider.committed

    def note(decision: Decision) -> None:
        written.append(decision)
        committed(decision)

    world.app.decider.committed = note

    async def largest(chords: int) -> tuple[int, int]:
        """Bytes of the largest leaf, which is what a lease carries, and of the largest scope but the root."""
        written.clear()
        chord = Canvas.chord([world.ident.si(1)] * 10, world.tsum.s())
        await world.run(Canvas.chain([world.ident.s(0), *[chord] * chords, world.ident.si(0)]))
        nodes = [put.record for decision in written for put in decision.puts if isinstance(put.record, Node)]
        leaves = max(len(wire.encode(node)) for node in nodes if node.tally is None)
        return leaves, max(len(wire.encode(node)) for node in nodes if node.tally is not None and node.path)

    # When they run, then what is written for a task or a chord is as large for 100 as for one, but for its path
    sizes = [await largest(chords) for chords in (1, 10, 100)]
    for leaf, chord in sizes[1:]:
        assert leaf - sizes[0][0] <= 10
        assert chord - sizes[0][1] <= 10
