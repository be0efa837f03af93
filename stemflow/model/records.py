"""Records: what a store keeps. A store compares revisions and maintains indexes; all other fields are opaque to it.

Types that are created for every task (here, in facts and in effects) have `gc=False`: they are never part of a
reference cycle, so the garbage collector need not traverse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from stemflow.model.policy import UniqueMode
from stemflow.model.rates import Rate

State = Literal["waiting", "held", "ready", "running", "stopping", "succeeded", "failed", "skipped", "cancelled"]

WAITING: Final = "waiting"
HELD: Final = "held"
READY: Final = "ready"
RUNNING: Final = "running"
STOPPING: Final = "stopping"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
CANCELLED: Final = "cancelled"

FINAL: Final = frozenset((SUCCEEDED, FAILED, SKIPPED, CANCELLED))

Cause = Literal["condition", "upstream"]

Key = tuple[str, str]
"""(run id, path) of a node; ("", key) of a claim."""

NO_RUN: Final = ""
"""The run part of the keys of claims, which belong to no run."""


class Tally:
    """Which members of a scope have opened, and how those ended that have ended: one bit per member, and counters.

    A bit is set once, and a counter changes only together with a bit, so a member that is reported twice counts once.
    Bit sets are Python integers: member i is bit `1 << i`.
    """

    __slots__ = ("size", "opened", "ended", "ok", "failed", "skipped", "upstream", "cancelled", "done", "failures")

    def __init__(self, size: int) -> None:
        self.size = size
        self.opened = self.ended = self.ok = self.failed = 0
        self.skipped = self.upstream = self.cancelled = 0
        self.done = 0
        self.failures = 0

    def tick(self, index: int, how: str) -> bool:
        """Set the bit of member `index`; False if it was set before. `how` is ok, failed, skipped, upstream or
        cancelled."""
        bit = 1 << index
        if self.ended & bit:
            return False
        self.ended |= bit
        self.done += 1
        setattr(self, how, getattr(self, how) | bit)
        if how == "failed":
            self.failures += 1
        return True

    def how(self, index: int) -> str | None:
        """How member `index` ended, or None while it has not."""
        bit = 1 << index
        if not self.ended & bit:
            return None
        for how in ("ok", "failed", "skipped", "upstream"):
            if getattr(self, how) & bit:
                return how
        return "cancelled"

    def end_many(self, bits: int, how: str) -> None:
        """Set all of `bits` that were not set before."""
        fresh = bits & ~self.ended
        setattr(self, how, getattr(self, how) | fresh)
        self.ended |= fresh
        self.done += fresh.bit_count()

    def cancel_unopened(self, spared: int = 0) -> None:
        """End every member that has not opened as cancelled, except those in `spared`, which has a bit for each."""
        self.end_many(((1 << self.size) - 1) & ~self.opened & ~spared, "cancelled")

    @property
    def open(self) -> int:
        """Bits of the members that have opened and not ended."""
        return self.opened & ~self.ended

    @property
    def complete(self) -> bool:
        return self.done >= self.size

    def copy(self) -> Tally:
        twin = Tally.__new__(Tally)
        for name in Tally.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and all(getattr(self, n) == getattr(other, n) for n in Tally.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, n) for n in Tally.__slots__))

    def __repr__(self) -> str:
        return f"Tally({', '.join(f'{n}={getattr(self, n):b}' for n in Tally.__slots__)})"


class ErrorInfo(Struct, frozen=True, omit_defaults=True):
    """An error as data; no exception is ever rebuilt from it. `mro` contains qualified class names, beginning with the
    own class."""

    type: str
    message: str
    qualname: str = ""
    mro: tuple[str, ...] = ()
    traceback: str = ""
    data: Any = None


AttemptOutcome = Literal["succeeded", "failed", "timed-out", "lost", "handed-back", "ignored", "cancelled"]


class Attempt(Struct, frozen=True, array_like=True):
    """A delivery of a task to a worker, and how it ended.

    `number` counts from 0; a lost or returned attempt is followed by one of the same number. `outcome`: such as
    `failed` or `lost`. `ended_at_ms`: epoch milliseconds. `worker`: its name, empty if it is not known.
    `started_at_ms`: epoch milliseconds, 0 if it is not known. `error`: why it failed, was lost, or was cancelled.
    """

    number: int
    outcome: AttemptOutcome
    ended_at_ms: int
    worker: str = ""
    started_at_ms: int = 0
    error: ErrorInfo | None = None


class Awaits(Struct, frozen=True, omit_defaults=True):
    """What a HELD step waits for: events of the topic with this key, after number `seen`, until `until_ms`."""

    topic: str
    seen: int
    until_ms: int | None = None


def turn_of(ahead: int) -> int:
    """The turn of a leaf of which `ahead` others of its run are ready: 0, 1, 2, 2, 3, 3, 3, 3, 4 ... In a store, leaves
    of one priority are leased by turn, so that no run waits for many more leaves of another than it has itself."""
    return min(ahead.bit_length(), LAST_TURN)


LAST_TURN: Final = 31


class Node(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A node of a plan within a run: a leaf, a wait or, if it has a tally, a scope. Only `core` creates new versions of
    it.

    `rev` grows with each commit. `delivery`, the fencing token, grows with each lease and each loss of a lease.
    `attempt` grows only with a charged failure. The node is not leased before `at_ms`; its timer is due at `due_at_ms`.
    """

    run: str
    path: str
    plan: str
    node: int
    index: int = 0
    state: State
    base: int = 0
    """The value at which `rev` and `delivery` began: see `Header.base`."""
    rev: int = 0
    delivery: int = 0
    attempt: int = 0
    losses: int = 0
    retries: tuple[int, ...] = ()
    """Leaf only: the retries that each rule of its retry policy has used, where the policy is a list."""
    queue: str = "default"
    priority: int = 0
    turn: int = 0
    """Leaf only: how many leaves of its run were ready before it when it opened, as a power of two: see `turn_of`."""
    limits: tuple[Rate, ...] = ()
    lease_ms: int = 30_000
    at_ms: int = 0
    due_at_ms: int | None = None
    tally: Tally | None = None
    bound: int | None = None
    """Scope only: the window of a map or the limit of a loop, where an expression gives it."""
    extra: tuple[tuple[str, int], ...] = ()
    """Scope only: (fragment digest, number of members) that joined while it ran."""
    verdict: State | None = None
    kill: bool = False
    stopped: bool = False
    """Scope only: it was stopped from outside, by its scope or by a cancel, so nothing may be caught any more."""
    handling: bool = False
    result: bytes | None = None
    """The encoded value. None with SUCCEEDED means null, or that the value comes from its members or from `alias`."""
    alias: Key | None = None
    """The node whose value and error this one shares."""
    error: ErrorInfo | None = None
    failed_at: str | None = None
    """Path of the node whose error made this one FAILED."""
    cause: Cause | None = None
    claim: str | None = None
    """The unique key that it holds or waits for."""
    slot: str | None = None
    """The concurrency key that it holds or waits for, once that is known."""
    inputs: tuple[str, bytes] | None = None
    """Root only: inputs that replace those of the header, and the debounced run that they were submitted for."""
    stand_in: Key | None = None
    """Leaf only: the node whose arguments it is called with, from a later call that was debounced."""
    duplicates: int = 0
    """How many other calls had found its unique key taken when it ended."""
    opened_at_ms: int = 0
    started_at_ms: int = 0
    ended_at_ms: int = 0
    awaits: Awaits | None = None
    """A step that waits for an event."""
    taken: tuple[tuple[str, int], ...] = ()
    """Outermost loops only: (path of a step without iterations, number of an event that one of its iterations got)."""
    journal: tuple[Attempt, ...] = ()
    """Leaf only: its attempts, unless the first one succeeded; see `core/journal.py`."""
    unlisted: int = 0
    """Leaf only: how many attempts were left out of the middle of the journal."""
    seal: bytes | None = None
    """Signature over the fields that steer execution; see `runtime/payloads/signing.py`."""

    @property
    def key(self) -> Key:
        return (self.run, self.path)


class Sharer(Struct, frozen=True, array_like=True):
    """A HELD node that will share the outcome of `of`, a holder or a waiter of the same claim.

    `runs`: it may take the place of `of` should that be cancelled; a run that had opened its members may not.
    """

    node: Key
    of: Key
    runs: bool = True


class Claim(Struct, kw_only=True, omit_defaults=True):
    """The state of a unique key (then `limit` is 1) or of a concurrency key.

    With `finished` its holder has succeeded, and it is a window over that holder until `until_ms`.
    """

    key: str
    limit: int = 1
    holders: tuple[Key, ...] = ()
    waiters: tuple[Key, ...] = ()
    """HELD nodes whose turn comes in this order."""
    sharers: tuple[Sharer, ...] = ()
    rev: int = 0
    finished: bool = False
    until_ms: int | None = None
    duplicates: int = 0
    """How many other calls arrived while its holder held it."""
    seal: bytes | None = None


class Topic(Struct, kw_only=True, array_like=True, tag="topic"):
    """The state of one type of events: the number of the last one, the oldest that is still given to a step that begins
    to wait, and the steps that wait."""

    key: str
    last: int = 0
    first: int = 1
    waiters: tuple[Key, ...] = ()
    until_ms: int = 0
    """The instant from which none of its events is kept any more."""
    rev: int = 0
    seal: bytes | None = None


class StoredEvent(Struct, kw_only=True, array_like=True, tag="event"):
    """An event under its number, or, without a body, the number of the event with an id."""

    key: str
    number: int
    at_ms: int
    until_ms: int
    body: bytes = b""
    """The encoded event `{id, type, data, time}`."""
    rev: int = 0
    seal: bytes | None = None


Shared = Claim | Topic | StoredEvent
"""Records that belong to no run."""

Record = Node | Shared


class ClaimSpec(Struct, frozen=True, omit_defaults=True):
    """The unique key that a run is submitted with. `take`: take it over from a finished holder."""

    key: str
    mode: UniqueMode | Literal["take"] = "return_existing"
    for_ms: int | None = None


class Header(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The immutable data of a run."""

    run: str
    plan: str
    name: str = ""
    inputs: bytes = b"{}"
    created_at_ms: int = 0
    base: int = 0
    """The value at which the revisions and tokens of its nodes begin. An id chosen by a caller may be used again once
    the run has expired; with a larger base, nothing that remembers the old run can mistake the new one for it."""
    not_before_ms: int = 0
    """No task of the run starts before this instant."""
    claim: ClaimSpec | None = None
    file: str | None = None
    tasks: tuple[str, ...] = ()
    """How the tasks were found (`--tasks`), so that `resume` and `rerun` find them the same way."""
    headers: Mapping[str, str] = {}
    """Given with the submission; available in the context of each task of the run."""
    meta: Mapping[str, Any] = {}
    labels: Mapping[str, str] = {}
    """Of the workflow file, for finding its runs."""
    parent: Key | None = None
    """The task that started this run. `root`: the first run of that line, which no task started."""
    root: str | None = None
    rerun_of: str | None = None
    reply_to: str = ""
    """The address at which the submitting process listens for the end; see `Store.address`."""
    origin: str | None = None
    """The first run in a series of reruns: encoded values are bound to its id in all of them."""
    no_cache: bool = False
    """Its tasks neither read nor write cached results."""
    redo: tuple[str, ...] = ()
    """Paths whose results a rerun does not keep, including everything below them."""
    seal: bytes | None = None


TOPIC: Final = "topic:"
EVENT: Final = "event:"
EVENT_ID: Final = "event-id:"
"""Beginnings of the keys of topics, events, and ids of events. No key of a claim begins so."""


def topic_key(type: str) -> str:
    """The key of the record of a type of events."""
    return TOPIC + type


def event_key(type: str, number: int) -> str:
    """The key of the record of an event."""
    return f"{EVENT}{type} {number}"


def event_id_key(type: str, id: str) -> str:
    """The key of the record that says which number the event with this id has."""
    return f"{EVENT_ID}{type} {id}"


def task_id(key: Key) -> str:
    """The public id of a task: `run`, or `run/path`."""
    return f"{key[0]}/{key[1]}" if key[1] else key[0]


def task_keys(task_id: str) -> list[Key]:
    """The keys that a public id may refer to, in order of precedence: the run of that id, then tasks of
    runs whose id is the part before a `/`, the longest run id first. A run id may contain a `/` itself."""
    found = [(task_id, "")]
    end = len(task_id)
    while (end := task_id.rfind("/", 0, end)) > 0:
        if task_id[end + 1 :]:
            found.append((task_id[:end], task_id[end + 1 :]))
    return found


SELF = ":self"
"""The path segment, within the undo of a composite, of the task that undoes it as a whole."""


def child_path(parent: str, segment: str) -> str:
    """Join a member's segment (`name`, `[i]` or `!hook`) to the path of its scope."""
    if not parent or not segment or segment[0] in "[!":
        return parent + segment
    return f"{parent}.{segment}"


def parent_path(path: str) -> str:
    """The path of the scope that holds `path` (which is not the root)."""
    return path[: max(path.rfind("."), path.rfind("["), path.rfind("!"), 0)]


def is_below(key: Key, ancestor: Key) -> bool:
    """Whether `key` names `ancestor` itself, or a node below it."""
    (run, path), (of, above) = key, ancestor
    rest = path[len(above) :]
    return run == of and path.startswith(above) and (not rest or not above or rest[0] in ".[!")
