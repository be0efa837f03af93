"""F-17 to F-24: connections that are cut, fall silent, are slow, or come back all at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from stemflow import Stemflow
from stemflow.model.records import Node
from stemflow.store.base import StoreError
from stemflow.testing.servers.proxy import Call, CutAfter, Fate
from stemflow.testing.servers.server import Server
from tests.faults.net_world import SCRIPTS, name_of, net_on

pytestmark = pytest.mark.faults


@pytest.fixture
def empty(one_server: Server) -> Server:
    one_server.flush()
    return one_server


# -- F-17


async def test_half_a_request_is_never_carried_out_wherever_it_is_cut(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        # Given a network that cuts each script's calls after 0, 1, 2, 3, 5, ... bytes, and lets every second one pass
        proxy = await net.proxy()
        sizes = [0, 1, 2, 3, 5, 9, 14, 20, 33, 50, 70, 100, 150, 250, 400, 700, 1_000]
        cut: dict[str, list[int]] = {}
        last: dict[str, bool] = {}

        def fate(call: Call) -> Fate:
            name = name_of(call)
            if name not in SCRIPTS:
                return None
            left = cut.setdefault(name, list(sizes))
            last[name] = not last.get(name, False)
            size = sum(len(word) + 5 for word in call.words)
            while left and left[0] >= size:
                left.pop(0)
            return CutAfter(left.pop(0)) if last[name] and left else None

        proxy.fate = fate
        app = await net.engine(proxy.url)
        # When orders go through it, one after another
        for _ in range(25):
            await net.orders(app, 1)
        net.tries = proxy.struck
        struck = {name for name, left in cut.items() if len(left) < len(sizes)}
        assert struck >= {"open", "submit", "exchange", "take_expired"}
        assert (await net.judge("F-17")).doubled == 0


# -- F-18, F-19


async def test_a_black_hole_is_noticed_and_work_goes_on_when_it_ends(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        net.pause_s = 0.02
        proxy = await net.proxy()
        app = await net.engine(proxy.url)
        # Given orders under way
        handles = [await net.submit(app) for _ in range(20)]
        # When nothing moves any more for longer than a call may take, and nobody is notified
        proxy.hold()
        net.tries += 1
        began = time.monotonic()
        with pytest.raises(StoreError):
            await app.store.read([("run-1", "")])
        assert time.monotonic() - began < 16
        # Then, when it ends, work goes on within the longest pause
        proxy.cut()
        proxy.release()
        began = time.monotonic()
        await net.finish(handles)
        assert time.monotonic() - began < 12
        await net.judge("F-18")


async def test_an_engine_ends_although_its_server_is_away(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        # Given an engine with a task at work, and a network that is gone
        net.pause_s = 600.0
        proxy = await net.proxy()
        app = Stemflow(proxy.url, net.registry)
        await app.__aenter__()
        handle = await app.submit(net.step.with_options(visibility_timeout="2s").s(1))
        while not net.witness.sights():
            await asyncio.sleep(0.01)
        proxy.fate = lambda call: CutAfter(0)
        # When it is closed, then that takes no longer than its last tries
        began = time.monotonic()
        await asyncio.wait_for(app.__aexit__(None, None, None), 40)
        print(f"\nclosed {time.monotonic() - began:.1f} s after the server had gone away")
        # And its task runs elsewhere
        net.pause_s = 0.0
        other = await net.engine(empty.url)
        assert (await (await other.handle(handle.id)).wait(10)).status == "succeeded"


@pytest.mark.parametrize("towards", ["client", "server"])
async def test_connections_that_are_closed_in_one_direction_are_replaced(
    towards: str, empty: Server, tmp_path: Path
) -> None:
    async with net_on(empty, tmp_path) as net:
        net.pause_s = 0.02
        proxy = await net.proxy()
        app = await net.engine(proxy.url)
        handles = []
        for _ in range(10):
            handles += [await net.submit(app) for _ in range(2)]
            net.tries += proxy.half_close("client" if towards == "client" else "server")
            await asyncio.sleep(0.02)
        await net.finish(handles, 20)
        assert (await net.judge(f"F-19 {towards}")).doubled == 0


# -- F-20


async def test_slow_lines_and_small_segments_lose_no_lease(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        net.pause_s = 0.2
        proxy = await net.proxy()
        app = await net.engine(proxy.url)
        proxy.delay_s, proxy.segment = (0.0, 0.4), 1
        await net.orders(app, 6, 60)
        net.tries = 1
        assert (await net.judge("F-20")).doubled == 0
        assert app.service is not None
        assert app.service.exchange_loop.stale_reports == 0


# -- F-21


async def test_connections_that_the_server_kills_at_random_lose_nothing(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        net.pause_s = 0.05
        engines = [await net.engine(empty.url) for _ in range(3)]
        producer = await net.engine(empty.url, worker=False)
        rng = random.Random(21)

        async def kill() -> None:
            while True:
                await asyncio.sleep(rng.uniform(0.02, 0.18))
                listed = await asyncio.to_thread(empty.ask, "CLIENT", "LIST")
                ids = [line.split()[0][3:] for line in listed.decode().splitlines() if line.startswith("id=")]
                if ids:
                    await asyncio.to_thread(empty.ask, "CLIENT", "KILL", "ID", rng.choice(ids))
                    net.tries += 1

        killing = asyncio.create_task(kill())
        try:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                await net.orders(producer, 10, 30)
        finally:
            killing.cancel()
        verdict = await net.judge("F-21")
        assert verdict.doubled == 0
        assert net.tries > 25
        assert all(engine.service is not None for engine in engines)


# -- F-22


async def test_a_call_that_is_cancelled_anywhere_leaves_no_answer_for_the_next_one(
    empty: Server, tmp_path: Path
) -> None:
    async with net_on(empty, tmp_path) as net:
        # Given a slow line, so that a call has many points at which it waits
        proxy = await net.proxy()
        producer = await net.engine(proxy.url, worker=False)
        handles = [await net.submit(producer) for _ in range(5)]
        proxy.segment = 1
        store, before = producer.store, proxy.connections
        for turn in range(0, 300, 2):
            # When a call is cancelled after so many turns of the loop
            asked = asyncio.ensure_future(store.read([(f"run-{turn % 5 + 1}", "")]))
            for _ in range(turn):
                await asyncio.sleep(0)
            net.tries += not asked.done()
            asked.cancel()
            await asyncio.wait((asked,))
            # Then the next answer is that of its own question
            run = f"run-{(turn + 1) % 5 + 1}"
            found = await asyncio.gather(*(store.read([(run, path)]) for path in ("", "nothing")))
            assert [isinstance(one, Node) and one.run for (one,) in found] == [run, False]
        assert net.tries > 50
        async with asyncio.timeout(30):
            while proxy.connections > before + 3:  # the proxy hears a moment later of those that were cut
                await asyncio.sleep(0.01)
        proxy.segment = None
        await net.engine(empty.url)
        await net.finish(handles)
        await net.judge("F-22 read")


async def test_a_submission_that_is_cancelled_anywhere_is_whole_or_not_there_and_can_be_made_again(
    empty: Server, tmp_path: Path
) -> None:
    async with net_on(empty, tmp_path) as net:
        proxy = await net.proxy()
        producer = await net.engine(proxy.url, worker=False)
        proxy.segment = 7
        for turn in range(150):
            asked = asyncio.ensure_future(producer.submit(net.order(), run_id=f"turn-{turn}"))
            for _ in range(turn):
                await asyncio.sleep(0)
            net.tries += not asked.done()
            asked.cancel()
            await asyncio.wait((asked,))
        assert net.tries > 50
        there = {info.header.run for info in await producer.store.runs(1_000)}
        carried_out = len(there) - (150 - net.tries)
        print(f"\nF-22: of {net.tries} submissions that were cancelled, {carried_out} were carried out")
        again = [net.clients.submit(f"turn-{n}", producer.submit(net.order(), run_id=f"turn-{n}")) for n in range(150)]
        handles = await asyncio.gather(*again)
        await net.engine(empty.url)
        await net.finish(handles)
        assert (await net.judge("F-22 submit")).doubled == 0


# -- F-23


async def test_many_workers_go_on_after_a_server_was_suspended(empty: Server, tmp_path: Path) -> None:
    async with net_on(empty, tmp_path) as net:
        # Given forty engines and work for them
        engines = [await net.engine(empty.url, concurrency=5) for _ in range(40)]
        producer = engines[0]
        await net.orders(producer, 40)
        net.pause_s = 0.05
        handles = [await net.submit(producer) for _ in range(100)]
        # When the server is suspended for longer than a call may take
        os.kill(empty.pid, signal.SIGSTOP)
        net.tries += 1
        await asyncio.sleep(8)
        os.kill(empty.pid, signal.SIGCONT)
        # Then they consume again, not just connect
        began = time.monotonic()
        await net.finish(handles, 30)
        took = time.monotonic() - began
        print(f"\nF-23: 100 orders drained {took:.1f} s after 8 s of silence, by 40 engines")
        assert took < 10
        await net.judge("F-23")
        began = time.monotonic()
        await net.orders(producer, 20)
        assert time.monotonic() - began < 3


# -- F-24


async def test_a_worker_that_alone_is_cut_off_loses_its_tasks_and_its_late_reports_are_refused(
    empty: Server, tmp_path: Path
) -> None:
    async with net_on(empty, tmp_path) as net:
        # Given a worker behind a network of its own, at work
        net.pause_s = 3.0
        proxy = await net.proxy()
        cut_off = await net.engine(proxy.url, concurrency=4)
        producer = await net.engine(empty.url, worker=False)
        handles = [await net.submit(producer, net.step.with_options(visibility_timeout="1s").s(1)) for _ in range(4)]
        while len(net.witness.sights()) < 4:
            await asyncio.sleep(0.02)
        # When it alone is cut off, and another serves the same queues
        proxy.hold()
        net.tries += 1
        net.pause_s = 0.05
        await net.engine(empty.url)
        began = time.monotonic()
        await net.finish(handles, 20)
        took = time.monotonic() - began
        assert took < 6
        # Then what it reports later is refused, and it works again
        proxy.cut()
        proxy.release()
        assert cut_off.service is not None
        slots, exchange_loop = cut_off.service.slots, cut_off.service.exchange_loop
        until = time.monotonic() + 15
        while slots.running or slots.facts or exchange_loop.stale_reports < 4:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        verdict = await net.judge("F-24", {})
        assert verdict.doubled == 4
        print(f"F-24: moved within {took:.1f} s; {exchange_loop.stale_reports} late reports refused")
