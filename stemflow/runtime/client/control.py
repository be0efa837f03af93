"""What operators do to a store: `app.control` and the commands `stemflow pause`, `resume` and `audit`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from stemflow.errors import OptionError
from stemflow.model.facts import Released, Sent
from stemflow.model.pause import PAUSE_KINDS, Pause
from stemflow.model.records import FINAL, NO_RUN, RUNNING, STOPPING, Claim, Key, Node, Topic, task_id, topic_key
from stemflow.runtime.catalog.controls import (
    DUMPS,
    WorkerOrder,
    ask_for_dump,
    put_concurrency,
    put_drain,
    put_pause,
    read_controls,
    take_back,
)
from stemflow.runtime.catalog.heartbeats import Heartbeat, heartbeats
from stemflow.runtime.client.bulk import BulkActions, require_keys
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.values.events import PAGE, event_of, read_event, write_event
from stemflow.runtime.values.resolver import Values
from stemflow.units import Duration, duration_of

AUDIT: Final = "stemflow.audit"
"""The type of the events that say what operators did."""
AUDITED_MS: Final = 30 * 86_400_000
"""How long they are kept."""
MOST_NAME: Final = 500
"""The longest name, and the longest text of a reason, in characters."""
ASK_S: Final = 0.2
"""How often the heartbeats are read while somebody waits for workers."""


class KeyIsHeld(OptionError):
    """A key is not released, since a live holder has it."""

    def __init__(self, key: str, holders: Sequence[Key]) -> None:
        names = ", ".join(task_id(one) for one in holders[:4])
        super().__init__(
            f"key {key!r:.200}: expected holders that are gone, got {names}; cancel that, wait, or give `--force` "
            "and a reason, and what gets the key runs next to it"
        )


class UnknownWorker(OptionError):
    """No live worker has this name."""

    def __init__(self, name: str, alive: Sequence[str]) -> None:
        names = ", ".join(alive[:10]) if alive else "none"
        super().__init__(f"worker {name!r:.80}: expected the name of a live worker, of which there are: {names}")


class Action(Struct, frozen=True, kw_only=True):
    """Something that an operator did, at `at_ms` (epoch ms): `action` on `target`, with `details` of the action."""

    at_ms: int
    action: str
    target: str
    by: str
    reason: str
    details: Mapping[str, Any]


class Control:
    """Pauses and resumes, and keeps an account of that. No worker is needed, and no task code.

    `by` and `reason` of its methods are stored with what they do; `by` is not authenticated. `bulk` does one thing to
    many runs.
    """

    def __init__(self, parts: Parts, submitter: Submitter) -> None:
        self._parts, self._store, self._library = parts, parts.store, parts.library
        self.bulk = BulkActions(parts, submitter, self.record)

    async def pause(
        self, target: str, *, for_: Duration | None = None, by: str = "", reason: str = ""
    ) -> Pause:
        """Start nothing of a queue, a workflow or a task any more; what runs goes on.

        Workers apply it within a second; `silent_workers` waits for that. Pausing again replaces the pause.

        Args:
            target: `queue:NAME`, `workflow:NAME` or `task:NAME`.
            for_: After this time (in seconds, or `"2h"`) it ends by itself; None: `resume` ends it.
            by: The name of the operator.
            reason: Why, for those who wonder.

        Returns:
            The pause.

        Raises:
            OptionError: `target` is of another form.
            UnitError: `for_` is no duration.
        """
        self._parts.require_open()
        now_ms = self._store.now_ms()
        until_ms = None if for_ is None else now_ms + duration_of("pause: for", for_)
        kind, name = _parsed(target)
        pause = Pause(kind=kind, name=name, at_ms=now_ms, until_ms=until_ms, by=_text("by", by),
                      reason=_text("reason", reason))  # fmt: skip
        await self.record("pause", target, by, reason, {"until_ms": until_ms})
        await put_pause(self._store, self._library.trust, pause)
        return pause

    async def resume(self, target: str, *, by: str = "", reason: str = "") -> Pause | None:
        """End the pause of a queue, a workflow or a task.

        Args:
            target: As for `pause`.
            by: The name of the operator.
            reason: Why.

        Returns:
            The pause that was ended; None if there was none.

        Raises OptionError.
        """
        self._parts.require_open()
        _parsed(target)
        found = next((one for one in await self.pauses() if one.target == target), None)
        if found is not None:
            await self.record("resume", target, by, reason, {"paused_at_ms": found.at_ms})
            await take_back(self._store, self._library.trust, found)
        return found

    async def pauses(self) -> Sequence[Pause]:
        """What is paused now, by target."""
        self._parts.require_open()
        now_ms = self._store.now_ms()
        controls = await read_controls(self._store, self._library.trust)
        return [one for one in controls.pauses if one.lasts(now_ms)]

    async def silent_workers(self, patience: Duration = 10) -> list[str]:
        """Wait until every live worker has applied what is paused, resumed or wanted of it.

        Args:
            patience: The longest wait, in seconds or as a duration.

        Returns:
            The names of the workers that have not said so in time; none where all have.
        """
        self._parts.require_open()
        loop = asyncio.get_running_loop()
        end = loop.time() + duration_of("patience", patience) / 1_000
        while True:
            digest = (await read_controls(self._store, self._library.trust)).digest
            now_ms = self._store.now_ms()
            beats = [one for one in (await heartbeats(self._store)).values() if one.state != "stopped"]
            silent = sorted(one.name for one in beats if one.alive(now_ms) and one.controls != digest)
            if not silent or loop.time() >= end:
                return silent
            await asyncio.sleep(ASK_S)

    # -- single workers

    async def order_worker(
        self, worker: str, *, drain: bool | None = None, concurrency: int | None = None, by: str = "", reason: str = ""
    ) -> WorkerOrder:
        """Change what one worker does, also after it was started again under this name.

        Args:
            worker: The name of a live worker; of several processes with one name, all.
            drain: Whether it leases nothing new; what it runs goes on. None: as it is.
            concurrency: Its number of slots; 0: as it was started. None: as it is.
            by: The name of the operator.
            reason: Why.

        Returns:
            What is wanted of it now.

        Raises:
            UnknownWorker: No live worker has this name.
        """
        self._parts.require_open()
        await self._beats_of(worker)
        store, trust = self._store, self._library.trust
        before = (await read_controls(store, trust)).orders.get(worker, WorkerOrder())
        details = {
            "drain": before.drain if drain is None else drain,
            "concurrency": before.concurrency if concurrency is None else concurrency or None,
        }
        await self.record("worker", f"worker:{worker}", by, reason, details)
        # Each is stored by itself, so that what another operator wants of the other one is kept.
        if drain is not None:
            await put_drain(store, trust, worker, drain)
        if concurrency is not None:
            await put_concurrency(store, trust, worker, concurrency)
        return (await read_controls(store, trust)).orders.get(worker, WorkerOrder())

    async def dump(self, worker: str, patience: Duration = 5) -> dict[str, str]:
        """The stacks of what a worker runs.

        Args:
            worker: The name of a live worker.
            patience: The longest wait for the answer, in seconds or as a duration.

        Returns:
            The text of each process with this name that has answered, by its name in the store.

        Raises:
            UnknownWorker: No live worker has this name.
        """
        self._parts.require_open()
        asked, id = len(await self._beats_of(worker)), self._parts.ids.run_id()
        await ask_for_dump(self._store, self._library.trust, worker, id)
        loop = asyncio.get_running_loop()
        end = loop.time() + duration_of("patience", patience) / 1_000
        while True:
            found = {
                name.partition("/")[2]: text.decode(errors="replace")
                for name, text in (await self._store.hints(DUMPS)).items()
                if name.startswith(f"{id}/")
            }
            if len(found) >= asked or loop.time() >= end:
                return found
            await asyncio.sleep(ASK_S)

    async def _beats_of(self, worker: str) -> list[Heartbeat]:
        now_ms = self._store.now_ms()
        alive = [one for one in (await heartbeats(self._store)).values() if one.alive(now_ms)]
        found = [one for one in alive if one.name == worker]
        if not found:
            raise UnknownWorker(worker, sorted({one.name for one in alive}))
        return found

    # -- keys

    async def release_key(self, key: str, *, force: bool = False, by: str = "", reason: str = "") -> bool:
        """Take a unique or concurrency key away from holders that are gone, or end the window of a unique key.

        A holder is gone if it has ended or is not in the store, or if its lease has expired. The next waiter gets the
        key once, whatever the old holder does later.

        Args:
            key: The key, as `stemflow keys` lists it.
            force: Take it away from live holders as well: what holds it goes on next to what gets it. Needs a reason.
            by: The name of the operator.
            reason: Why.

        Returns:
            Whether a holder or a window was there to be released.

        Raises:
            KeyIsHeld: A live holder has the key, and `force` is not given.
            OptionError: The key is not in use, or `force` has no reason.
        """
        self._parts.require_open()
        (claim,) = await self._store.read([(NO_RUN, key)])
        if not isinstance(claim, Claim):
            raise OptionError(f"key {key!r:.200}: expected a key in use, found none; `stemflow keys` lists those")
        if force and not reason.strip():
            raise OptionError("force: expected a reason, since what holds the key goes on next to what gets it")
        alive = [] if claim.finished else await self._alive(claim.holders)
        if alive and not force:
            raise KeyIsHeld(key, alive)
        details = {"holders": [task_id(one) for one in claim.holders], "force": force}
        await self.record("release", f"key:{key}", by, reason, details)
        decision = await self._parts.committer.commit([Released(key, claim.holders)])
        return decision.replies[0].status == "accepted"

    async def _alive(self, holders: Sequence[Key]) -> list[Key]:
        """Those of the holders that have not ended and whose lease, where they need one, has not expired."""
        nodes, now_ms = await self._store.read(list(holders)), self._store.now_ms()
        alive = []
        for key, node in zip(holders, nodes, strict=True):
            if not isinstance(node, Node) or node.state in FINAL:
                continue
            if node.tally is None and node.state in (RUNNING, STOPPING):
                (status,) = await self._store.leaf_status([key])
                if status is None or (status.lease_until_ms or 0) <= now_ms:
                    continue
            alive.append(key)
        return alive

    # -- the account

    async def record_on_run(
        self, action: str, run: str, by: str, reason: str, details: Mapping[str, Any] | None = None
    ) -> None:
        """As `record`, of something that is done to a run.

        Args:
            action: What is done, such as `cancel`.
            run: The id of the run.
            by: By whom.
            reason: Why.
            details: JSON data.

        Raises:
            UnknownKey: The run is signed, and this process has no keys.
        """
        await require_keys(self._parts, run)
        await self.record(action, f"run:{run}", by, reason, details)

    async def record(
        self, action: str, target: str, by: str, reason: str, details: Mapping[str, Any] | None = None
    ) -> None:
        """Store that somebody does something. It is stored before it is done, so that nothing is done in secret.

        Args:
            action: What is done, such as `pause`.
            target: To what.
            by: By whom.
            reason: Why.
            details: JSON data.
        """
        parts = self._parts
        what = {"action": action, "target": target, "by": by, "reason": reason, "details": dict(details or {})}
        id = parts.ids.run_id()
        body = write_event(self._library.encoders, event_of(AUDIT, id, what, self._store.now_ms()))
        await parts.committer.commit([Sent(AUDIT, id, body, AUDITED_MS)])

    async def audit(self, limit: int = 100) -> list[Action]:
        """What operators did in the last 30 days, the newest first.

        Args:
            limit: The most actions.

        Returns:
            The actions.
        """
        self._parts.require_open()
        (topic,) = await self._store.read([(NO_RUN, topic_key(AUDIT))])
        if not isinstance(topic, Topic):
            return []
        values, found = Values(self._library), list[Action]()
        for last in range(topic.last, topic.last - limit, -PAGE):
            first = max(last - PAGE, topic.last - limit, 0)
            stored = await values.events(AUDIT, range(first + 1, last + 1))
            for one in reversed(stored):
                data = read_event(self._library.encoders, AUDIT, one.body)["data"]
                found.append(Action(at_ms=one.at_ms, **data))
            if not stored:
                break
        return found


def _parsed(target: str) -> tuple[Any, str]:
    """The kind and the name of what is to be paused. Raises OptionError."""
    kind, _, name = target.partition(":") if isinstance(target, str) else ("", "", "")
    if kind == "schedule":
        raise OptionError("pause: expected queue:NAME, workflow:NAME or task:NAME; `stemflow schedule pause NAME` "
                          "pauses a schedule")  # fmt: skip
    if kind not in PAUSE_KINDS or not 1 <= len(name) <= MOST_NAME:
        raise OptionError(f"pause: expected queue:NAME, workflow:NAME or task:NAME, got {target!r:.80}")
    return kind, name


def _text(where: str, text: str) -> str:
    if not isinstance(text, str) or len(text) > MOST_NAME:
        raise OptionError(f"{where}: expected a text of at most {MOST_NAME} characters, got {text!r:.80}")
    return text
