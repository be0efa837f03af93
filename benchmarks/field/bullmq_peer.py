"""BullMQ for Python: one queue, results kept in the job, ends heard through queue events."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from bullmq import FlowProducer, Queue, QueueEvents, Worker
from peer import CONCURRENCY, URL, Counter, main, tell, timed

NAME = "bench"
# Its blocking reads outlast the 5 s after which redis-py 8 gives up by default, and its events read RESP 2 replies.
OPTIONS: Any = {"connection": URL + "?socket_timeout=600&protocol=2"}


async def worker() -> None:
    count = Counter()

    async def process(job: Any, token: str) -> Any:
        if job.name == "noop":
            return count()
        if job.name == "echo":
            return job.data["x"]
        values = await job.getChildrenValues()
        return sum(values.values()) + (1 if job.name == "inc" else 0)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    running = Worker(NAME, process, {**OPTIONS, "concurrency": CONCURRENCY})
    await stop.wait()
    await running.close()


async def enqueue(total: int) -> None:
    queue = Queue(NAME, OPTIONS)
    begun = time.perf_counter()
    for start in range(0, total, 500):
        await queue.addBulk([{"name": "noop", "data": {}} for _ in range(min(500, total - start))])
    tell(n=total, seconds=time.perf_counter() - begun)
    await queue.close()


class Ends:
    """Futures by job id, resolved by the queue's events."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[Any]] = {}
        self.early: dict[str, Any] = {}
        self.events = QueueEvents(NAME, OPTIONS)
        self.events.on("completed", self._ended)

    def _ended(self, event: Any, *_: Any) -> None:
        job, value = event["jobId"], event.get("returnvalue")
        if job in self.waiting:
            self.waiting.pop(job).set_result(value)
        else:
            self.early[job] = value

    async def of(self, job: str) -> Any:
        if job in self.early:
            return self.early.pop(job)
        future = self.waiting[job] = asyncio.get_running_loop().create_future()
        return await future


async def latency(total: int) -> None:
    queue, ends = Queue(NAME, OPTIONS), Ends()
    await asyncio.sleep(0.5)

    async def one() -> None:
        job = await queue.add("echo", {"x": 7}, {})
        await ends.of(job.id)

    await timed(one, total)


async def _flow(tree: Any, expected: int) -> float:
    flow, ends = FlowProducer(OPTIONS["connection"], OPTIONS), Ends()
    queue = Queue(NAME, OPTIONS)
    await asyncio.sleep(0.5)
    await ends.of((await queue.add("echo", {"x": 1}, {})).id)
    begun = time.perf_counter()
    added = await flow.add(tree)
    value = await ends.of(added["job"].id)
    seconds = time.perf_counter() - begun
    assert int(value) == expected, (value, expected)
    return seconds


def _node(name: str, **data: Any) -> dict[str, Any]:
    return {"name": name, "queueName": NAME, "data": data, "prefix": "bull"}


async def chain(hops: int) -> None:
    tree = _node("echo", x=1)
    for _ in range(hops - 1):
        tree = {**_node("inc"), "children": [tree]}
    tell(n=hops, seconds=await _flow(tree, hops))


async def chord(width: int) -> None:
    tree = {**_node("total"), "children": [_node("echo", x=i) for i in range(width)]}
    tell(n=width, seconds=await _flow(tree, width * (width - 1) // 2))


if __name__ == "__main__":
    main(worker=worker, enqueue=enqueue, latency=latency, chain=chain, chord=chord)
