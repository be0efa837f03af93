"""The contract of a store: its methods and the types they use.

Every promise in a docstring here has a test in `stemflow.testing.contract`, which runs on every store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from stemflow.errors import StemflowError
from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.facts import Due, Post
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.plan import Plan
from stemflow.model.records import Claim, Header, Key, Node, Record
from stemflow.store.health import HealthReport, Inventory
from stemflow.store.places import split


class StoreError(StemflowError):
    """The store cannot be used. The message names the store, what it answered, and what to do."""


class StoreUnavailable(StoreError):
    """The store did not answer; whether the call was carried out is unknown. Sending the same request again is safe."""


class StoreClosed(StoreError):
    """The store was closed by its process while a call waited. Runs go on in the store."""


class BackpressureError(StoreError):
    """The store accepts no new work for now; runs that have begun go on."""


class StateLost(StoreError):
    """The store lost acknowledged commits and continues from an earlier state; what rests on older reads is void."""


class Want(Struct, frozen=True, kw_only=True):
    """What a worker is ready to lease. `queues` None: every queue; `tasks` None: every task; `only_run` limits it to
    one run; `owner` names the process (see `owner_id`)."""

    owner: str
    limit: int
    queues: tuple[str, ...] | None = None
    only_run: str | None = None
    tasks: frozenset[str] | None = None
    """The tasks that the worker has; leaves whose task the store does not know are leased all the same."""
    pushes: int | None = None
    """Pushed leases received so far, see `Store.pushed_leases`; None disables push."""
    without: tuple[str, ...] = ()
    """Queues of which nothing may be leased, although `queues` may name them."""
    oldest: int = 0
    """How many of them shall be those that became ready first, whatever their priority and turn: so nothing starves.
    Leaves with rate limits, and a worker of one run, take no part in this."""

    def accepts(self, place: str) -> bool:
        """Whether leaves of this place may be leased; see `stemflow.store.places`."""
        queue, task = split(place)
        if queue in self.without:
            return False
        return (self.queues is None or queue in self.queues) and (self.tasks is None or not task or task in self.tasks)

    @property
    def accepts_all(self) -> bool:
        """Whether leaves of every place may be leased."""
        return self.queues is None and self.tasks is None and not self.without


class Lease(Struct, frozen=True, gc=False):
    """The right to work on a leaf until `until_ms`; its fencing token is `node.delivery`.

    `header` comes with a leaf that is the root of its run, which a worker needs at once.
    """

    node: Node
    until_ms: int
    header: Header | None = None


class Request(Struct, frozen=True):
    """Names one exchange: a channel serves one caller at a time and counts its requests from 1.

    `epoch`: the store's when the caller began to read what its decisions rest on.
    """

    channel: str
    sequence: int
    epoch: int = 0


class Inbox(Struct, frozen=True):
    """What was posted to a run, in the order of posting, up to number `upto`; `scopes` are those named, as they are."""

    run: str
    upto: int
    posts: tuple[Post, ...]
    scopes: tuple[Node, ...]
    damaged: bool = False
    """Some of the posts cannot be decoded."""


class Exchange(Struct, frozen=True, kw_only=True):
    """The answer of one exchange. `committed[i]` is False when decision i was stale: nothing of it was written."""

    committed: tuple[bool, ...]
    leases: tuple[Lease, ...]
    timers: tuple[Due, ...]
    """Timers that are due; each comes again until a decision moves it."""
    next_at_ms: int | None
    """The earliest instant at which something that waits (delay, timer, limited lane) may become due, or None."""
    now_ms: int
    current: tuple[tuple[Key, Record | None], ...] = ()
    """What the guards of stale decisions named, as it now is, so that deciding again needs no reading."""
    inbox: tuple[Inbox, ...] = ()
    busy_inboxes: tuple[str, ...] = ()
    """Runs whose inbox another caller has leased (at most INBOX_RUNS)."""


EndedBadly = Literal["failed", "cancelled"]
"""States of ended runs that are found by an index."""


class Renewed(Struct, frozen=True):
    """What a renewal found: tokens that no longer hold, and nodes whose workers are to stop."""

    gone: tuple[tuple[Key, int], ...]
    stopping: tuple[tuple[Key, bool], ...]
    """(key, kill) of nodes in STOPPING."""


class RunInfo(Struct, frozen=True):
    """A run as `runs` lists it."""

    header: Header
    root: Node


class ExpiredCounts(Struct, frozen=True, kw_only=True):
    """Counts of expired records: ended runs, dead letters, and `others` (claims past their window, starts that no rate
    limit looks back to, memos). What a server lets expire by itself is not among them."""

    runs: int
    dead_letters: int
    others: int


class DeadLetterFilter(Struct, frozen=True, kw_only=True):
    """Which dead letters are meant: all of what is given must fit. `since_ms`: not older than this instant."""

    queue: str | None = None
    task: str | None = None
    reason: str | None = None
    since_ms: int = 0
    limit: int = 1_000_000

    def fit(self, letter: DeadLetter) -> bool:
        """Whether `letter` is one of them, but for the limit."""
        given = ((self.queue, letter.queue), (self.task, letter.task), (self.reason, letter.reason))
        return letter.at_ms >= self.since_ms and all(want is None or want == has for want, has in given)


ALL_DEAD_LETTERS = DeadLetterFilter()


class Renewer(Protocol):
    """A synchronous object with its own connection, used from a thread, so that a busy event loop loses no lease."""

    def renew(self, held: Sequence[tuple[Key, int, int]]) -> Renewed:
        """Extend each (key, token, lease_ms) that still holds to now + lease_ms. Idempotent."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """Every method is safe to repeat."""

    url: str
    address: str
    """Stored in `Header.reply_to` of runs submitted here, so that this process is notified of their end."""
    concurrent_exchanges: bool
    """Whether the store is a server, which works in parallel with its caller: exchanges on different channels may be
    under way at once, and a lease may be pushed to an idle worker."""

    async def open(self) -> None:
        """Connect and create what is missing. Raises StoreError with a place and a next step."""
        ...

    async def close(self) -> None:
        """Close the connections once it was called as often as `open`; then watchers get StoreClosed."""

    async def check_health(self) -> HealthReport:
        """Check the store's server or file, whether it is open or not; nothing is created or changed.

        Raises StoreError when it cannot be reached at all.
        """
        ...

    async def inventory(self) -> Inventory:
        """Counts of what is stored and of what makes no progress."""
        ...

    async def waiting_tasks(self) -> list[tuple[str, str]]:
        """(queue, task) of leaves that may be ready or delayed, where the task is known."""
        ...

    def now_ms(self) -> int:
        """The store's clock, ms since the epoch; it never runs backwards."""
        ...

    @property
    def epoch(self) -> int:
        """The number of losses of acknowledged data that were detected since the store was opened."""
        ...

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        """Commit each of `decisions` (all of it or, if any guard fails, nothing), then lease up to `want.limit` leaves.

        Before anything is written, all of each run in `dropped` is deleted. A header, a plan or a letter that is
        there already stays as it is; a run is kept for `keep_ms` after its end, and no shorter than its dead letters.
        Guards of a Put: the stored record's `rev` equals `guard` (0: absent) and a node's `delivery` equals `token`;
        each of `seen` still has its `rev` and, a node, its `delivery`: a lease changes that alone.
        Decisions are committed in order and answered alone. Leasing is the table's READY x leased: state RUNNING,
        `delivery` + 1, never a leaf whose `at_ms` is in the future or whose `due_at_ms` has passed (it has expired),
        only of wanted queues and tasks (`Put.task`), highest priority first, then in order of becoming known; a leaf
        with `limits` only when each of its sliding windows admits it (`core.limits`); starts are counted by the limit's
        key. Without `want` the answer has no leases, timers and inboxes.
        The inbox of a run is leased to one caller at a time, INBOX_POSTS of its posts at once; it is free again when
        some of them were consumed, or after INBOX_MS. It is not part of the answer to a repeated request.
        A repeated `request` changes nothing and gets its first `committed` and those leases that still hold under their
        token, as they now are. One that changed nothing is not remembered: repeated, it is carried out.
        A caller that got less than it wanted is woken in `wait_for_work`.
        A request of an earlier epoch than the store's is not carried out, and StateLost is raised.
        """
        ...

    def partition_of(self, run: str) -> int:
        """The number of the partition that stores `run`, or with NO_RUN the keys that runs share: one decision touches
        runs of one partition only."""
        ...

    async def read(self, keys: Sequence[Key]) -> list[Record | None]:
        """Current records in the order of `keys`; None where there is none."""
        ...

    async def nodes(self, run: str) -> list[Node]:
        """Every record of the run `run`, in order of creation."""
        ...

    async def leaf_status(self, keys: Sequence[Key]) -> list[LeafStatus | None]:
        """What the indexes know of each of these leaves, in the order of `keys`; None where there is none."""
        ...

    async def leased(self, limit: int) -> list[Lease]:
        """The leases of this store, without headers, that end first first; at most `limit`."""
        ...

    async def claims(self, limit: int, after: str = "") -> list[Claim]:
        """At most `limit` claims that a node holds or waits for, in the order of their keys, from the first key that
        follows `after`.

        A claim that is only a window over a holder that has ended is not among them.
        """
        ...

    async def header(self, run: str) -> Header | None:
        """The header of the run `run`; None where there is none."""
        ...

    async def plan(self, digest: str) -> Plan | None:
        """The plan with this `digest`; None where no run uses it."""
        ...

    async def page(self, key: Key, number: int) -> bytes | None:
        """Page `number` of the items of the map `key`, which came with the decision that stored them."""
        ...

    async def runs(
        self, limit: int, prefix: str = "", after: str = "", state: EndedBadly | None = None
    ) -> list[RunInfo]:
        """The newest `limit` runs, newest first; with `prefix` only runs whose id begins with it.

        With `after`, the id of a run, only those that follow it in this order; none if that run is not there. With
        `state` only those that ended so; others are not looked at.
        """
        ...

    async def dead_letters(
        self, run: str | None = None, which: DeadLetterFilter = ALL_DEAD_LETTERS
    ) -> list[DeadLetter]:
        """Dead letters (of the run `run`) that match `which` and have not expired, newest first; at one instant the
        last written first."""
        ...

    async def count_expired(self) -> ExpiredCounts:
        """The number of expired records that wait for `prune`; nothing is changed."""
        ...

    async def prune(self, limit: int) -> int:
        """Delete expired records, at most about `limit`, and return how many. Call again until it returns 0.

        Ended runs with their nodes and pages (the root last), plans that no run uses, dead letters, finished claims
        past their window, starts that no rate limit looks back to, memos of channels that were not used for a day.
        """
        ...

    async def take_expired(self, owner: str, limit: int, run: str | None = None) -> list[Lease]:
        """Transfer up to `limit` leases (of the run `run`) that have expired, or whose owner is known to be dead, to
        `owner`.

        In one step each gets `delivery` + 1 and a short lease (2 s), so that the old worker's report is refused from
        then on; the caller commits `Lost` under the new token. Answers pages: call again while one is full.
        """
        ...

    async def put_hint(self, topic: str, name: str, body: bytes, ttl_ms: int) -> None:
        """Keep the hint `name` of `topic`, with `body`, for `ttl_ms`, in place of an earlier one. It ends waits in
        `wait_for_change`.

        Hints are for observers (progress, presence of workers) and never part of a decision.
        """
        ...

    async def hints(self, topic: str) -> dict[str, bytes]:
        """The hints of `topic` that have not expired, by name."""
        ...

    def renewer(self) -> Renewer:
        """A new object that renews leases, for one thread."""
        ...

    def watch(self, run: str) -> asyncio.Future[Node | None]:
        """A future that is resolved once the root of `run` is final, or lost, whichever process ended it.

        It may be resolved at once. The result is the root where the notification had it, else None.
        """
        ...

    def unwatch(self, run: str, future: asyncio.Future[Node | None]) -> None:
        """Forget `future`, a watch of `run`; `watching` counts those that are left."""
        ...

    @property
    def watching(self) -> int:
        """The number of watches that are not resolved."""
        ...

    async def wait_for_change(self, seen: int, timeout_ms: int | None, run: str | None = None) -> int:
        """Wait until the count of commits, by anyone, is no longer `seen`, or `timeout_ms` have passed; the count now.

        With `run`, changes of other runs may be left out. It may return early, never late by more than 20 ms. Begin
        with 0.
        """
        ...

    def pushed_leases(self, owner: str) -> list[Lease]:
        """Leases, at most one after each exchange, that another process granted when it made a leaf ready while `owner`
        waited in `wait_for_work`; each is returned once."""
        ...

    async def wait_for_work(self, owner: str, seen: int, timeout_ms: int | None) -> int:
        """Wait until there may be work for `owner`, whose last exchange wanted more than it got.

        `seen` and `timeout_ms`: as in `wait_for_change`, with a count of its own.
        """
        ...


INBOX_MS = 2_000
"""How long the lease of an inbox lasts."""

INBOX_POSTS = 256
"""The most posts of one run in one answer, and INBOX_RUNS the most runs."""
INBOX_RUNS = 4

LOSS_LEASE_MS = 2_000
"""The short lease under which a sweeper reports a loss."""

MEMO_MS = 86_400_000
"""How long the memo of a channel outlives its last request."""

TIMER_PAGE = 256
"""The most timers in one answer."""
