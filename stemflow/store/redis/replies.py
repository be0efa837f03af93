"""What the scripts answer, as values."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stemflow.model import wire
from stemflow.model.effects import Decision
from stemflow.model.facts import Due
from stemflow.model.leaf_status import LeafStatus
from stemflow.model.records import NO_RUN, READY, Header, Key, Node, Record
from stemflow.store.base import Exchange, Inbox, Lease
from stemflow.store.codec import read_header, read_node, read_shared
from stemflow.store.damaged import decoded_or_none
from stemflow.store.health import Inventory, QueueInventory, by_queue
from stemflow.store.index_rules import guarded
from stemflow.store.rate_windows import Lane, Past, Windows, lane_of, lanes_of
from stemflow.store.redis.keys import key_of
from stemflow.store.redis.layout import INBOX, LEASE, Answer
from stemflow.store.run_names import run_of

_PUSHED: Final = struct.Struct("<QIIII")
_PAST: Final = struct.Struct("<6sIH")
_PACE: Final = struct.Struct("<I6s6sI")


def exchange_of(answer: Answer, decisions: Sequence[Decision]) -> Exchange:
    """The answer of `exchange.lua`."""
    committed = tuple([bit == 49 for bit in answer.committed])
    leases, timers, current, inboxes = answer.leases, answer.timers, answer.current, answer.inboxes
    return Exchange(
        committed=committed,
        leases=tuple(leases_of(leases)) if leases else (),
        timers=_timers(timers),
        next_at_ms=None if answer.next_at_ms < 0 else answer.next_at_ms,
        now_ms=answer.now_ms,
        current=_current(current, decisions, committed) if current else (),
        inbox=tuple([_inbox(*inboxes[i : i + len(INBOX)]) for i in range(0, len(inboxes), len(INBOX))]),
        busy_inboxes=tuple([run_of(run) for run in answer.busy_inboxes]),
    )


def _timers(values: Sequence[Any]) -> tuple[Due, ...]:
    """The timers in an answer, (name, instant, ...); a name that is none is passed over."""
    pairs = zip(values[::2], values[1::2], strict=True)
    found = ((decoded_or_none("the name of a timer", key_of, name), at_ms) for name, at_ms in pairs)
    return tuple([Due(key, at_ms) for key, at_ms in found if key is not None])


def _inbox(name: bytes, upto: int, posts: Sequence[bytes], scopes: Sequence[bytes]) -> Inbox:
    run = run_of(name)
    decoded = [decoded_or_none(f"a post to run {run}", wire.decode_post, body) for body in posts[1::2]]
    found = tuple([post for post in decoded if post is not None and post.run == run])
    pairs = zip(scopes[::2], scopes[1::2], strict=True)
    nodes = tuple([read_node(run, path.decode(errors="replace"), value)[0] for path, value in pairs])
    return Inbox(run, upto, found, nodes, damaged=len(found) < len(decoded))


def _current(
    values: Sequence[bytes], decisions: Sequence[Decision], committed: Sequence[bool]
) -> tuple[tuple[Key, Record | None], ...]:
    named: list[Key] = []
    for decision, ok in zip(decisions, committed, strict=True):
        if not ok:
            named += [put.key for put in decision.puts]
            named += [key for key, *_ in decision.seen]
    found = dict(zip(named, values, strict=True))
    return tuple([(key, record_of(key, found[key])) for key in guarded(decisions, committed)])


def leases_of(values: Sequence[Any]) -> list[Lease]:
    """The leases in an answer, see LEASE."""
    leases = []
    for i in range(0, len(values), len(LEASE)):
        run, path = run_of(values[i]), values[i + 1].decode(errors="replace")
        node, section = read_node(run, path, values[i + 2])
        header = header_of(run, node, section, values[i + 4]) if section and not path else None
        leases.append(Lease(node, values[i + 3], header))
    return leases


def pushed_lease_of(message: bytes) -> tuple[bytes, Lease]:
    """The id of a partition and the lease in a notification that pushes one; see `push_lease` in `exchange.lua`."""
    until_ms, *lengths = _PUSHED.unpack_from(message)
    parts, at = [], _PUSHED.size
    for length in lengths:
        parts.append(message[at : at + length])
        at += length
    name, run, path, value = parts
    (lease,) = leases_of((run, path, value, until_ms, message[at:]))
    return name, lease


def header_of(run: str, root: Node, section: bytes, alone: bytes | None) -> Header | None:
    found = read_header(run, section, root) if section else None
    return found if found is not None or not alone else read_header(run, alone)


def record_of(key: Key, value: bytes) -> Record | None:
    """A record by its value; b"" is none."""
    if not value:
        return None
    return read_shared(key[1], value) if key[0] == NO_RUN else read_node(*key, value)[0]


def limit_keys(answer: Sequence[Any]) -> list[str]:
    """The keys of the rate limits for which something waits, in the answer of `inventory.lua`."""
    lanes = (lane for limited in answer[7][9::10] for lane in _lane_counts(limited))
    return sorted({limit.key for lane in lanes for limit in lane})


def _lane_counts(limited: Sequence[Any]) -> dict[Lane, int]:
    counts: dict[Lane, int] = {}
    for name, ready in zip(limited[::2], limited[1::2], strict=True):
        lane = lane_of(name.decode())
        counts[lane] = counts.get(lane, 0) + ready
    return counts


def inventory_of(answer: Sequence[Any], past: Mapping[str, Past]) -> Inventory:
    """The answer of `inventory.lua`; `past`: what is remembered under the keys of rate limits."""
    now_ms, leased, late, late_since_ms, overdue_since_ms, letters, runs, queues = answer
    windows, found = Windows(now_ms, past.get), []
    for i in range(0, len(queues), 10):
        name, ready, delayed, *leaves, limited = queues[i : i + 10]
        found.append(
            QueueInventory(
                queue=name.decode(), ready=ready, delayed=delayed, oldest=_leaf(*leaves[:3]), next=_leaf(*leaves[3:]),
                lanes=lanes_of(_lane_counts(limited), windows),
            )
        )  # fmt: skip
    return Inventory(
        queues=by_queue(found),
        leased=leased,
        late=late,
        late_since_ms=None if late_since_ms < 0 else late_since_ms,
        overdue_since_ms=None if overdue_since_ms < 0 else overdue_since_ms,
        letters=letters,
        runs=runs,
    )


def _leaf(run: bytes, path: bytes, value: bytes) -> Node | None:
    return read_node(run_of(run), path.decode(errors="replace"), value)[0] if value else None


def leaf_status_of(
    nodes: Sequence[Node | None], answer: Sequence[int], windows: Windows, now_ms: int
) -> list[LeafStatus | None]:
    """The answer of `leaf_status.lua` for those of `nodes` that exist."""
    pairs = iter(zip(answer[::2], answer[1::2], strict=True))
    return [None if node is None else _leaf_status(node, *next(pairs), windows, now_ms) for node in nodes]


def _leaf_status(node: Node, until_ms: int, ahead: int, windows: Windows, now_ms: int) -> LeafStatus:
    expired = node.due_at_ms is not None and node.due_at_ms <= now_ms
    if node.state != READY or node.at_ms > now_ms or expired:
        return LeafStatus(lease_until_ms=None if until_ms < 0 else until_ms)
    limit, admits_at_ms = windows.closed(node.limits) or (None, None)
    return LeafStatus(ahead=max(ahead, 0), limit=limit, admits_at_ms=admits_at_ms)


def past_of(value: bytes) -> Past:
    """What is remembered of starts under the key of a rate limit; see `windows.lua`."""
    span_ms, keep, paces = _PAST.unpack_from(value)
    at, tats = _PAST.size, []
    for _ in range(paces):
        limit, per_ms, tat_ms, parts = _PACE.unpack_from(value, at)
        tats.append((limit, _number(per_ms), _number(tat_ms), parts))
        at += _PACE.size
    starts = [_number(value[i : i + 6]) for i in range(at, len(value), 6)]
    return Past(_number(span_ms), keep, starts, tats)


def _number(little: bytes) -> int:
    return int.from_bytes(little, "little")
