"""F-16: the server has carried a request out, and its answer is lost. The engine asks again; nothing happens twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stemflow.store.base import INBOX_MS, Store
from stemflow.store.redis.open import open_redis
from stemflow.testing.contract.commit import CommitPromises
from stemflow.testing.contract.hints import HintPromises
from stemflow.testing.contract.inbox import ask, post, posted
from stemflow.testing.contract.inventory import StockPromises
from stemflow.testing.contract.lease import LeasePromises
from stemflow.testing.contract.retention import KeepPromises
from stemflow.testing.contract.wait import WaitPromises
from stemflow.testing.contract.world import ManualClock, User
from stemflow.testing.servers.proxy import Call, Fate, drop_reply
from stemflow.testing.servers.server import Server
from tests.faults.net_world import every, name_of, net_on
from tests.faults.proxy_thread import proxy_beside
from tests.faults.table import record

pytestmark = pytest.mark.faults

REPEATED = ("open", "submit", "exchange", "read", "put_hint")
"""Scripts that are sent again at once and then answer as they did the first time. `expired` and `prune` answer what
they did this time, and a renewal that failed waits for the next one."""


class TestTheContractWhileEverySecondReplyIsLost(
    CommitPromises, LeasePromises, WaitPromises, HintPromises, KeepPromises, StockPromises
):
    """All of it but what is said of inboxes: one that was leased with a lost answer comes again after a while."""

    @pytest.fixture(autouse=True)
    def _proxy(self, one_server: Server) -> Iterator[None]:
        one_server.flush()
        with proxy_beside(one_server.port) as proxy:
            proxy.fate = every(2, REPEATED)
            self.url = proxy.url
            yield

    async def test_an_inbox_that_was_leased_with_a_lost_reply_is_leased_again(self) -> None:
        async with self.world() as w:
            await w.one.begin()
            inbox = (await ask(w.one, posted(post(0)))).inbox
            while not inbox:
                w.clock.advance(INBOX_MS)
                inbox = (await ask(w.one)).inbox
            assert inbox[0].posts == (post(0),)

    def make_store(self, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)

    def second(self, store: Store, clock: ManualClock) -> Store:
        return open_redis(self.url, clock, test_time=True)


async def test_any_one_lost_reply_of_a_run_changes_nothing(one_server: Server, tmp_path: Path) -> None:
    names: set[str] = set()
    tried = 0
    for lost in range(1, 200):
        one_server.flush()
        folder = tmp_path / str(lost)
        folder.mkdir()
        async with net_on(one_server, folder) as net:
            proxy = await net.proxy()
            fate = drop_reply(lost)

            def struck(call: Call, fate: Callable[[Call], Fate] = fate) -> Fate:
                found = fate(call)
                if found is not None:
                    names.add(name_of(call))
                return found

            proxy.fate = struck
            app = await net.engine(proxy.url)
            await net.orders(app, 1)
            await asyncio.sleep(0)
            net.tries = proxy.struck
            if not proxy.struck:
                break
            tried += 1
            verdict = await net.verdict()
            assert verdict.fatal == {}
            assert verdict.doubled == 0
    print(f"\nF-16: replies lost of {sorted(names)}")
    record("F-16", runs=tried, tries=tried, lost=0, doubled=0, stuck=0)
    # Calls come in another order each time, so that the one to `submit` may be missed: it is lost in the next test.
    assert {"open", "exchange"} <= names


@pytest.mark.parametrize("name", ["submit", "exchange", "renew", "read", "put_hint"])
async def test_replies_of_one_script_are_lost_again_and_again(name: str, one_server: Server, tmp_path: Path) -> None:
    one_server.flush()
    async with net_on(one_server, tmp_path) as net:
        # Given tasks that outlive their lease, so that each is renewed
        lease, net.pause_s = ("2s", 2.4) if name == "renew" else ("10s", 0.05)
        proxy = await net.proxy()
        proxy.fate = every(2, (name,))
        app = await net.engine(proxy.url)
        # When every second reply of one script is lost
        order = net.order(visibility_timeout=lease)
        handles = await asyncio.gather(*(net.submit(app, order) for _ in range(20)))
        # Then everything ends, and nothing runs twice
        await net.finish(handles)
        net.tries = proxy.struck
        assert (await net.judge(f"F-16 {name}")).doubled == 0


async def test_replies_to_the_sweeper_are_lost_and_it_finds_the_lost_leases_again(
    one_server: Server, tmp_path: Path
) -> None:
    one_server.flush()
    async with net_on(one_server, tmp_path) as net:
        # Given leases of somebody who is gone
        producer = await net.engine(one_server.url, worker=False)
        step = net.step.with_options(visibility_timeout="200ms")
        handles = await asyncio.gather(*(net.submit(producer, step.s(1)) for _ in range(10)))
        assert len(await User(producer.store, "gone").lease(10)) == 10
        await asyncio.sleep(0.3)
        # When the first replies to the sweeper are lost
        proxy = await net.proxy()
        lost = every(1, ("take_expired",))
        proxy.fate = lambda call: lost(call) if proxy.struck < 2 else None
        await net.engine(proxy.url)
        # Then the leases that it took over without knowing are lost once more, and all tasks run
        await net.finish(handles)
        net.tries = proxy.struck
        assert (await net.judge("F-16 expired")).doubled == 0
