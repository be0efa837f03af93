"""Placeholders for stored values that cannot be decoded, so that one of them fails one run and no other.

A store answers with a placeholder instead of raising: an exchange serves many runs, and the others go on. Code that
needs the value raises RecordsDamaged for its run. What a store can still read (key, revision, token) is kept, so that
the record can be replaced under its guards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stemflow.errors import StemflowError
from stemflow.model.effects import DeadLetter
from stemflow.model.records import (
    EVENT,
    EVENT_ID,
    FAILED,
    FINAL,
    RUNNING,
    TOPIC,
    Claim,
    ErrorInfo,
    Header,
    Key,
    Node,
    Record,
    Shared,
    State,
    StoredEvent,
    Topic,
    task_id,
)

T = TypeVar("T")

log = logging.getLogger("stemflow.store")


class RecordsDamaged(StemflowError):
    """Something of a run cannot be read, is missing, or contradicts the rest, so that the run cannot go on.

    `run`: its id; empty if what is damaged belongs to no single run. `key`: the record that is damaged, if it is one.
    """

    def __init__(self, run: str, why: str, key: Key | None = None) -> None:
        super().__init__(f"run {run}: {why}; the store is damaged" if run else f"{why}; the store is damaged")
        self.run, self.why, self.key = run, why, key


class DamagedNode(Node, kw_only=True, gc=False):
    """A node that cannot be decoded. It is RUNNING, or FAILED if it had ended; `why` says what is wrong."""

    why: str

    def repaired(self) -> Node:
        """The same as an ordinary node, which a decision may end."""
        return Node(
            run=self.run, path=self.path, plan="", node=0, state=self.state, rev=self.rev, delivery=self.delivery,
            error=self.error, failed_at=self.failed_at,
        )  # fmt: skip


class DamagedHeader(Header, frozen=True, kw_only=True, gc=False):
    """A header that cannot be decoded; `why` says what is wrong."""

    why: str


def damaged_node(
    key: Key, error: Exception, state: State | None = None, rev: Any = 0, delivery: Any = 0
) -> DamagedNode:
    """The placeholder for the record at `key`. `state`, `rev` and `delivery`: what could be read of it."""
    why = f"the record of {task_id(key)} cannot be read ({described(error)})"
    final = state in FINAL
    return DamagedNode(
        run=key[0],
        path=key[1],
        plan="",
        node=0,
        state=FAILED if final else RUNNING,
        rev=rev if isinstance(rev, int) else 0,
        delivery=delivery if isinstance(delivery, int) else 0,
        error=ErrorInfo("Damaged", why, "stemflow.Damaged"),
        failed_at=key[1] if final else None,
        why=why,
    )


def damaged_header(run: str, error: Exception) -> DamagedHeader:
    """The placeholder for the header of a run."""
    return DamagedHeader(run=run, plan="", why=f"its header cannot be read ({described(error)})")


def damaged_shared(key: str, rev: int, error: Exception) -> Shared:
    """A claim or topic without nodes, or an event that is kept no longer, in place of one that cannot be decoded: the
    next decision about the key replaces it.

    Runs that held it, or waited for it, no longer find themselves in it.
    """
    if key.startswith(TOPIC):
        log_once(f"{key} cannot be read ({described(error)}); steps that wait for such events are not woken")
        return Topic(key=key, rev=rev)
    if key.startswith((EVENT, EVENT_ID)):
        log_once(f"{key} cannot be read ({described(error)}); it is passed over")
        return StoredEvent(key=key, number=0, at_ms=0, until_ms=0, rev=rev)
    log_once(f"the claim of key {key} cannot be read ({described(error)}); the key counts as free")
    return Claim(key=key, rev=rev)


def damaged_letter(key: Key, error: Exception, *, queue: str, reason: str, at_ms: int) -> DeadLetter:
    """The placeholder for a dead letter: it can be listed and purged."""
    why = ErrorInfo("Damaged", f"this dead letter cannot be read ({described(error)})", "stemflow.Damaged")
    return DeadLetter(*key, "", reason, at_ms, why, queue)


def readable(record: Record | None) -> Record | None:
    """`record`, unless it is a placeholder. Raises RecordsDamaged."""
    if isinstance(record, DamagedNode):
        raise RecordsDamaged(record.run, record.why, record.key)
    return record


def decoded_or_none(what: str, decode: Callable[[bytes], T], body: bytes) -> T | None:
    """`decode(body)`; None, with a line in the log, if that is impossible. `what`: names it there."""
    try:
        return decode(body)
    except Exception as error:  # bytes that anybody may have written raise anything
        log_once(f"{what} cannot be read ({described(error)}); it is passed over")
        return None


def decoded_hints(what: str, decode: Callable[[bytes], T], hints: Mapping[str, bytes]) -> dict[str, T]:
    """Those of `hints` that can be decoded, by name; one that cannot is logged as `what` and its name."""
    found = ((name, decoded_or_none(f"{what} {name}", decode, body)) for name, body in hints.items())
    return {name: one for name, one in found if one is not None}


_logged: dict[str, None] = {}
"""Lines that this process has logged, the newest REMEMBERED of them: what is read again and again is reported once."""
REMEMBERED = 1_000


def log_once(line: str) -> None:
    """Log a line at ERROR, unless this process has done so before."""
    if line not in _logged:
        log.error("%s", line)
        _logged[line] = None
        if len(_logged) > REMEMBERED:
            del _logged[next(iter(_logged))]


def described(error: Exception) -> str:
    """The kind of an error and its first line, which says nothing of the data."""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:200]
