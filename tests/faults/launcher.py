"""A command of stemflow, in this process, that dies by `kill -9` where the test says, or whose wall clock is wrong.

`DIE_AT=POINT/N`: at the N-th time that it comes to that point. `WALL_CLOCK_S=3600`: its wall clock is an hour ahead.
`BREAK=recover`: its sweeper fails. `WITNESS=FILE`: where its commits are written down. `STARTS=FILE`: where its leases
are, with their starts by the clock of the store. `MEMORY_GROUP=FOLDER`: the cgroup that it joins. `produce URL RUN` is
a producer without a worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stemflow.cli.main import main
from stemflow.model.effects import Decision
from stemflow.model.records import FINAL, Node
from stemflow.ports import Clock
from stemflow.runtime import engine
from stemflow.runtime.worker import service
from stemflow.runtime.worker.worker import Worker
from stemflow.store.base import Store
from stemflow.testing.history.witness import Witness

CALLS = ("open", "exchange", "take_expired", "read", "put_hint", "hints", "header", "plan", "prune")
POINTS = ("leased", "before report", "after report", "lost leases taken", "before loss", "after loss")
"""Named points; `call` is any point before or after any call of the store."""


class Fragile:
    """The same store; the process dies at its point."""

    def __init__(self, store: Store, point: str, at: int) -> None:
        self._store, self._point, self._left = store, point, at
        self._losing = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in CALLS:
            return found

        async def call(*args: Any, **more: Any) -> Any:
            before, after = self._about(name, args)
            self._come_to(*before, "call")
            answer = await found(*args, **more)
            if name == "exchange" and answer.leases:
                after.append("leased")
            if name == "take_expired" and answer:
                self._losing = True
                after.append("lost leases taken")
            self._come_to(*after, "call")
            return answer

        return call

    def _about(self, name: str, args: Sequence[Any]) -> tuple[list[str], list[str]]:
        if name != "exchange" or not args[1]:
            return [], []
        losing, self._losing = self._losing, False
        if losing:
            return ["before loss"], ["after loss"]
        return (["before report"], ["after report"]) if _reports(args[1]) else ([], [])

    def _come_to(self, *points: str) -> None:
        if self._point in points:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Started:
    """The same store; each lease is a line of `path`: its start by the clock of the store, its run, node and token."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store, self._path = store, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def exchange(self, *asked: Any) -> Any:
        answer = await self._store.exchange(*asked)
        with self._path.open("a") as file:
            for lease in answer.leases:
                node = lease.node
                file.write(f"{lease.until_ms - node.lease_ms} {node.run} {node.path or '-'} {node.delivery}\n")
        return answer


def _reports(decisions: Sequence[Decision]) -> bool:
    nodes = [put.record for decision in decisions for put in decision.puts if isinstance(put.record, Node)]
    return any(node.delivery and node.state in FINAL for node in nodes)


def arm() -> None:
    """Let every engine of this process open its store as the environment says."""
    if "MEMORY_GROUP" in os.environ:
        (Path(os.environ["MEMORY_GROUP"]) / "cgroup.procs").write_text(str(os.getpid()))
    opened = engine.open_store
    witness = Witness(Path(os.environ["WITNESS"])) if "WITNESS" in os.environ else None

    def open_store(url: str, clock: Clock) -> Store:
        store: Any = opened(url, clock)
        if "DIE_AT" in os.environ:
            point, _, at = os.environ["DIE_AT"].partition("/")
            store = Fragile(store, point, int(at))
        if "STARTS" in os.environ:
            store = Started(store, Path(os.environ["STARTS"]))
        return witness.watching(store) if witness is not None else store

    engine.open_store = open_store  # type: ignore[attr-defined]
    ahead_s = float(os.environ.get("WALL_CLOCK_S", "0"))
    if ahead_s:
        wall, wall_ns = time.time, time.time_ns
        time.time = lambda: wall() + ahead_s
        time.time_ns = lambda: wall_ns() + int(ahead_s * 1e9)
    if os.environ.get("BREAK") == "recover":
        service.recover = _fail  # type: ignore[attr-defined]


async def _fail(worker: Worker) -> None:
    await asyncio.sleep(0.5)
    raise TypeError("broken by the test")


async def _produce(url: str, run: str) -> None:
    from tests.faults.proc_tasks import big_order, registry

    async with engine.Stemflow(url, registry, worker=False) as app:
        await app.submit(big_order(), run_id=run)


if __name__ == "__main__":
    arm()
    if sys.argv[1] == "produce":
        asyncio.run(_produce(*sys.argv[2:]))
    else:
        sys.exit(main(sys.argv[1:]))
