"""A random workflow file ends in the same way on each store: every node, the value, the error and the calls."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from stemflow.store.redis.open import open_redis
from stemflow.testing.servers.server import Server
from stemflow.testing.simulation import virtual_loop as vloop
from stemflow.testing.simulation.virtual_connections import VirtualWire
from stemflow.testing.simulation.virtual_files import VirtualSqlite
from tests.cases.random_workflows import COMPOSITES, LEAVES, Ended, drawn, ended

HORIZON_S = 100_000.0
FEW = range(16)
MANY = range(16, 216)
MODIFIERS = ("when", "on_error", "run_on", "catch", "finally", "timeout", "compensate", "cache", "retry", "race",
             "quorum", "tolerate", "undo", "run finally")  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Failures are drawn on purpose; their lines and tracebacks are left out."""
    logger = logging.getLogger("stemflow.failures")
    logger.disabled = True
    yield
    logger.disabled = False


def in_memory(text: str, seed: int) -> Ended:
    async def main(loop: vloop.VirtualLoop) -> Ended:
        return await ended(text, "memory:", None, vloop.VirtualClock(loop), seed)

    return vloop.run(main, seed, HORIZON_S)[0]


def in_sqlite(text: str, seed: int) -> Ended:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{Path(folder) / 'drawn.db'}"

        async def main(loop: vloop.VirtualLoop) -> Ended:
            clock = vloop.VirtualClock(loop)
            return await ended(text, url, VirtualSqlite(url, clock), clock, seed)

        return vloop.run(main, seed, HORIZON_S)[0]


def on_server(text: str, seed: int, server: Server) -> Ended:
    server.flush()
    url = str(server.url)

    async def main(loop: vloop.VirtualLoop) -> Ended:
        clock = vloop.VirtualClock(loop)
        store = open_redis(url, clock, test_time=True, wire=VirtualWire(url))
        return await ended(text, url, store, clock, seed)

    return vloop.run(main, seed, HORIZON_S)[0]


def agree(seed: int, server: Server) -> None:
    """The loop of each store takes the steps of its coroutines in an order of its own."""
    text, _ = drawn(seed)
    first = in_memory(text, 3 * seed)
    assert in_sqlite(text, 3 * seed + 1) == first, text
    assert on_server(text, 3 * seed + 2, server) == first, text


def test_what_is_drawn_has_every_kind_and_modifier() -> None:
    used = sum((drawn(seed)[1] for seed in FEW), Counter[str]())
    rare = {what: used[what] for what in (*COMPOSITES, *LEAVES, *MODIFIERS) if used[what] < 2}
    assert rare == {}


def test_each_store_runs_a_drawn_file_to_the_same_end(one_server: Server) -> None:
    for seed in FEW:
        agree(seed, one_server)


@pytest.mark.long
@pytest.mark.parametrize("seeds", [MANY[start : start + 50] for start in range(0, len(MANY), 50)], ids=str)
def test_each_store_runs_many_more_drawn_files_to_the_same_end(one_server: Server, seeds: range) -> None:
    for seed in seeds:
        agree(seed, one_server)
