"""Promises about committing and reading."""

from __future__ import annotations

import asyncio

from msgspec import structs

from stemflow.model.effects import DeadLetter, Decision, Pages, Put, RunEnd
from stemflow.model.facts import Ended, Ok
from stemflow.model.plan import LeafPlan, Plan
from stemflow.model.records import Claim, Header, Node, StoredEvent, Tally, Topic
from stemflow.store.base import Request, Store, StoreError
from stemflow.testing.contract.world import (
    RUN,
    Promises,
    begun,
    cancel,
    change,
    create,
    leaf,
    paths,
    scope,
    succeed,
)
from stemflow.testing.simulation.virtual_loop import EPOCH_MS


class CommitPromises(Promises):
    """A decision is committed completely or not at all, and once."""

    async def test_a_decision_is_committed_whole(self) -> None:
        async with self.world() as w:
            letter, plan = DeadLetter(RUN, "a", "t", "poison", EPOCH_MS), Plan(nodes=(LeafPlan(task="t"),), digest="p")
            pages = Pages((RUN, "m"), (b"[1]", b"[2]"))
            await w.one.exchange(begun(RUN, leaf("a"), plans=(plan,), pages=(pages,), dead=(letter,)))
            assert await w.two.node("a") == leaf("a")
            assert await w.two.store.plan("p") == plan
            assert await w.two.store.header(RUN) == Header(run=RUN, plan="p")
            assert [await w.two.store.page((RUN, "m"), number) for number in (0, 1, 2)] == [b"[1]", b"[2]", None]
            assert await w.two.store.dead_letters() == [letter]

    async def test_similar_runs_are_created_by_one_decision(self) -> None:
        async with self.world() as w:
            a, b, c = _in_one_partition(w.one.store)
            root = leaf("", a, node=0, due_at_ms=EPOCH_MS + 60_000)
            big = Header(run=c, plan="p", name="n", inputs=b"[%s]" % (b"1," * 900), headers={"tenant": "x"})
            first, also = Header(run=a, plan="p"), (Header(run=b, plan="p", inputs=b'{"args":[1],"kwargs":{}}'), big)
            made = Decision(puts=(create(root),), headers=(first,), also=also)
            assert (await w.one.exchange(made)).committed == (True,)
            # Repeating the request creates them once
            assert (await w.one.repeat(made)).committed == (True,)
            assert [info.header.run for info in await w.two.store.runs(9)] == [c, b, a]
            assert [await w.two.store.header(one.run) for one in also] == list(also)
            assert await w.two.store.nodes(c) == [structs.replace(root, run=c)]
            leases = await w.two.lease()
            assert [(one.node.run, one.header) for one in leases] == [(a, first), (b, also[0]), (c, also[1])]

    async def test_no_similar_run_is_created_if_one_of_them_exists(self) -> None:
        async with self.world() as w:
            a, b, c = _in_one_partition(w.one.store)
            await w.one.begin(run=b)
            also = (Header(run=c, plan="p"), Header(run=b, plan="p"))
            made = Decision(puts=(create(leaf("", a, node=0)),), headers=(Header(run=a, plan="p"),), also=also)
            assert (await w.one.exchange(made)).committed == (False,)
            assert [info.header.run for info in await w.two.store.runs(9)] == [b]
            assert await w.two.store.read([(a, ""), (c, "")]) == [None, None]
            assert await w.two.lease() == ()

    async def test_the_end_of_each_similar_run_is_notified(self) -> None:
        async with self.world() as w:
            runs = _in_one_partition(w.one.store)
            first, *also = [Header(run=run, plan="p", reply_to=w.one.store.address) for run in runs]
            root = leaf("", runs[0], node=0)
            await w.one.exchange(Decision(puts=(create(root),), headers=(first,), also=tuple(also)))
            watched = [w.one.store.watch(run) for run in runs]
            for lease in await w.two.lease():
                assert await w.two.commit(succeed(lease), ended=(RunEnd(lease.node.run, 60_000),))
            await asyncio.wait_for(asyncio.gather(*watched), 5)

    async def test_nothing_of_a_stale_decision_is_written(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            a, b = await w.one.node("a"), await w.one.node("b")
            await w.two.commit(cancel(b))
            watched = w.one.store.watch(RUN)
            assert not await w.one.commit(
                cancel(a),
                create(leaf("new")),
                create(Claim(key="k", holders=((RUN, "a"),), rev=1)),
                cancel(b),
                headers=(Header(run="other", plan="p"),),
                plans=(Plan(nodes=(), digest="q"),),
                pages=(Pages((RUN, "m"), (b"[]",)),),
                dead=(DeadLetter(RUN, "a", "t", "poison", 5),),
                ended=(RunEnd(RUN, 1_000),),
            )
            assert await w.two.store.read([(RUN, "a"), (RUN, "new"), ("", "k")]) == [leaf("a"), None, None]
            assert await w.two.store.header("other") is None
            assert await w.two.store.plan("q") is None
            assert await w.two.store.page((RUN, "m"), 0) is None
            assert await w.two.store.dead_letters() == []
            assert not watched.done()

    async def test_a_guard_of_zero_means_absent(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            assert not await w.two.commit(create(leaf("a", priority=5)))
            assert (await w.one.node("a")).priority == 0

    async def test_a_record_that_does_not_exist_has_no_revision(self) -> None:
        async with self.world() as w:
            assert not await w.one.commit(cancel(leaf("a")))
            assert await w.one.record((RUN, "a")) is None

    async def test_a_revision_that_was_overtaken_is_stale(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            read = await w.one.node("a")
            assert await w.two.commit(change(read, priority=3))
            assert not await w.one.commit(change(read, priority=4))
            assert (await w.one.node("a")).priority == 3

    async def test_a_token_that_was_overtaken_by_a_lease_is_stale(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            read = await w.one.node("a")
            (lease,) = await w.two.lease()
            assert not await w.one.commit(cancel(read))
            assert await w.two.commit(succeed(lease))

    async def test_a_decision_that_rests_on_a_stale_one_of_its_exchange_is_stale_though_its_guards_fit(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            a, b, root = await w.one.node("a"), await w.one.node("b"), await w.one.node("")
            first = Decision(puts=(cancel(a), change(root, priority=1)))
            next_one = scope(priority=2, rev=root.rev + 2)
            second = Decision(puts=(Put(root.key, root.rev + 1, root.delivery, next_one),), after=(0,))
            third = Decision(puts=(cancel(b),), after=(1,))
            # Somebody else writes the scope meanwhile: its revision is the one that the second decision expects
            assert await w.two.commit(change(root, priority=7))
            answer = await w.one.exchange(first, second, third, Decision(puts=(create(leaf("c")),)))
            assert answer.committed == (False, False, False, True)
            assert dict(answer.current)[b.key] == b
            assert (await w.one.node("")).priority == 7
            # Repeated, the answer is the same; made again in the same way, all are committed
            again = await w.one.repeat(first, second, third, Decision(puts=(create(leaf("c")),)))
            assert again.committed == answer.committed
            root = await w.one.node("")
            first = Decision(puts=(cancel(a), change(root, priority=1)))
            next_one = scope(priority=2, rev=root.rev + 2)
            second = Decision(puts=(Put(root.key, root.rev + 1, root.delivery, next_one),), after=(0,))
            assert (await w.one.exchange(first, second, third)).committed == (True, True, True)
            assert (await w.two.node("")).priority == 2

    async def test_a_refusal_that_rests_on_what_was_read_before_a_lease_is_stale(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            read = await w.one.node("a")
            (lease,) = await w.two.lease()
            refused = (Ended(lease.node.key, lease.node.delivery, Ok()),)
            old = Decision(seen=((read.key, read.rev, read.delivery),), refused=refused)
            now = Decision(seen=((read.key, lease.node.rev, lease.node.delivery),), refused=refused)
            answer = await w.one.exchange(old, now)
            assert answer.committed == (False, True)
            assert answer.current == ((read.key, await w.two.node("a")),)

    async def test_a_refusal_that_rests_on_what_was_changed_is_stale(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            read = await w.one.node("a")
            await w.two.commit(create(Claim(key="k", holders=((RUN, "a"),), rev=4)))
            await w.two.commit(change(read, priority=3))
            late = (Ended(read.key, 9, Ok()),)
            answer = await w.one.exchange(
                Decision(seen=((read.key, read.rev, read.delivery),), refused=late),
                Decision(seen=((("", "k"), 0, 0),), refused=late),
                Decision(seen=(((RUN, "none"), 0, 0),), refused=late),
                Decision(seen=((("", "k"), 4, 0),), refused=late),
            )
            assert answer.committed == (False, False, True, True)

    async def test_a_stale_decision_does_not_fail_its_neighbours(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            a, b = await w.one.node("a"), await w.one.node("b")
            stale = change(a, rev=9, priority=1)
            await w.two.commit(change(a, priority=7))
            answer = await w.one.exchange(Decision(puts=(stale,)), Decision(puts=(change(b, priority=1),)))
            assert answer.committed == (False, True)
            assert ((await w.one.node("a")).priority, (await w.one.node("b")).priority) == (7, 1)

    async def test_what_made_a_decision_stale_comes_with_the_answer(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            old, b = await w.one.node("a"), await w.one.node("b")
            await w.two.commit(change(old, priority=3))
            claim = Claim(key="k", holders=((RUN, "a"),), rev=4)
            await w.two.commit(create(claim))
            puts = (change(old, priority=4), create(leaf("none")))
            stale = Decision(puts=puts, seen=((b.key, 1, 0), (("", "k"), 9, 0)))
            answer = await w.one.exchange(stale, Decision(puts=(create(leaf("c")),)))
            assert answer.committed == (False, True)
            keys = ((RUN, "a"), (RUN, "none"), (RUN, "b"), ("", "k"))
            assert answer.current == tuple(zip(keys, await w.two.store.read(keys), strict=True))

    async def test_a_later_decision_sees_what_an_earlier_one_wrote(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            first = change(leaf("a"), priority=1)
            assert isinstance(first.record, Node)
            second = change(first.record, priority=2)
            answer = await w.one.exchange(Decision(puts=(first,)), Decision(puts=(second,)), Decision(puts=(first,)))
            assert answer.committed == (True, True, False)
            assert (await w.two.node("a")).priority == 2

    async def test_a_claim_is_guarded_by_its_revision_and_can_be_dropped(self) -> None:
        async with self.world() as w:
            first = Claim(key="k", holders=((RUN, "a"),), rev=1)
            second = Claim(key="k", holders=((RUN, "b"),), rev=2, waiters=((RUN, "c"),), until_ms=7, finished=True)
            put = create(first)
            assert await w.one.commit(put)
            assert not await w.two.commit(put)
            assert await w.two.commit(Put(put.key, 1, 0, second))
            assert await w.one.record(("", "k")) == second
            assert not await w.one.commit(Put(put.key, 1, 0, None))
            assert await w.one.commit(Put(put.key, 2, 0, None))
            assert await w.two.record(("", "k")) is None

    async def test_the_records_of_events_are_guarded_by_their_revision_and_can_be_dropped(self) -> None:
        async with self.world() as w:
            until_ms = w.clock.now_ms() + 60_000
            topic = Topic(key="topic:t", last=7, first=7, waiters=((RUN, "a"), (RUN, "b")), until_ms=until_ms, rev=1)
            event = StoredEvent(key="event:t 7", number=7, at_ms=5, until_ms=until_ms, body=b"\x81{}", rev=3)
            assert await w.one.commit(create(topic), create(event))
            assert not await w.two.commit(create(topic))
            assert await w.two.store.read([("", "topic:t"), ("", "event:t 7")]) == [topic, event]
            later = Topic(key="topic:t", last=8, first=7, until_ms=until_ms, rev=2)
            assert await w.two.commit(Put(("", "topic:t"), 1, 0, later))
            assert await w.one.record(("", "topic:t")) == later
            assert not await w.one.commit(Put(("", "topic:t"), 1, 0, None))
            assert await w.one.commit(Put(("", "topic:t"), 2, 0, None))
            assert await w.two.record(("", "topic:t")) is None

    async def test_a_repeated_request_changes_nothing_and_gets_its_first_answer(self) -> None:
        async with self.world() as w:
            decisions = (begun(RUN, leaf("a"), leaf("b")), Decision(puts=(cancel(leaf("none")),)))
            want = w.one.want(1)
            first = await w.one.exchange(*decisions, want=want)
            assert await w.one.repeat(*decisions, want=want) == first
            assert (first.committed, paths(first.leases)) == ((True, False), ["a"])
            assert (await w.one.node("b")).delivery == 0

    async def test_a_repeated_request_gets_only_the_leases_that_still_hold(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a", lease_ms=1_000), leaf("b", lease_ms=9_000), leaf("c", lease_ms=9_000))
            leases = await w.one.lease()
            w.clock.advance(1_000)
            assert paths(await w.two.store.take_expired("two", 10)) == ["a"]
            assert await w.two.commit(succeed(leases[2]))
            assert paths((await w.one.repeat(want=w.one.want())).leases) == ["b"]

    async def test_a_request_that_changed_nothing_is_carried_out_when_it_is_repeated(self) -> None:
        async with self.world() as w:
            assert (await w.one.ask()).leases == ()
            await w.two.begin(leaf("a"))
            assert paths((await w.one.repeat(want=w.one.want())).leases) == ["a"]

    async def test_a_request_that_was_overtaken_on_its_channel_is_refused(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            await w.one.commit(create(leaf("b")))
            try:
                await w.one.store.exchange(Request("one", 1), [Decision(puts=(create(leaf("c")),))], None)
            except StoreError as error:
                assert "channel one" in str(error)
            else:
                raise AssertionError("an overtaken request was carried out")
            assert await w.one.record((RUN, "c")) is None

    async def test_channels_do_not_share_their_memory_of_requests(self) -> None:
        async with self.world() as w:
            assert await w.one.commit(create(leaf("a")))
            assert await w.two.commit(create(leaf("b")))
            assert None not in await w.one.store.read([(RUN, "a"), (RUN, "b")])

    async def test_a_record_keeps_every_field(self) -> None:
        async with self.world() as w:
            tally = Tally(70)
            tally.opened = (1 << 70) - 1
            tally.tick(69, "ok")
            tally.tick(3, "failed")
            rich = scope("deep.scope", tally=tally, extra=(("d", 3),), alias=(RUN, "x"))
            await w.one.commit(create(rich))
            assert await w.two.record((RUN, "deep.scope")) == rich

    async def test_records_are_read_in_the_order_asked_for(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"), leaf("b"))
            found = await w.two.store.read([(RUN, "b"), (RUN, "none"), ("", "k"), (RUN, "a")])
            assert found == [leaf("b"), None, None, leaf("a")]

    async def test_the_nodes_of_a_run_are_listed_in_order_of_creation(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("b"), leaf("a"))
            await w.one.begin(leaf("x", "other"), run="other")
            await w.one.commit(change(leaf("b"), priority=1), create(leaf("c")))
            assert [node.path for node in await w.two.store.nodes(RUN)] == ["", "b", "a", "c"]
            assert await w.two.store.nodes("none") == []

    async def test_a_header_never_changes(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            await w.one.commit(create(leaf("a")), headers=(Header(run=RUN, plan="other"),))
            assert await w.two.store.header(RUN) == Header(run=RUN, plan="p")

    async def test_runs_are_listed_newest_first_and_by_prefix(self) -> None:
        async with self.world() as w:
            for run in ("ab", "b", "aa"):
                await w.one.begin(run=run)
            (root,) = await w.two.store.read([("aa", "")])
            listed = await w.two.store.runs(10)
            assert [info.header.run for info in listed] == ["aa", "b", "ab"]
            assert listed[0].root == root
            assert [info.header.run for info in await w.two.store.runs(2)] == ["aa", "b"]
            assert [info.header.run for info in await w.two.store.runs(10, "a")] == ["aa", "ab"]
            assert await w.two.store.runs(10, "%") == []
            # And from one of them on
            assert [info.header.run for info in await w.two.store.runs(1, after="aa")] == ["b"]
            assert [info.header.run for info in await w.two.store.runs(10, "a", after="b")] == ["ab"]
            assert [info.header.run for info in await w.two.store.runs(10, after="none")] == []
            assert await w.two.store.runs(10, after="ab") == []

    async def test_runs_that_failed_or_were_cancelled_are_found_by_their_state(self) -> None:
        async with self.world() as w:
            states = {"ab": "failed", "b": "succeeded", "aa": "failed", "c": "cancelled", "d": "failed", "e": "running"}
            for run in states:
                await w.one.begin(run=run)
            # They end in another order than that in which they were created
            for run in ("aa", "d", "c", "ab", "b"):
                root = await w.one.node("", run)
                assert await w.one.commit(change(root, state=states[run]), ended=(RunEnd(run, 60_000),))
            assert [info.header.run for info in await w.two.store.runs(9, state="failed")] == ["d", "aa", "ab"]
            assert [info.header.run for info in await w.two.store.runs(9, state="cancelled")] == ["c"]
            assert [info.header.run for info in await w.two.store.runs(2, state="failed")] == ["d", "aa"]
            assert [info.header.run for info in await w.two.store.runs(9, "a", state="failed")] == ["aa", "ab"]
            assert [info.header.run for info in await w.two.store.runs(1, after="d", state="failed")] == ["aa"]
            assert await w.two.store.runs(9, after="ab", state="failed") == []
            assert await w.two.store.runs(9, after="none", state="failed") == []


def _in_one_partition(store: Store) -> list[str]:
    """Names of three runs, in their order."""
    names = [f"run-{number:02}" for number in range(99)]
    return [name for name in names if store.partition_of(name) == store.partition_of(names[0])][:3]
