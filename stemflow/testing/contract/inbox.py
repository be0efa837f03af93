"""Promises about the inboxes of runs."""

from __future__ import annotations

import asyncio

from stemflow.model.effects import Decision
from stemflow.model.facts import End, Post
from stemflow.store.base import INBOX_MS, INBOX_POSTS, INBOX_RUNS, Exchange, Inbox
from stemflow.testing.contract.world import RUN, Promises, User, begun, change, create, leaf, paths, scope

_PATIENCE_S = 10


def post(index: int, path: str = "", run: str = RUN) -> Post:
    return Post(run, path, (End(index, "ok"), End(index + 1, "failed", "x")), seal=b"\0\xff")


def posted(*posts: Post) -> Decision:
    return Decision(posts=posts)


def consumed(inbox: Inbox) -> Decision:
    return Decision(consumed=((inbox.run, inbox.upto),))


async def ask(user: User, *decisions: Decision, limit: int = 5, only_run: str | None = None) -> Exchange:
    return await user.exchange(*decisions, want=user.want(limit, only_run=only_run))


async def fetched(user: User, *decisions: Decision) -> list[Post]:
    """What an exchange returns from the inboxes of all runs."""
    return [one for inbox in (await ask(user, *decisions)).inbox for one in inbox.posts]


class InboxPromises(Promises):
    """Posts are returned to one caller at a time, until they are applied."""

    async def test_posts_are_leased_in_order_with_the_current_scopes(self) -> None:
        async with self.world() as w:
            await w.one.begin(scope("m", size=40), leaf("a"))
            assert not (await ask(w.two)).inbox
            first, second = (post(0, "m"), post(2), post(4, "m")), (post(6, "gone"),)
            await w.one.exchange(posted(*first), posted(*second))
            m = await w.one.node("m")
            await w.one.commit(change(m, priority=3))
            (inbox,) = (await ask(w.two)).inbox
            assert (inbox.run, inbox.posts) == (RUN, first + second)
            assert inbox.scopes == (await w.two.node("m"), await w.two.node(""))

    async def test_a_caller_that_posts_leases_the_inbox_with_the_answer(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            answer = await ask(w.one, posted(post(0)))
            assert paths(answer.leases) == ["a"]
            assert [one.posts for one in answer.inbox] == [(post(0),)]
            assert answer.busy_inboxes == ()

    async def test_a_leased_inbox_is_leased_again_only_after_its_lease(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            await ask(w.one, posted(post(0)))
            answer = await ask(w.two, posted(post(2)))
            assert (answer.inbox, answer.busy_inboxes) == ((), (RUN,))
            assert answer.next_at_ms == w.clock.at_ms + INBOX_MS
            w.clock.advance(INBOX_MS - 1)
            assert await fetched(w.two) == await fetched(w.one) == []
            w.clock.advance(1)
            assert await fetched(w.two) == [post(0), post(2)]
            assert (await ask(w.one)).busy_inboxes == (RUN,)

    async def test_consumed_posts_are_removed_and_the_rest_may_be_leased(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            (inbox,) = (await ask(w.one, posted(post(0)))).inbox
            await ask(w.two, posted(post(2)))
            (rest,) = (await ask(w.one, consumed(inbox))).inbox
            assert rest.posts == (post(2),)
            assert (await ask(w.two, consumed(inbox))).inbox == (rest,)  # nothing is lost if posts are applied twice
            answer = await ask(w.two, consumed(rest))
            assert (answer.inbox, answer.busy_inboxes, answer.next_at_ms) == ((), (), None)
            w.clock.advance(INBOX_MS)
            assert await fetched(w.one) == []
            assert await fetched(w.one, consumed(rest), posted(post(4))) == [post(4)]

    async def test_no_inbox_is_leased_without_a_want_or_for_another_run(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            await w.one.begin(run="other")
            assert (await w.one.exchange(posted(post(0)))).inbox == ()
            assert (await ask(w.two, only_run="other")).inbox == ()
            (inbox,) = (await ask(w.two, only_run=RUN)).inbox
            assert inbox.posts == (post(0),)
            assert (await ask(w.one, only_run="other")).busy_inboxes == ()
            assert (await ask(w.one, only_run=RUN)).busy_inboxes == (RUN,)

    async def test_a_stale_decision_posts_nothing_and_consumes_nothing(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            (inbox,) = (await ask(w.one, posted(post(0)))).inbox
            stale = change(leaf("a", rev=9), priority=1)
            assert not await w.one.commit(stale, posts=(post(2),), consumed=((RUN, inbox.upto),))
            w.clock.advance(INBOX_MS)
            assert await fetched(w.two) == [post(0)]

    async def test_a_repeated_request_posts_once(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            await ask(w.one, posted(post(0)))
            again = await w.one.repeat(posted(post(0)), want=w.one.want(0))
            assert (again.committed, again.inbox) == ((True,), ())
            w.clock.advance(INBOX_MS)
            assert await fetched(w.two) == [post(0)]

    async def test_many_posts_are_leased_in_pages(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            many = [post(number) for number in range(INBOX_POSTS + 3)]
            (page,) = (await ask(w.one, posted(*many))).inbox
            assert page.posts == tuple(many[:INBOX_POSTS])
            assert await fetched(w.one, consumed(page)) == many[INBOX_POSTS:]

    async def test_each_run_has_an_inbox_of_its_own(self) -> None:
        async with self.world() as w:
            runs = [f"run{number}" for number in range(INBOX_RUNS + 1)]
            for run in runs:
                await w.one.begin(run=run)
                await w.one.exchange(posted(post(0, run=run)))
            given = (await ask(w.one)).inbox
            rest = (await ask(w.two)).inbox
            assert len(given) >= INBOX_RUNS
            assert sorted(inbox.run for inbox in (*given, *rest)) == runs
            await w.one.exchange(*map(consumed, given))
            assert (await ask(w.one)).busy_inboxes == tuple(inbox.run for inbox in rest)

    async def test_the_posts_of_a_run_go_with_it(self) -> None:
        async with self.world() as w:
            await w.one.begin(leaf("a"))
            await w.one.exchange(posted(post(0)))
            root = await w.one.node("")
            again = begun(RUN)
            puts = (create(scope(rev=root.rev + 1)),)
            seen = ((root.key, root.rev, root.delivery),)
            new = Decision(puts=puts, seen=seen, headers=again.headers, dropped=(RUN,))
            assert (await w.one.exchange(new)).committed == (True,)
            assert await fetched(w.two) == []
            assert await fetched(w.two, posted(post(8))) == [post(8)]

    async def test_what_is_posted_without_a_wish_wakes_a_worker(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            await w.two.ask(5)
            seen = await w.two.store.wait_for_work("two", 0, 0)
            await w.two.ask(5)
            woken = asyncio.ensure_future(w.two.store.wait_for_work("two", seen, _PATIENCE_S * 1_000))
            await asyncio.sleep(0.05)
            await w.one.exchange(posted(post(0)))
            assert await asyncio.wait_for(woken, _PATIENCE_S / 2) != seen
            assert await fetched(w.two) == [post(0)]
