"""Within a priority no run waits for a larger one, and nothing waits forever for what has a higher priority."""

import asyncio

from stemflow import Canvas, Signature, TaskRegistry
from stemflow.runtime.worker.ageing import EVERY
from tests.spec.conftest import OpenApp

SLOTS = 4


class Starts:
    """The runs of tasks, in the order in which the tasks started."""

    def __init__(self, registry: TaskRegistry) -> None:
        self.names: list[str] = []

        @registry.task("work")
        async def work(name: str) -> None:
            self.names.append(name)
            await asyncio.sleep(1)

        self.s = work.si

    def group(self, name: str, size: int) -> Signature:
        return Canvas.group(self.s(name) for _ in range(size))

    def ahead_of_last(self, name: str, of: str) -> int:
        """How many tasks of `of` started before the last one of `name`."""
        last = len(self.names) - self.names[::-1].index(name)
        return self.names[:last].count(of)


async def test_a_small_run_does_not_wait_for_a_large_one(open_app: OpenApp, registry: TaskRegistry) -> None:
    starts = Starts(registry)
    app = await open_app(concurrency=SLOTS)
    # Given a run of many ready members that has just begun
    large = await app.submit(starts.group("large", 200))
    await asyncio.sleep(10.5)
    begun = starts.names.count("large")
    # When a lone task, a chain and a small group come
    small = [
        await app.submit(one)
        for one in (starts.s("lone"), Canvas.chain(*[starts.s("chain")] * 5), starts.group("small", 20))
    ]
    for handle in small:
        await handle.wait()
    # Then they do not wait for more of its members than they have themselves, and one in some leases goes by age
    assert starts.ahead_of_last("lone", "large") - begun <= SLOTS
    assert starts.ahead_of_last("chain", "large") - begun <= 5 * SLOTS
    assert starts.ahead_of_last("small", "large") - begun <= 20 + SLOTS
    await large.cancel()


async def test_two_large_runs_take_turns(open_app: OpenApp, registry: TaskRegistry) -> None:
    starts = Starts(registry)
    app = await open_app(concurrency=SLOTS)
    both = [await app.submit(starts.group(name, 200)) for name in ("one", "two")]
    await asyncio.sleep(40)
    # Then the second one has had at least a third of what the first one has had
    assert 3 * starts.names.count("two") >= starts.names.count("one") > 0
    for handle in both:
        await handle.cancel()


async def test_members_of_a_map_start_about_in_order(open_app: OpenApp, registry: TaskRegistry) -> None:
    app, seen = await open_app(concurrency=SLOTS), []

    @registry.task("note")
    async def note(item: int) -> None:
        seen.append(item)

    await app.run(note.map(list(range(200)), concurrency=50))
    # Then only those that go by age, and those that open next to them, come early
    assert max(abs(at - item) for at, item in enumerate(seen)) <= 50


async def test_a_low_priority_is_served_while_high_ones_keep_coming(open_app: OpenApp, registry: TaskRegistry) -> None:
    starts = Starts(registry)
    app = await open_app(concurrency=SLOTS)

    async def keep_busy() -> None:
        while True:
            await app.submit_many([starts.s("high").with_options(priority=9) for _ in range(2 * SLOTS)])
            await asyncio.sleep(1)

    busy = asyncio.ensure_future(keep_busy())
    await asyncio.sleep(5)
    # When a task of the lowest priority waits for more of the highest than there are slots, forever
    before = len(starts.names)
    low = await app.submit(starts.s("low").with_options(priority=0))
    await low.wait()
    busy.cancel()
    # Then it starts when those that were there before it have had their share by age
    assert starts.ahead_of_last("low", "high") - before <= EVERY * (4 * SLOTS * 5)
