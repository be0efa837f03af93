"""What Python and the Lua scripts share: names of keys, positions of fields, constants.

Lua is written with the names: `KEY.leases`, `DECISION.puts`, `STATE.ready`, `LIMIT.inbox_ms`. `generated` replaces
them by values before a script is loaded, so that the server pays nothing for them and a misspelt name is an error here.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final, NamedTuple

from msgspec import Struct

from stemflow.store import codec
from stemflow.store.base import INBOX_MS, INBOX_POSTS, INBOX_RUNS, MEMO_MS, TIMER_PAGE
from stemflow.store.index_rules import HIGHEST_LEVEL

# -- keys


class KeyFamily(Enum):
    """Keys of a partition, each after the partition's prefix, and before what `<...>` names.

    A run, a path and a lane are named by bytes that say where they end. Whatever is not marked permanent expires, or
    is deleted when it is empty.
    """

    root = b""
    """<run>: string, the value of the run's root."""
    nodes = b"n"
    """<run>: hash, path -> value of all nodes but the root."""
    header = b"h"
    """<run>: string, a header that is too large for the value of the root."""
    pages = b"g"
    """<run>: hash, number and path -> page of a map's items."""
    claim = b"c"
    """<key>: string, a claim behind its revision."""
    claims = b"C"
    """Sorted set, all with score 0: keys of claims that a node holds or waits for."""
    plan = b"p"
    """<digest>: string, a plan."""
    plan_uses = b"P"
    """<digest>: string, how many runs that have not ended use a plan, and until when those that have ended are kept."""
    fragments = b"F"
    """<run>: set, digests of the plans that joined a run while it ran."""
    meta = b"m"
    """Hash, permanent: clock, counters and settings of the partition, see META."""
    boots = b"b"
    """String, permanent: starts of the server, with the position of the data at each."""
    runs = b"L"
    """List, permanent: runs, the newest first."""
    failed = b"X"
    """Sorted set, permanent: runs that failed, by the negative order of their roots, so that the newest is first."""
    cancelled = b"Y"
    """Sorted set, permanent: the same of runs that were cancelled."""
    dead_letters = b"D"
    """Hash, permanent: run and path -> order and dead letter."""
    dead_letters_by_end = b"U"
    """Sorted set, permanent: run and path by the instant at which the letter expires."""
    last_letter = b"a"
    """<run>: string, the instant at which its last dead letter expires."""
    queues = b"K"
    """Set, permanent: places (queue and task) that may hold leaves. Where a key is named by `<queue>`, that is one."""
    tasks = b"x"
    """<digest>: set, the names of the tasks that some workers have."""
    unlimited_lanes = b"l"
    """<queue>: sorted set, lanes without rate limits in which something may be ready."""
    ready = b"Q"
    """<queue> 0 <lane>: list, entries that became ready for the first time, in order."""
    returned = b"B"
    """<queue> 0 <lane>: sorted set, entries that became ready again, by order."""
    delayed = b"d"
    """<queue>: sorted set, lane and entry by the instant at which it may be leased."""
    open_lanes = b"o"
    """<queue>: sorted set, limited lanes (`l`) and limits that are not blocked (`g`) by rank."""
    blocked_lanes = b"G"
    """<queue> 0 <limit>: sorted set, the lanes that wait for a limit, by rank."""
    blocked_limits = b"u"
    """<queue>: sorted set, limits that admit nothing, by the instant at which they do again."""
    limited_lanes = b"H"
    """<queue>: hash, limited lane -> the limit that it waits for, or nothing."""
    rate_window = b"w"
    """<key>: string, starts under a rate limit."""
    leases = b"S"
    """Sorted set: order, run and path by the instant at which the lease expires."""
    timers = b"T"
    """Sorted set: run and path by the instant of the timer."""
    memo = b"q"
    """<channel>: string, the last request that changed something, with its answer."""
    inbox = b"e"
    """<run>: sorted set, posts by number."""
    inboxes = b"E"
    """Sorted set: runs whose inbox holds posts, by the instant from which it may be leased."""
    idle = b"I"
    """Sorted set: all workers that wait for work, each behind the digest of its tasks, by the instant since which they
    do."""
    idle_for_all = b"A"
    """Sorted set: those of them that serve every queue."""
    idle_for_queue = b"i"
    """<queue>: sorted set, those of them that serve this queue (the queue itself, not a place)."""
    push_offer = b"y"
    """<owner>: string, the instant at which a worker offered to be pushed a lease."""
    push_count = b"z"
    """<owner>: string, how many leases were pushed to a worker."""
    followers = b"f"
    """String: exists while anybody wants notifications of changes."""
    hints = b"N"
    """<topic>: hash, name -> expiry and body of a hint."""


PERMANENT: Final = (
    KeyFamily.meta.value,
    KeyFamily.boots.value,
    KeyFamily.runs.value,
    KeyFamily.failed.value,
    KeyFamily.cancelled.value,
    KeyFamily.dead_letters.value,
    KeyFamily.dead_letters_by_end.value,
    KeyFamily.queues.value,
)
"""Keys of a partition that never expire. Whatever else has no expiry belongs to a run that goes on."""


class Channel(Enum):
    """Channels of notifications, each between the store's name and what `<...>` names."""

    work = b":k:"
    """<owner>: there may be work, or a pushed lease."""
    changes = b":x:"
    """<run>, or nothing for all runs: something was committed."""
    end = b":e:"
    """<run>: it has ended."""
    address = b":a:"
    """<address>: a run that was submitted from there has ended."""


DIGEST: Final = 16
"""The length of the digest of a worker's tasks, in characters."""
FORMAT: Final = 3
"""The version of this layout; a partition that was made with another one is refused."""


# -- requests, as arrays of MessagePack


class Wanted(Struct, array_like=True, gc=False):
    owner: str
    limit: int
    queues: Any
    """False: every queue."""
    only_run: Any
    pushes: Any
    """False: no lease may be pushed."""
    tasks: Any
    """Digest of the tasks that the worker has; False: every task."""
    without: Any
    """Queues of which nothing may be leased; False: none."""
    oldest: int = 0
    """How many of them by age, see `Want.oldest`."""


class Sent(Struct, array_like=True, gc=False):
    """A request of `exchange`."""

    now_ms: int
    """0: the server's time."""
    channel: str
    sequence: int
    decisions: list[SentDecision]
    want: Any
    """Wanted, or False."""
    partition: str
    """Its id."""


class SentDecision(Struct, array_like=True, gc=False):
    """Parts that are empty are False."""

    puts: Any
    seen: Any
    headers: Any
    plans: Any
    pages: Any
    dead: Any
    ended: Any
    changes: bool
    """Whether it writes anything."""
    purged: Any = False
    dropped: Any = False
    also: Any = False
    posts: Any = False
    consumed: Any = False
    uses: Any = False
    """Plans of new runs, each with the number of runs."""
    fragments: Any = False
    after: Any = False
    """Places of earlier decisions that it rests on, counted from 1."""


class SentPut(Struct, array_like=True, gc=False):
    """A node; with `run` empty a claim, whose `path` is its key and `head` its revision."""

    run: Any
    path: str
    guard: int
    token: int
    head: Any
    """State to lease_ms, see VALUE."""
    body: Any
    """False: the claim is deleted."""
    holds: Any
    """Whether a lease outlives the commit; of a claim the instant from which nobody needs it, or -1."""
    timer: int = -1
    """Instant of its timer, or -1."""
    ready: Any = False
    """Ready, or False."""
    section: Any = False
    """With the root of a new run: what its value holds of the header."""
    header: Any = False
    """The header, where it is too large for that."""


class Ready(Struct, array_like=True, gc=False):
    at_ms: int
    queue: str
    lane: Any


class Answer(NamedTuple):
    """What `exchange` answers when it was carried out; else there is a status alone, perhaps with a number."""

    status: bytes
    now_ms: int
    committed: bytes
    """A text of 0 and 1."""
    leases: list[Any]
    """LEASE after LEASE."""
    timers: list[Any]
    """Run and path, due_at_ms, ..."""
    next_at_ms: int
    """-1: none."""
    current: list[bytes]
    """The values that the guards of stale decisions named, in their order; empty where there is none."""
    position: int
    boot: int
    """The number of the last boot that `open.lua` noted."""
    inboxes: list[Any]
    """INBOX after INBOX."""
    busy_inboxes: list[bytes]


LEASE: Final = ("run", "path", "value", "until_ms", "header")
"""A lease in an answer; the header is empty where the value holds it."""
INBOX: Final = ("run", "upto", "posts", "scopes")
"""An inbox in an answer; posts: path of a scope, body, ...; scopes: path, value, ..."""

POSITIONS: Final[dict[str, tuple[str, ...]]] = {
    "REQUEST": Sent.__struct_fields__,
    "WANT": Wanted.__struct_fields__,
    "DECISION": SentDecision.__struct_fields__,
    "PUT": SentPut.__struct_fields__,
    "READY": Ready.__struct_fields__,
    "SEEN": ("run", "path", "rev", "token"),
    "HEADER": ("run", "header"),
    "PLAN": ("digest", "body"),
    "PAGE": ("run", "path", "pages"),
    "LETTER": ("run", "name", "body", "until_ms"),
    "END": ("run", "keep_ms", "plan"),
    "USE": ("plan", "count"),
    "FRAGMENT": ("run", "plan"),
    "TWIN": ("run", "section", "header"),
    "POST": ("run", "path", "body"),
    "CONSUMED": ("run", "upto"),
    "HINT": ("now_ms", "topic", "name", "body", "ttl_ms", "run"),
    "OPENING": ("now_ms", "made", "boot", "known_boot", "partitions", "known_number"),
    "EXPIRY": ("now_ms", "limit", "lease_ms", "run"),
    "PRUNING": ("now_ms", "limit"),
    "STATUS": ("now_ms", "leaves"),
    "LEAF": ("run", "path", "queue", "level", "limits"),
    "RENEWALS": ("now_ms", "leases"),
    "RENEWAL": ("run", "path", "token", "lease_ms"),
    "MEMO": ("sequence", "committed", "held"),
    "ENTRY": ("entry", "run", "path", "queue"),
    "DELAYED": ("queue", "at_ms", "member"),
}
"""Arrays, by the name under which Lua knows them: the names of their fields in order."""

SECTION_AT: Final = 22
OFFSETS: Final = {
    "order": 1, "state": 6, "flags": 7, "rev": 8, "token": 12, "lease_ms": 16, "length": 20, "section": SECTION_AT,
}  # fmt: skip
"""Where the fields of a node's value begin; after the section come due_at_ms (if EXPIRES) and the body."""

LIMITS: Final = {
    "timer_page": TIMER_PAGE,
    "inbox_ms": INBOX_MS,
    "inbox_posts": INBOX_POSTS,
    "inbox_runs": INBOX_RUNS,
    "memo_s": MEMO_MS // 1_000,
    "plan_s": 366 * 86_400,
    "plan_margin_ms": 1_000,
    "claim_margin_ms": 3_600_000,
    "window_margin_ms": 3_600_000,
    "hint_margin_ms": 3_600_000,
    "hints": 100,
    "idle_ms": 60_000,
    "offer_ms": 1_500,
    "tasks_ms": 86_400_000,
    "digest": DIGEST,
    "pushed_ms": 60_000,
    "chunk": 4_000,
    "heads": 100,
    "largest_root": 4_096,
    "boots": 16,
    "pruned_names": 1_000,
    "format": FORMAT,
    "highest_level": HIGHEST_LEVEL,
}

_FLAGS: Final = {
    "timed": codec.TIMED, "expires": codec.EXPIRES, "kill": codec.KILL, "scope": codec.SCOPE,
    "timed_leased": codec.TIMED_LEASED,
}  # fmt: skip

VALUES: Final[dict[str, dict[str, str]]] = {
    "KEY": {name: f"'{key.value.decode()}'" for name, key in KeyFamily.__members__.items()},
    "CHANNEL": {one.name: f"'{one.value.decode()}'" for one in Channel},
    "STATE": {str(state): str(number) for state, number in codec.NUMBER.items()},
    "FLAG": {name: str(value) for name, value in _FLAGS.items()},
    "VALUE": {name: str(value) for name, value in OFFSETS.items()},
    "LIMIT": {name: str(value) for name, value in LIMITS.items()},
    **{name: {field: str(at) for at, field in enumerate(fields, 1)} for name, fields in POSITIONS.items()},
}
"""What Lua writes as `GROUP.name`, and what it is."""

_NAME: Final = re.compile(rf"\b({'|'.join(VALUES)})\.(\w+)")


def generated(lua: str) -> str:
    """The source of a script with values in place of the names of this module. Raises KeyError for an unknown name."""
    return "\n".join(_line(one) for one in lua.split("\n"))


def _line(line: str) -> str:
    code, mark, comment = line.partition("--")
    return _NAME.sub(lambda found: VALUES[found[1]][found[2]], code) + mark + comment
