"""The results of `decide`: a Decision to commit as a whole, or a Need for more records or gate values."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from stemflow.model.facts import Fact, Post
from stemflow.model.plan import Plan
from stemflow.model.records import ErrorInfo, Header, Key, Node, Record


class Put(Struct, frozen=True, gc=False):
    """Write `record` if the stored one still has the revision `guard` (0: it must not exist); None deletes a claim."""

    key: Key
    guard: int
    token: int
    """The delivery that the stored node must still have."""
    record: Record | None
    task: str = ""
    """The task of a leaf that becomes ready, so that only workers that have it lease the leaf; empty: any may."""


DEAD_LETTER_MS = 7 * 86_400_000
"""How long a dead letter is kept, in milliseconds."""


class DeadLetter(Struct, frozen=True):
    """A task that failed for good, kept for the operator until `keep_ms` after `at_ms`; one per (run, path).

    `run` and `path`: the address of the node. `task`: its task. `reason`: a short code, such as `poison`. `error`: the
    last error. `queue`: of the task. `attempts`: the charged attempts, including the last one. `at_ms`: epoch
    milliseconds.
    """

    run: str
    path: str
    task: str
    reason: str
    at_ms: int
    error: ErrorInfo | None = None
    queue: str = "default"
    attempts: int = 0
    keep_ms: int = DEAD_LETTER_MS

    @property
    def key(self) -> Key:
        return (self.run, self.path)


class RunEnd(Struct, frozen=True, gc=False):
    """A run whose root became final. It may be pruned after `keep_ms`, but not before its last dead letter expires."""

    run: str
    keep_ms: int


class Pages(Struct, frozen=True):
    """The frozen items of a map, in pages of JSON arrays."""

    key: Key
    pages: tuple[bytes, ...]


class Reply(Struct, frozen=True, gc=False):
    """What the submitter of a run gets back.

    `accepted`: the run was created. `existing`: `run` was there before, under this id or as the holder of the unique
    key. `refused`: `run` holds the key, mode reject. `holder`: the id of the task or run that held the key although
    the new run was accepted.
    """

    status: Literal["accepted", "existing", "refused"]
    run: str
    holder: str | None = None


class Decision(Struct, frozen=True, kw_only=True, gc=False):
    """New versions of the records that were read, plus effects. A store commits all of it, or nothing."""

    puts: tuple[Put, ...] = ()
    seen: tuple[tuple[Key, int, int], ...] = ()
    """(key, rev, delivery) of what was read and may change, but is not written: it must still be so (rev 0: absent).
    A refusal is checked by it as a write is by its guards."""
    after: tuple[int, ...] = ()
    """The places of earlier decisions of the same exchange that this one rests on: if one of them is stale, so is this
    one. Its guards alone would fit a record that somebody else has written in place of theirs."""
    headers: tuple[Header, ...] = ()
    also: tuple[Header, ...] = ()
    """Further new runs, each with a copy of the root of the first run in `headers` under its own id: see `twins`."""
    plans: tuple[Plan, ...] = ()
    pages: tuple[Pages, ...] = ()
    fragments: tuple[tuple[str, str], ...] = ()
    """(run, plan digest) of the plans that a run uses in addition to that of its header."""
    dead: tuple[DeadLetter, ...] = ()
    purged: tuple[Key, ...] = ()
    """Dead letters to delete, because they were replayed or purged. One that does not exist is ignored."""
    dropped: tuple[str, ...] = ()
    """Expired runs whose id is used again: each is deleted completely before `puts` are written."""
    posts: tuple[Post, ...] = ()
    """Posts to append to the inboxes of their runs."""
    consumed: tuple[tuple[str, int], ...] = ()
    """(run, number): posts of the run up to that number are deleted from its inbox, as this decision applies them."""
    ended: tuple[RunEnd, ...] = ()
    """Runs whose root became final in this commit: their waiters are woken."""
    replies: tuple[Reply, ...] = ()
    refused: tuple[Fact, ...] = ()
    """Facts that changed nothing because they were late, duplicate, or under an old fencing token."""

    def twins(self) -> Iterator[Put]:
        """The roots of the runs in `also`."""
        if not self.also:
            return
        first = self.headers[0].run
        model = self.root_of(first)
        assert model is not None
        task = next(put.task for put in self.puts if put.key == (first, ""))
        for header in self.also:
            twin = copy.copy(model)
            twin.run = header.run
            yield Put(twin.key, 0, 0, twin, task)

    def root_of(self, run: str) -> Node | None:
        """The root of `run` as this decision writes it."""
        for put in self.puts:
            if put.key == (run, "") and isinstance(put.record, Node):
                return put.record
        return None


GateName = Literal[
    "when", "items", "case", "loop", "inputs", "span", "until", "unique", "concurrency", "rate_limit", "value", "catch",
    "limit", "emit", "answer", "timeout", "returns",
]  # fmt: skip
GateKey = tuple[str, str, str]
"""(run, path, name of the gate).

A loop asks under `again N` whether iteration N follows. A step that waits for an event asks under `event A B` for the
first event that fits with a number above A and up to B; numbers that follow are left out."""


class GateError(Struct, frozen=True):
    """An expression that failed. It is a value like any other; the node that asked for it becomes FAILED."""

    error: ErrorInfo
    dead: str | None = None
    """The reason of the dead letter, if the operator has to fix the cause."""


class Frozen(Struct, frozen=True):
    """The value of an `items` gate: `size` items in pages of JSON arrays; None if the plan has the items.

    `window`: how many members may be open at a time, where an expression gives it.
    """

    size: int | None
    pages: tuple[bytes, ...] = ()
    window: int | None = None


class LoopStart(Struct, frozen=True):
    """The value of a `loop` gate: what it carries into the first iteration, encoded, and whether there is one."""

    carry: bytes | None
    goes_on: bool
    limit: int | None = None
    """The largest number of iterations, where an expression gives it."""


class Arrival(Struct, frozen=True):
    """The value of an `event` gate: the number of the event that fits, and the encoded result of the step."""

    number: int
    result: bytes


class Emission(Struct, frozen=True):
    """The value of an `emit` gate: the id of the event, its encoded form, and the encoded result of the step."""

    id: str
    body: bytes
    result: bytes


class Need(Struct, frozen=True, kw_only=True):
    """What must be read before `decide` is called again with the same facts and instant. Nothing was decided."""

    keys: tuple[Key, ...] = ()
    headers: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    gates: tuple[GateKey, ...] = ()
    working: Mapping[Key, Record | None] = {}
    """The records as decided so far, for evaluating gates."""


Gates = Mapping[GateKey, Any]
