"""A small world for faults of the network and of the server: engines on one server, through proxies, and a judge."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from stemflow import Canvas, Signature, Stemflow, TaskContext, TaskRegistry
from stemflow.model.records import Node
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.runs.handle import RunHandle
from stemflow.store.base import StateLost
from stemflow.store.open import open_store
from stemflow.store.redis.scripts import script
from stemflow.testing.history.checker import Clients, Verdict, check
from stemflow.testing.history.witness import Witness
from stemflow.testing.servers.proxy import Call, DropReply, Fate, Proxy
from stemflow.testing.servers.server import Server
from tests.faults.table import record

SCRIPTS = ("open", "submit", "exchange", "take_expired", "renew", "read", "put_hint", "prune")
AFTER = {"[0].then": ("[0][0]", "[0][1]"), "[1]": ("[0].then",)}
"""What each task of `order` waits for."""
ORDER = 4
"""Tasks of one `order`."""


def name_of(call: Call) -> str:
    """The script that is called, or the command in small letters."""
    if call.name == b"EVALSHA":
        for name in SCRIPTS:
            if call.words[1] in {script(name, version).sha for version in ((6, 2), (7, 2))}:
                return name
    if call.name == b"EVAL":
        for name in SCRIPTS:
            if call.words[1] in {script(name, version).text for version in ((6, 2), (7, 2))}:
                return name
    return call.name.decode().lower()


class Net:
    """One server with its runs, and everything that was said and seen about them."""

    def __init__(self, server: Server, folder: Path, url: str = "") -> None:
        self.server, self.folder, self.url = server, folder, url or server.url
        self.name: Callable[[int], str] = "run-{}".format
        """The ids of runs by their number."""
        self.witness = Witness(folder / "witness")
        self.clients = Clients()
        self.registry = TaskRegistry()
        self.pause_s = 0.0
        """How long each task works."""
        self.tries = 0
        """Faults that really struck."""
        self.apps: list[Stemflow] = []
        self._opened = AsyncExitStack()
        self._submitted = 0

        @self.registry.task("step", max_retries=0)
        async def step(context: TaskContext, value: Any = None) -> Any:
            with self.witness.sees(context):
                await asyncio.sleep(self.pause_s)
                return value

        self.step = step

    async def proxy(self, **settings: Any) -> Proxy:
        """A network of its own to the server."""
        return await self._opened.enter_async_context(Proxy(self.server.port, **settings))

    async def engine(self, url: str, *, worker: bool = True, **settings: Any) -> Stemflow:
        """An engine that is closed at the end; its commits are witnessed."""
        store = self.witness.watching(open_store(url, SystemClock()))
        app = Stemflow(url, self.registry, store=store, worker=worker, **settings)
        self.apps.append(app)
        return await self._opened.enter_async_context(app)

    @property
    def epochs(self) -> list[int]:
        """Of each engine, how often it has found that the store had lost something."""
        return [app.store.epoch for app in self.apps]

    def order(self, **options: Any) -> Signature[Any, Any]:
        """A chord of two with its callback, and a task after it."""
        step = self.step.with_options(**options) if options else self.step
        return Canvas.chord(Canvas.group(step.s(1), step.s(2)), step.s()) | step.s()

    async def submit(self, app: Stemflow, what: Signature[Any, Any] | None = None) -> RunHandle[Any] | None:
        """Submit an order, or `what`, and write down what its submitter gets."""
        self._submitted += 1
        run = self.name(self._submitted)
        return await self.clients.submit(run, app.submit(what or self.order(), run_id=run))

    async def orders(self, app: Stemflow, count: int, patience_s: float = 60.0) -> None:
        """Submit orders at once and wait for all that were accepted."""
        await self.finish(await asyncio.gather(*(self.submit(app) for _ in range(count))), patience_s)

    async def finish(self, handles: Sequence[RunHandle[Any] | None], patience_s: float = 60.0) -> None:
        """Wait until those that were accepted have succeeded."""
        waiting = [handle.wait() for handle in handles if handle is not None]
        async with asyncio.timeout(patience_s):
            results = await asyncio.gather(*waiting)
        assert {result.status for result in results} <= {"succeeded"}

    async def told(self, handles: Sequence[RunHandle[Any] | None], patience_s: float = 30.0) -> list[str]:
        """What each waiter for one of these gets: its status, or that the run was lost."""

        async def one(handle: RunHandle[Any] | None) -> str:
            assert handle is not None
            try:
                return (await handle.wait()).status
            except StateLost:
                return "lost"

        async with asyncio.timeout(patience_s):
            return await asyncio.gather(*(one(handle) for handle in handles))

    def count(self, event: str, handles: Sequence[RunHandle[Any] | None]) -> int:
        """How often this was seen of tasks of these runs."""
        runs = {handle.id for handle in handles if handle is not None}
        return sum(one.event == event and one.run in runs for one in self.witness.sights())

    async def final(self) -> dict[str, list[Node]]:
        """The records that the server has in the end, by run."""
        store = open_store(self.url, SystemClock())
        await store.open()
        try:
            infos = await store.runs(100_000)
            return {info.header.run: await store.nodes(info.header.run) for info in infos}
        finally:
            await store.close()

    async def verdict(self, after: dict[str, tuple[str, ...]] | None = None) -> Verdict:
        """Judge all that happened, by the records that the server has in the end."""
        final = await self.final()
        return check(self.clients.said, self.witness.sights(), final, AFTER if after is None else after)

    async def judge(self, fault: str, after: dict[str, tuple[str, ...]] | None = None) -> Verdict:
        """The verdict, which must break no promise; told as a row of the table in docs/faults.md."""
        verdict = await self.verdict(after)
        assert verdict.fatal == {}
        assert self.tries > 0, "no fault struck"
        record(
            fault, runs=verdict.runs, tries=self.tries, lost=len(verdict.lost), doubled=verdict.doubled,
            stuck=len(verdict.stuck),
        )  # fmt: skip
        told = Counter(one.outcome for one in self.clients.said)
        print(f"{fault}: reports refused {verdict.refused}, submissions whose asker does not know {told['info']}")
        return verdict


@asynccontextmanager
async def net_on(server: Server, folder: Path, url: str = "") -> AsyncIterator[Net]:
    """`url`: of the store, where it is not that server alone."""
    net = Net(server, folder, url)
    async with net._opened:
        yield net
    net.witness.close()


def every(period: int, names: tuple[str, ...] = SCRIPTS, fate: Fate | None = None) -> Callable[[Call], Fate]:
    """A fate for every `period`-th call of these scripts, by default a lost reply."""
    seen: Counter[str] = Counter()

    def judge(call: Call) -> Fate:
        name = name_of(call)
        if name not in names:
            return None
        seen[name] += 1
        return None if seen[name] % period else fate or DropReply()

    return judge
