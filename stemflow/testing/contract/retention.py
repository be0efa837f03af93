"""Promises about retention: dead letters, ended runs, plans, windows."""

from __future__ import annotations

from stemflow.model.effects import DeadLetter, Decision, Pages, RunEnd
from stemflow.model.plan import LeafPlan, Plan
from stemflow.model.rates import Rate
from stemflow.model.records import SUCCEEDED, Claim, Header, StoredEvent, Topic
from stemflow.store.base import DeadLetterFilter, ExpiredCounts
from stemflow.testing.contract.world import RUN, Promises, User, begun, change, create, leaf, paths, scope
from stemflow.testing.simulation.virtual_loop import EPOCH_MS

DAY_MS = 86_400_000


def letter(run: str, path: str = "a", **fields: object) -> DeadLetter:
    return DeadLetter(**{"run": run, "path": path, "task": "t", "reason": "poison", "at_ms": EPOCH_MS, **fields})  # type: ignore[arg-type]


def plan(digest: str) -> Plan:
    return Plan(nodes=(LeafPlan(task="t"),), digest=digest)


async def end(user: User, run: str, keep_ms: int) -> None:
    """End the root of `run`."""
    root = await user.node("", run)
    assert await user.commit(change(root, state=SUCCEEDED), ended=(RunEnd(run, keep_ms),))


async def prune(user: User) -> int:
    """Prune in small steps until nothing is left to prune; returns how many records were deleted."""
    gone = 0
    while step := await user.store.prune(2):
        gone += step
    return gone


class KeepPromises(Promises):
    """Dead letters, and reuse of run ids."""

    async def test_dead_letters_are_listed_newest_first_and_chosen_by_what_they_say(self) -> None:
        async with self.world() as w:
            one = letter("x")
            two = letter("y", queue="slow", task="other", at_ms=EPOCH_MS + 1)
            three = letter("x", "b", reason="lost", at_ms=EPOCH_MS + 1)
            for number, each in enumerate((one, two, three)):
                await w.one.commit(create(leaf(f"[{number}]")), dead=(each,))
            assert await w.two.store.dead_letters() == [three, two, one]
            assert await w.two.store.dead_letters("x") == [three, one]
            assert await w.two.store.dead_letters("x", DeadLetterFilter(reason="poison")) == [one]
            for which, expected in (
                (DeadLetterFilter(limit=2), [three, two]),
                (DeadLetterFilter(queue="slow"), [two]),
                (DeadLetterFilter(task="t"), [three, one]),
                (DeadLetterFilter(task="t", limit=1), [three]),
                (DeadLetterFilter(reason="poison"), [two, one]),
                (DeadLetterFilter(since_ms=EPOCH_MS + 1), [three, two]),
            ):
                assert await w.two.store.dead_letters(None, which) == expected

    async def test_a_task_has_one_dead_letter(self) -> None:
        async with self.world() as w:
            await w.one.exchange(begun(RUN, dead=(letter(RUN),)))
            await w.two.commit(dead=(letter(RUN, reason="lost"),))
            assert await w.one.store.dead_letters() == [letter(RUN)]

    async def test_dead_letters_are_taken_away_in_the_commit_that_says_so(self) -> None:
        async with self.world() as w:
            await w.one.exchange(begun(RUN, leaf("x"), dead=(letter(RUN), letter(RUN, "b"), letter("s"))))
            stale = change(leaf("x", rev=9), priority=1)
            assert not await w.two.commit(stale, purged=((RUN, "b"),))
            assert await w.two.commit(purged=((RUN, "a"), (RUN, "none")))
            assert await w.one.store.dead_letters() == [letter("s"), letter(RUN, "b")]

    async def test_a_dead_letter_is_gone_when_its_time_is_over(self) -> None:
        async with self.world() as w:
            await w.one.exchange(begun(RUN, dead=(letter(RUN, keep_ms=1_000),)))
            w.clock.advance(999)
            assert await w.two.store.dead_letters() == [letter(RUN, keep_ms=1_000)]
            w.clock.advance(1)
            assert await w.two.store.dead_letters() == []

    async def test_letters_that_are_past_their_time_are_counted_and_pruned(self) -> None:
        async with self.world() as w:
            await w.one.exchange(begun(RUN, dead=(letter(RUN, keep_ms=1_000), letter("s", keep_ms=5_000))))
            w.clock.advance(999)
            assert (await w.two.store.count_expired()).dead_letters == 0
            w.clock.advance(1)
            assert await w.two.store.count_expired() == ExpiredCounts(runs=0, dead_letters=1, others=0)
            assert await prune(w.two) == 1
            assert await w.two.store.count_expired() == ExpiredCounts(runs=0, dead_letters=0, others=0)
            assert await w.two.store.dead_letters() == [letter("s", keep_ms=5_000)]

    async def test_a_run_id_that_is_used_again_starts_a_new_run(self) -> None:
        async with self.world() as w:
            old = begun(RUN, leaf("a"), plans=(plan("p"),), pages=(Pages((RUN, "m"), (b"[1]",)),), dead=(letter(RUN),))
            await w.one.exchange(old)
            (lease,) = await w.one.lease()
            root = await w.one.node("")
            again = Decision(
                puts=(create(scope(base=90, rev=91, delivery=90)), create(leaf("b", base=90, rev=91, delivery=90))),
                headers=(Header(run=RUN, plan="p", name="new", base=90),),
                plans=(plan("p"),),
                dropped=(RUN,),
                seen=((root.key, root.rev, root.delivery),),
            )
            assert (await w.two.exchange(again)).committed == (True,)
            assert (await w.two.exchange(again)).committed == (False,)
            assert [(node.path, node.delivery) for node in await w.one.store.nodes(RUN)] == [("", 90), ("b", 90)]
            header = await w.one.store.header(RUN)
            assert header is not None and header.name == "new"
            assert await w.one.store.page((RUN, "m"), 0) is None
            assert await w.one.store.dead_letters() == []
            assert not await w.one.commit(change(lease.node, state=SUCCEEDED))
            assert paths(await w.two.lease()) == ["b"]


class PrunePromises(Promises):
    """For stores that delete expired data by their own clock: expired data is deleted, in small steps; the rest
    stays."""

    async def test_a_run_is_pruned_whole_once_its_time_is_over_and_others_stay(self) -> None:
        async with self.world() as w:
            for run in (RUN, "s", "live"):
                nodes = [leaf(f"[{n}]", run, state=SUCCEEDED) for n in range(5)]
                await w.one.exchange(begun(run, *nodes, pages=(Pages((run, "m"), (b"[1]",) * 3),)))
            await end(w.one, RUN, 1_000)
            await end(w.one, "s", 1_001)
            w.clock.advance(999)
            await prune(w.two)
            assert len(await w.two.store.nodes(RUN)) == 6
            w.clock.advance(1)
            await prune(w.two)
            assert await w.one.store.nodes(RUN) == []
            assert await w.one.store.header(RUN) is None
            assert await w.one.record((RUN, "")) is None
            assert [info.header.run for info in await w.one.store.runs(9)] == ["live", "s"]
            for run in ("s", "live"):
                assert len(await w.one.store.nodes(run)) == 6
                assert await w.one.store.page((run, "m"), 2) == b"[1]"
            assert await w.one.commit(create(scope(run=RUN)), headers=(Header(run=RUN, plan="p"),))
            assert await w.one.store.page((RUN, "m"), 0) is None

    async def test_a_run_that_has_not_ended_is_never_pruned(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            w.clock.advance(400 * DAY_MS)
            await prune(w.one)
            assert len(await w.two.store.nodes(RUN)) == 2

    async def test_a_run_is_kept_as_long_as_its_dead_letters(self) -> None:
        async with self.world() as w:
            await w.one.exchange(begun(RUN, dead=(letter(RUN, keep_ms=5_000),)))
            await end(w.one, RUN, 1_000)
            w.clock.advance(4_999)
            await prune(w.two)
            assert await w.two.store.header(RUN) is not None
            w.clock.advance(1)
            await prune(w.two)
            assert await w.two.store.header(RUN) is None

    async def test_a_plan_is_kept_as_long_as_a_run_uses_it(self) -> None:
        async with self.world() as w:
            await w.one.exchange(begun(RUN, plans=(plan("p"), plan("f")), fragments=((RUN, "f"),)))
            await w.one.exchange(begun("s", plans=(plan("p"),)))
            await end(w.one, RUN, 0)
            await prune(w.two)
            assert (await w.two.store.plan("p"), await w.two.store.plan("f")) == (plan("p"), None)
            await end(w.one, "s", 0)
            await prune(w.two)
            assert await w.two.store.plan("p") is None
            await w.one.exchange(begun("t", plans=(plan("p"),)))
            assert await w.two.store.plan("p") == plan("p")

    async def test_a_claim_is_pruned_when_its_window_is_over(self) -> None:
        async with self.world() as w:
            now_ms = w.clock.now_ms()
            window = Claim(key="window", holders=((RUN, "a"),), rev=1, finished=True, until_ms=now_ms + 10)
            held = Claim(key="held", holders=((RUN, "b"),), rev=1, until_ms=now_ms + 10)
            await w.one.commit(create(window), create(held))
            w.clock.advance(9)
            await prune(w.two)
            assert await w.two.store.read([("", "window"), ("", "held")]) == [window, held]
            w.clock.advance(1)
            await prune(w.two)
            assert await w.two.store.read([("", "window"), ("", "held")]) == [None, held]
            again = Claim(key="window", holders=(("s", "a"),), rev=1)
            assert await w.one.commit(create(again))
            await prune(w.two)
            assert await w.two.record(("", "window")) == again

    async def test_an_event_is_pruned_when_it_is_kept_no_longer_and_a_topic_when_nobody_waits(self) -> None:
        async with self.world() as w:
            until_ms = w.clock.now_ms() + 10
            event = StoredEvent(key="event:t 1", number=1, at_ms=1, until_ms=until_ms, body=b"{}", rev=1)
            idle = Topic(key="topic:t", last=1, until_ms=until_ms, rev=1)
            awaited = Topic(key="topic:u", last=1, waiters=((RUN, "a"),), until_ms=until_ms, rev=1)
            keys = [("", one.key) for one in (event, idle, awaited)]
            await w.one.commit(create(event), create(idle), create(awaited))
            w.clock.advance(9)
            await prune(w.two)
            assert await w.two.store.read(keys) == [event, idle, awaited]
            w.clock.advance(1)
            await prune(w.two)
            assert await w.two.store.read(keys) == [None, None, awaited]

    async def test_starts_are_forgotten_once_no_limit_looks_back_to_them(self) -> None:
        async with self.world() as w:
            short, long = Rate(1, 100, "k"), Rate(1, 1_000, "k")
            for instant, path, limit in ((0, "a", long), (1_000, "b", short)):
                w.clock.at_ms = EPOCH_MS + instant
                await w.one.begin(leaf("a", path, limits=(limit,)), run=path)
                assert len(await w.one.lease()) == 1
            await w.one.begin(leaf("a", limits=(long,)))
            w.clock.at_ms = EPOCH_MS + 1_999
            assert await prune(w.two) == 0
            assert await w.one.lease() == ()
            w.clock.at_ms = EPOCH_MS + 2_000
            assert await prune(w.two) == 1
            assert paths(await w.one.lease()) == ["a"]

    async def test_what_is_past_its_time_is_counted_before_it_is_deleted(self) -> None:
        async with self.world() as w:
            now_ms = w.clock.now_ms()
            window = Claim(key="window", holders=((RUN, "a"),), rev=1, finished=True, until_ms=now_ms + 1_000)
            await w.one.exchange(begun(RUN, dead=(letter(RUN, keep_ms=1_000),)))
            await w.one.exchange(begun("live", dead=(letter("live", keep_ms=2_000),)))
            await w.one.commit(create(window))
            await end(w.one, RUN, 0)
            w.clock.advance(999)
            assert await w.two.store.count_expired() == ExpiredCounts(runs=0, dead_letters=0, others=0)
            w.clock.advance(1)
            assert await w.two.store.count_expired() == ExpiredCounts(runs=1, dead_letters=1, others=1)
            await prune(w.two)
            assert await w.two.store.count_expired() == ExpiredCounts(runs=0, dead_letters=0, others=0)

    async def test_pruning_goes_in_small_steps(self) -> None:
        async with self.world() as w:
            await w.one.begin(*[leaf(f"[{n}]", state=SUCCEEDED) for n in range(20)])
            await end(w.one, RUN, 0)
            steps = [await w.two.store.prune(8) for _ in range(4)]
            assert (steps, sum(steps)) == ([8, 8, 5, 0], 21)

    async def test_the_end_of_a_run_is_notified_after_others_were_pruned(self) -> None:
        async with self.world() as w:
            for run in ("x", "y"):
                await w.one.begin(run=run)
                await end(w.one, run, 0)
            await w.two.store.wait_for_change(0, 0)
            w.clock.advance(10)
            await prune(w.one)
            await w.one.begin()
            watched = w.two.store.watch(RUN)
            await end(w.one, RUN, 0)
            await w.two.store.wait_for_change(0, 100)
            assert watched.done()
