"""dramatiq with its Redis broker and result backend, 100 threads."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as Barriers
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from peer import CONCURRENCY, URL, WARM_UP, Counter, main, tell, tell_latencies

broker = RedisBroker(url=URL)
results = RedisBackend(url=URL)
broker.add_middleware(Results(backend=results, store_results=True))
broker.add_middleware(GroupCallbacks(Barriers(url=URL)))
dramatiq.set_broker(broker)
count = Counter()
lock = threading.Lock()


@dramatiq.actor
def noop() -> int:
    with lock:
        return count()


@dramatiq.actor
def echo(x: int) -> int:
    return x


@dramatiq.actor
def inc(x: int) -> int:
    return x + 1


@dramatiq.actor
def gathered(ids: list[str]) -> int:
    """Sums the members' results, which the callback has to read itself."""
    return sum(results.get_result(echo.message().copy(message_id=one)) for one in ids)


def worker() -> None:
    running = dramatiq.Worker(broker, worker_threads=CONCURRENCY)
    running.start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    running.stop()


def enqueue(total: int) -> None:
    begun = time.perf_counter()
    for _ in range(total):
        noop.send()
    tell(n=total, seconds=time.perf_counter() - begun)


def _end(message: Any) -> Any:
    return message.get_result(backend=results, block=True, timeout=120_000)


def latency(total: int) -> None:
    taken = []
    for i in range(WARM_UP + total):
        begun = time.perf_counter()
        _end(echo.send(7))
        if i >= WARM_UP:
            taken.append(time.perf_counter() - begun)
    tell_latencies(taken)


def chain(hops: int) -> None:
    _end(echo.send(1))
    begun = time.perf_counter()
    steps = dramatiq.pipeline([echo.message(1), *(inc.message() for _ in range(hops - 1))]).run()
    assert steps.get_result(block=True, timeout=120_000) == hops
    tell(n=hops, seconds=time.perf_counter() - begun)


def chord(width: int) -> None:
    _end(echo.send(1))
    begun = time.perf_counter()
    members = [echo.message(i) for i in range(width)]
    callback = gathered.message([member.message_id for member in members])
    group = dramatiq.group(members)
    group.add_completion_callback(callback)
    group.run()
    value = _end(callback)
    assert value == width * (width - 1) // 2, value
    tell(n=width, seconds=time.perf_counter() - begun)


if __name__ == "__main__":
    main(worker=worker, enqueue=enqueue, latency=latency, chain=chain, chord=chord)
