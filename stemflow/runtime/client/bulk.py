"""One action on many runs or dead letters: on a frozen selection, at a chosen pace, resumable after a crash.

A selection is stored as hints before anything is done, and so is the progress. Every action can be repeated, so what
was done and not noted before a crash is done once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct, json, structs

from stemflow.errors import OptionError, StemflowError
from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.records import FINAL, Node
from stemflow.runtime.client.dead_letters import ReplayOptions, replay, replayed_as
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.rerun import rerun
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.payloads.signing import SigningError, UnknownKey
from stemflow.runtime.runs.handle import UnknownRun
from stemflow.store.base import Request, StoreError
from stemflow.store.damaged import decoded_hints, log_once

BULKS: Final = "bulks"
"""The topic of the hints that say what was frozen and how far it is; what was chosen is in pages under `bulk/ID`."""
KEPT_MS: Final = 30 * 86_400_000
"""How long a selection is kept after its last progress."""
PAGE: Final = 1_000
"""Targets in one hint."""
NOTED: Final = 50
"""After so many targets the progress is stored."""

BulkAction = Literal["cancel", "rerun", "replay", "purge"]
Record = Callable[[str, str, str, str, Mapping[str, Any]], Awaitable[None]]
"""Puts an action into the audit: action, target, by, reason, details."""


class Target(Struct, frozen=True, array_like=True):
    """A run, and the paths of its dead letters if they are what is meant."""

    run: str
    paths: tuple[str, ...] = ()


class BulkOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the action is done: `force` of a cancel; `from_step` of a rerun (None: what did not succeed); `delay_ms` and
    `allow_unknown` of a replay, with `known_tasks`, names of tasks that are accepted."""

    force: bool = False
    from_step: str | None = None
    delay_ms: int = 0
    allow_unknown: bool = False
    known_tasks: tuple[str, ...] = ()


PLAIN: Final = BulkOptions()


class Bulk(Struct, frozen=True, kw_only=True):
    """A frozen selection of `total` runs (or runs with dead letters), frozen at `at_ms` (epoch ms), of which `done` are
    finished, `refused` of them without a change."""

    id: str
    action: BulkAction
    total: int
    at_ms: int
    done: int = 0
    refused: int = 0
    by: str = ""
    reason: str = ""
    options: BulkOptions = PLAIN


class BulkResult(Struct, frozen=True, kw_only=True):
    """What was done to one run. `run_id`: the run that takes it up. `before`: it had been done before. `refused`: why
    nothing was done."""

    run: str
    run_id: str | None = None
    before: bool = False
    refused: str | None = None


class BulkActions:
    """`app.control.bulk`: freezes selections and carries actions out on them."""

    def __init__(self, parts: Parts, submitter: Submitter, record: Record) -> None:
        self._parts, self._submitter, self._record = parts, submitter, record
        self._store, self._trust = parts.store, parts.library.trust

    async def freeze(
        self, action: BulkAction, targets: Iterable[str | DeadLetter], options: BulkOptions = PLAIN, *,
        by: str = "", reason: str = "",
    ) -> Bulk:  # fmt: skip
        """Store a selection and what is to be done with it; `carry_out` does it.

        Args:
            action: `cancel` or `rerun` runs, or `replay` or `purge` dead letters.
            targets: Ids of runs, or dead letters as `app.dead_letters` returns them.
            options: How it is done.
            by: The name of the operator.
            reason: Why.

        Returns:
            The frozen selection. It and its progress are kept for 30 days.

        Raises:
            UnknownKey: The runs are signed, and this process has no keys.
        """
        self._parts.require_open()
        chosen: dict[str, list[str]] = {}
        for one in targets:
            paths = chosen.setdefault(one if isinstance(one, str) else one.run, [])
            paths += [] if isinstance(one, str) else [one.path]
        await require_keys(self._parts, next(iter(chosen), ""))
        id = self._parts.ids.run_id()
        frozen = [Target(run, tuple(paths)) for run, paths in chosen.items()]
        for number, first in enumerate(range(0, len(frozen), PAGE)):
            await self._put(_pages(id), str(number), json.encode(frozen[first : first + PAGE]))
        bulk = Bulk(id=id, action=action, total=len(frozen), at_ms=self._store.now_ms(), by=by, reason=reason,
                    options=options)  # fmt: skip
        await self._put(BULKS, id, json.encode(bulk))
        details = {"action": action, "total": bulk.total, **structs.asdict(structs.replace(options, known_tasks=()))}
        await self._record("bulk", f"bulk:{id}", by, reason, details)
        return bulk

    async def list(self) -> Sequence[Bulk]:
        """The selections of the last 30 days, the newest first. With keys, those without a valid signature are passed
        over and logged."""
        self._parts.require_open()
        found = {}
        for name, body in (await self._store.hints(BULKS)).items():
            try:
                found[name] = self._read(BULKS, name, body)
            except OptionError as error:
                log_once(str(error))
        bulks = decoded_hints("the bulk action", json.Decoder(Bulk).decode, found)
        return sorted(bulks.values(), key=lambda one: (-one.at_ms, one.id))

    async def get(self, id: str) -> Bulk:
        """The selection with this id, or with the only id that begins so.

        Args:
            id: The id, or the beginning of it.

        Raises:
            OptionError: There is none, or more than one.
        """
        found = [one for one in await self.list() if one.id.startswith(id)]
        if len(found) != 1:
            what = "that of several" if found else "found none"
            raise OptionError(f"bulk {id!r:.80}: expected the beginning of the id of one bulk action, {what}; "
                              "`stemflow bulk list` lists them")  # fmt: skip
        return found[0]

    async def carry_out(
        self, id: str, *, per_second: float | None = None, on_result: Callable[[BulkResult], object] | None = None
    ) -> Bulk:
        """Do what was frozen, from where it was left. It may be interrupted at any time and called again.

        Args:
            id: The id of the selection.
            per_second: At most so many runs in a second; None: as fast as it goes.
            on_result: Is called with what became of each run.

        Returns:
            The selection with its progress.

        Raises:
            OptionError: There is no such selection.
            StoreError: The store cannot be used; the progress is kept.
        """
        bulk = await self.get(id)
        targets = await self._targets(bulk)
        loop = asyncio.get_running_loop()
        at = loop.time()
        try:
            for target in targets[bulk.done :]:
                result = await self._done(bulk, target)
                bulk = structs.replace(bulk, done=bulk.done + 1, refused=bulk.refused + (result.refused is not None))
                if bulk.done % NOTED == 0:
                    await self._put(BULKS, bulk.id, json.encode(bulk))
                if on_result is not None:
                    on_result(result)
                if per_second is not None and bulk.done < bulk.total:
                    at = max(at, loop.time()) + 1 / per_second
                    await asyncio.sleep(at - loop.time())
        finally:
            await self._put(BULKS, bulk.id, json.encode(bulk))
        return bulk

    async def _done(self, bulk: Bulk, target: Target) -> BulkResult:
        """Do it to one run. What it is refused for is part of the answer."""
        try:
            match bulk.action:
                case "cancel":
                    before = await self._parts.cancel(target.run, force=bulk.options.force) in FINAL
                    return BulkResult(run=target.run, before=before)
                case "rerun":
                    return await self._rerun(target.run, bulk.options.from_step)
                case "replay":
                    return await self._replay(target, bulk.options)
                case "purge":
                    return await self._purge(target)
        except StoreError:
            raise
        except StemflowError as error:
            return BulkResult(run=target.run, refused=str(error))

    async def _rerun(self, run: str, step: str | None) -> BulkResult:
        (root,) = await self._store.read([(run, "")])
        if not isinstance(root, Node):
            raise UnknownRun(run, self._store.url)
        new = replayed_as(root, self._store, *([] if step is None else [f"from {step}"]))
        (there,) = await self._store.read([(new, "")])
        if there is None:
            await rerun(self._parts, self._submitter, run, failed=step is None, from_step=step, new_id=new)
        return BulkResult(run=run, run_id=new, before=there is not None)

    async def _replay(self, target: Target, options: BulkOptions) -> BulkResult:
        letters = [one for one in await self._store.dead_letters(target.run) if one.path in target.paths]
        if letters:
            how = ReplayOptions(options.delay_ms, False, options.allow_unknown, frozenset(options.known_tasks))
            (done,) = await replay(self._parts, self._submitter, letters, how)
            return BulkResult(run=done.run, run_id=done.run_id, refused=done.refused)
        (root,) = await self._store.read([(target.run, "")])
        if isinstance(root, Node):
            new = replayed_as(root, self._store)
            (there,) = await self._store.read([(new, "")])
            if there is not None:
                return BulkResult(run=target.run, run_id=new, before=True)
        return BulkResult(run=target.run, refused=f"run {target.run}: expected its dead letter, but it is gone")

    async def _purge(self, target: Target) -> BulkResult:
        wanted = {(target.run, path) for path in target.paths}
        there = tuple(one.key for one in await self._store.dead_letters(target.run) if one.key in wanted)
        if there:
            request = Request(f"purge-{self._parts.ids.run_id()}", 1)
            await self._store.exchange(request, [Decision(purged=there)], None)
        return BulkResult(run=target.run, before=not there)

    # -- what is stored

    async def _targets(self, bulk: Bulk) -> Sequence[Target]:
        topic = _pages(bulk.id)
        pages = await self._store.hints(topic)
        read = json.Decoder(tuple[Target, ...]).decode
        names = sorted(pages, key=int)
        found = [one for name in names for one in read(self._read(topic, name, pages[name]))]
        if len(found) != bulk.total:
            raise OptionError(f"bulk {bulk.id}: expected {bulk.total:,} targets in {self._store.url}, found "
                              f"{len(found):,}: a part of the selection has expired; make it again")  # fmt: skip
        return found

    async def _put(self, topic: str, name: str, body: bytes) -> None:
        await self._store.put_hint(topic, name, self._trust.wrap(body, f"{topic} {name}"), KEPT_MS)

    def _read(self, topic: str, name: str, stored: bytes) -> bytes:
        try:
            return self._trust.unwrap(stored, f"{topic} {name}")
        except (SigningError, IndexError) as error:
            raise OptionError(f"bulk {name}: expected what somebody with a key has stored: {error}") from None


def _pages(id: str) -> str:
    return f"bulk/{id}"


async def require_keys(parts: Parts, run: str) -> None:
    """Raise UnknownKey if the run is signed and this process has no keys, before anything unsigned is stored there."""
    header = await parts.store.header(run)
    if header is not None and header.seal is not None and parts.library.trust.keys is None:
        raise UnknownKey(f"run {run}", None)
