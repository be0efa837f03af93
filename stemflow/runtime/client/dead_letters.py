"""Dead letters: replaying them, which starts a new run in place of the old one, and purging them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from stemflow.errors import OptionError
from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.records import FINAL, Key, Node
from stemflow.ports import IdSource
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.rerun import repeat
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey
from stemflow.runtime.runs.handle import DuplicateRun
from stemflow.store.base import ALL_DEAD_LETTERS, DeadLetterFilter, Request, Store
from stemflow.units import Duration, duration_of

PAGE = 500
"""Dead letters that are purged in one exchange."""


class Replayed(Struct, frozen=True):
    """The result of a replay for one run: `letters` are the dead letters of the old run `run` that were replayed.

    `run_id`: the new run; if None, `refused` has the reason.
    """

    run: str
    letters: tuple[DeadLetter, ...]
    run_id: str | None = None
    refused: str | None = None


class ReplayOptions(NamedTuple):
    """How dead letters are replayed; see `Stemflow.replay`. `delay_ms`: before which no task starts."""

    delay_ms: int
    dry_run: bool
    allow_unknown: bool
    known_tasks: frozenset[str]


def dead_letter_filter(
    now_ms: int,
    queue: str | None,
    task: str | None,
    reason: str | None,
    since: Duration | datetime | None,
    limit: int | None,
) -> DeadLetterFilter:
    """The filter for the store that `Stemflow.dead_letters` asks for, at the store's time `now_ms`.

    Raises OptionError, UnitError.
    """
    since_ms = 0
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise OptionError(f"dead letters: since: expected an instant with its time zone, got {since.isoformat()}")
        since_ms = int(since.timestamp() * 1_000)
    elif since is not None:
        since_ms = now_ms - duration_of("dead letters: since", since)
    most = ALL_DEAD_LETTERS.limit if limit is None else limit
    return DeadLetterFilter(queue=queue, task=task, reason=reason, since_ms=since_ms, limit=most)


def replayed_as(root: Node, store: Store, how: str = "replay") -> str:
    """The id of the run that replays the dead letters of the run of `root`, or repeats it in the way that `how` names.

    It is derived from the old run (its id, and its base, which differs when an id is used again), so that a replay
    is idempotent: repeated after a lost answer it finds the new run. Of a series of digests it is the first in the
    partition of the old run.
    """
    for turn in itertools.count():
        what = f"{root.run}/{root.base}: {how}" + (f" {turn}" if turn else "")
        run = "0" + hashlib.blake2b(what.encode(), digest_size=16).hexdigest()[1:]
        if store.partition_of(run) == store.partition_of(root.run):
            return run
    raise AssertionError("unreachable")


async def replay(
    parts: Parts, submitter: Submitter, letters: Iterable[DeadLetter], options: ReplayOptions
) -> list[Replayed]:
    """See `Stemflow.replay`. Each run is replayed, or refused, alone."""
    asked: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        asked.setdefault(letter.run, []).append(letter)
    known = options.known_tasks | frozenset(parts.registry)
    if not options.allow_unknown:
        known |= (await parts.preparer.remote_tasks.read()).keys()
    return [await _replay(parts, submitter, run, some, options, known) for run, some in asked.items()]


async def _replay(
    parts: Parts, submitter: Submitter, run: str, asked: list[DeadLetter], options: ReplayOptions, known: frozenset[str]
) -> Replayed:
    there = tuple(await parts.store.dead_letters(run))
    (root,) = await parts.store.read([(run, "")])
    if not isinstance(root, Node):
        url = parts.store.url
        text = f"run {run}: expected it in {url}, but it was deleted; submit it again, and purge what is left"
        return Replayed(run, there or tuple(asked), refused=text)
    new = replayed_as(root, parts.store)
    wanted = {letter.key for letter in asked}
    if not any(letter.key in wanted for letter in there):
        (again,) = await parts.store.read([(new, "")])
        taken_up = again is not None
        return Replayed(run, tuple(asked), new if taken_up else None, None if taken_up else _gone(run))
    refused = _refusal(root, there, frozenset() if options.allow_unknown else _unknown(there, known))
    if refused is not None or options.dry_run:
        return Replayed(run, there, None if refused else new, refused)
    try:
        await repeat(parts, submitter, root, new, tuple(letter.key for letter in there), delay_ms=options.delay_ms)
    except DuplicateRun as held:
        text = f"run {run}: its unique key is held by run {held.run_id}, which has not ended; wait for it or cancel it"
        return Replayed(run, there, refused=text)
    except (SignatureInvalid, UnknownKey, OptionError) as error:
        return Replayed(run, there, refused=str(error))
    return Replayed(run, there, new)


def _gone(run: str) -> str:
    return (
        f"run {run}: expected its dead letter, but it is gone: it was taken up by a rerun, purged, or has "
        f"expired; `stemflow runs` shows what was made of it, `stemflow rerun {run} --failed` "
        "runs again what did not succeed"
    )


def _unknown(letters: tuple[DeadLetter, ...], known: frozenset[str]) -> frozenset[str]:
    return frozenset(letter.task for letter in letters if letter.task) - known


def _refusal(root: Node, letters: tuple[DeadLetter, ...], unknown: frozenset[str]) -> str | None:
    if root.state not in FINAL:
        return (
            f"run {root.run}: expected it to have ended, it is {root.state}; wait until it has, or cancel it, "
            "then replay"
        )
    if unknown:
        names = ", ".join(sorted(unknown))
        return (
            f"run {root.run}: expected tasks that are registered here or that a worker has declared, got {names}; "
            "start a worker that has them, name their module, or allow unknown tasks"
        )
    return None


async def purge(store: Store, ids: IdSource, letters: Iterable[DeadLetter], dry_run: bool) -> list[DeadLetter]:
    """See `Stemflow.purge`. Each exchange purges a page, with one decision for each run. Raises StoreError."""
    asked: dict[Key, DeadLetter] = {letter.key: letter for letter in letters}
    there = {letter.key for letter in await store.dead_letters()}
    found = [letter for key, letter in asked.items() if key in there]
    channel = f"purge-{ids.run_id()}"
    for number, first in enumerate(range(0, 0 if dry_run else len(found), PAGE), 1):
        runs: dict[str, list[Key]] = {}
        for letter in found[first : first + PAGE]:
            runs.setdefault(letter.run, []).append(letter.key)
        decisions = [Decision(purged=tuple(keys)) for keys in runs.values()]
        await store.exchange(Request(channel, number), decisions, None)
    return found
