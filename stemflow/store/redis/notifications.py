"""Waiting for work, for changes, and for the end of a run, by the notifications that the server publishes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from stemflow.model.records import FINAL, Node
from stemflow.store.base import Lease, StoreError
from stemflow.store.codec import read_node
from stemflow.store.redis.layout import Channel
from stemflow.store.redis.replies import pushed_lease_of
from stemflow.store.redis.subscriber import Subscriber
from stemflow.store.run_names import run_name, run_of
from stemflow.store.waiters import Changes, Watches

OWN: Final = 100_000
"""Runs submitted here that have not ended, as far as is known; beyond, the oldest are looked up when awaited."""
ENDED: Final = 10_000
"""Ends that were received and not asked for yet."""
CHANNELS: Final = 64
"""Channels of work and changes that are kept; more, and one on which nobody waits is dropped."""
LOOK_S: Final = 5.0
"""How often awaited runs are read, in case a notification was lost."""


class Notifications:
    """What was received. `look(runs)` reads their roots; `follow()` asks for notifications of changes for a minute."""

    def __init__(
        self,
        base: bytes,
        address: str,
        look: Callable[[Sequence[str]], Awaitable[Mapping[str, Node]]],
        follow: Callable[[], Awaitable[None]],
    ) -> None:
        self._address = base + Channel.address.value + address.encode()
        self._work, self._changes = base + Channel.work.value, base + Channel.changes.value
        self._ends = base + Channel.end.value
        self._look, self._follow = look, follow
        self._own: OrderedDict[str, None] = OrderedDict()
        self._ended: OrderedDict[str, Node | None] = OrderedDict()
        self._counts: OrderedDict[bytes, Changes] = OrderedDict()
        self._watches = Watches()
        self._pushed: dict[bytes, list[tuple[bytes, Lease]]] = {}
        self._asked: set[str] = set()
        self._doubted: set[str] = set()
        """Watched runs of which it is not known whether they are among what the server has lost."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._round: asyncio.TimerHandle | None = None
        self.listener: Subscriber

    async def open(self, listener: Subscriber) -> None:
        self.listener = listener
        listener.start()
        await listener.add(self._address)

    async def close(self, url: str) -> None:
        """Stop listening; those who wait for the end of a run get StoreClosed."""
        if self._round is not None:
            self._round.cancel()
            self._round = None
        self._watches.close(url)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.listener.close()

    # -- what is received

    def on_message(self, channel: bytes, message: bytes) -> None:
        if channel == self._address or channel.startswith(self._ends):
            self._on_end(message)
        else:
            if message and channel.startswith(self._work):
                self._pushed.setdefault(channel, []).append(pushed_lease_of(message))
            count = self._counts.get(channel)
            if count is not None:
                count.note()

    def _on_end(self, message: bytes) -> None:
        end = 17 if message[0] == 114 else 3 + int.from_bytes(message[1:3], "big")
        run = run_of(message[:end])
        self.ended(run, read_node(run, "", message[end:])[0] if len(message) > end else None)

    def ended(self, run: str, root: Node | None) -> None:
        """A run has ended: resolve its watches, or keep the end for a watch to come."""
        known = run in self._own
        self._own.pop(run, None)
        watched = self._watches.resolve(run, root)
        self._unlisten(run)
        if watched or not known:
            return
        self._ended[run] = root
        if len(self._ended) > ENDED:
            self._ended.popitem(last=False)

    def on_reconnect(self) -> None:
        """The connection was cut for a while: nothing is known of what was submitted here, and anything may wait."""
        self._own.clear()
        for count in self._counts.values():
            count.note()
        self._ask_for(*self._watches.runs)

    def on_data_loss(self) -> None:
        """The server has lost some of its data: watches of runs that no longer exist are resolved."""
        self._ended.clear()
        self._doubted.update(self._watches.runs)
        self.on_reconnect()

    def submitted(self, run: str) -> None:
        """This process will be notified of the end of `run`; called before the submission, which may end it at once."""
        self._own[run] = None
        if len(self._own) > OWN:
            self._own.popitem(last=False)

    def refused(self, run: str) -> None:
        """It was not submitted after all."""
        self._own.pop(run, None)

    # -- waiting for the end of a run

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        if run in self._ended:
            return self._watches.add(run, True, self._ended.pop(run))
        future = self._watches.add(run, False)
        if run not in self._own:
            self._ask_for(run)
        if self._round is None:
            self._round = asyncio.get_running_loop().call_later(LOOK_S, self._look_around)
        return future

    def unwatch(self, run: str, future: asyncio.Future[Node | None]) -> None:
        self._watches.drop(run, future)
        if run not in self._watches:
            self._unlisten(run)

    @property
    def watching(self) -> int:
        return len(self._watches)

    def _ask_for(self, *runs: str) -> None:
        """Look up these runs soon, together with others that are asked for at the same time."""
        if not self._asked and runs:
            self._start(self._look_up())
        self._asked.update(runs)

    async def _look_up(self) -> None:
        await asyncio.sleep(0)
        asked, self._asked = self._asked, set()
        open_runs = await self._check([run for run in asked if run in self._watches])
        fresh = [run for run in open_runs if self._ends + run_name(run) not in self.listener]
        if fresh:
            # An end between looking and listening would be missed, so these are looked up again.
            await asyncio.gather(*(self.listener.add(self._ends + run_name(run)) for run in fresh))
            await self._check(fresh)

    async def _check(self, runs: Sequence[str]) -> list[str]:
        """Tell who watches those that have ended; the others."""
        try:
            roots = await self._look(runs)
        except StoreError:
            # A waiter that reads gets the same error; until then the next look may succeed.
            return []
        for run in runs:
            root = roots.get(run)
            if root.state in FINAL if root is not None else run in self._doubted:
                self._own.pop(run, None)
                self._watches.resolve(run, root)
                self._unlisten(run)
        self._doubted.difference_update(runs)
        return [run for run in runs if run in self._watches]

    def _unlisten(self, run: str) -> None:
        channel = self._ends + run_name(run)
        if channel in self.listener:
            self._start(self.listener.drop(channel))

    def _look_around(self) -> None:
        self._round = None
        runs = self._watches.runs
        self._ask_for(*runs)
        if runs:
            self._round = asyncio.get_running_loop().call_later(LOOK_S, self._look_around)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- waiting for work, or for changes

    async def wait_for_work(self, owner: str, seen: int, timeout_ms: int | None) -> int:
        return await self._wait(self._work + owner.encode(), seen, timeout_ms)

    def pushed_leases(self, owner: str) -> list[tuple[bytes, Lease]]:
        """The leases that `owner` was given since this was last asked, each with the id of its partition."""
        return self._pushed.pop(self._work + owner.encode(), [])

    async def wait_for_change(self, seen: int, timeout_ms: int | None, run: str | None) -> int:
        await self._follow()
        return await self._wait(self._changes + (b"" if run is None else run_name(run)), seen, timeout_ms)

    async def _wait(self, channel: bytes, seen: int, timeout_ms: int | None) -> int:
        count = self._counts.get(channel)
        if count is None:
            # Nothing was received before the first wait, so the caller looks again at once.
            count = self._counts[channel] = Changes()
            count.note()
            await self._make_room()
            await self.listener.add(channel)
        self._counts.move_to_end(channel)
        return await count.wait(seen, timeout_ms)

    async def _make_room(self) -> None:
        """Forget a channel on which nobody has waited for long."""
        oldest = next(iter(self._counts))
        if len(self._counts) > CHANNELS and not self._counts[oldest].waiting:
            del self._counts[oldest]
            await self.listener.drop(oldest)
