"""Records as bytes. Fields that a store reads are kept apart, in columns or at fixed offsets; the rest is MessagePack.

The body of a node, and a header, are arrays of the fields that almost every record has, followed by a map of all other
fields that differ from their defaults: an unknown name is ignored, an absent one has its default.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, get_args, get_type_hints

import msgspec
from msgspec import NODEFAULT, Raw, Struct
from msgspec.structs import astuple

from stemflow.model import wire
from stemflow.model.records import Header, Node, Shared, State
from stemflow.store.damaged import damaged_header, damaged_node, damaged_shared
from stemflow.store.index_rules import timer_of
from stemflow.store.run_names import RAW

STATES: Final[tuple[State, ...]] = get_args(State)
NUMBER: Final = {state: number for number, state in enumerate(STATES)}
TIMED, EXPIRES, KILL, SCOPE, TIMED_LEASED = 1, 2, 4, 8, 16
_RUNNING: Final = NUMBER["running"]

_HEAD: Final = struct.Struct("<BBIII")
"""state, flags, rev, delivery, lease_ms"""
_STORED: Final = struct.Struct("<5xBBIIIH")
"""The same behind the order, and the length of the section that follows; then due_at_ms if there is one, the body."""
_SECTION_AT: Final = _STORED.size
INLINE: Final = 1_024
"""A header longer than this is not stored in the value of its root."""

_HEADED: Final = ("run", "path", "state", "rev", "delivery", "lease_ms", "due_at_ms", "kill")
_COMMON: Final = ("plan", "node", "index", "turn", "opened_at_ms", "started_at_ms", "ended_at_ms", "result")
_TURN_BITS: Final = 6
"""A body has a node's index and, in so many bits below it, its turn."""
_TURN_MASK: Final = (1 << _TURN_BITS) - 1


def _rest_of(record: type[Struct], *known: str) -> Any:
    """A struct of the fields of `record` but those in `known`, all with their defaults."""
    hints = get_type_hints(record)
    fields = [one for one in msgspec.structs.fields(record) if one.name not in known]
    made = [
        (one.name, hints[one.name], one.default)
        if one.default is not NODEFAULT
        else (one.name, hints[one.name], msgspec.field(default_factory=one.default_factory))
        for one in fields
    ]
    return msgspec.defstruct(f"{record.__name__}Rest", made, omit_defaults=True)


def _defaults(record: type[Struct]) -> list[tuple[str, Any]]:
    found = []
    for one in msgspec.structs.fields(record):
        made = one.default_factory() if callable(one.default_factory) else one.default
        found.append((one.name, made))
    return found


class _Body(Struct, array_like=True):
    plan: bytes
    node: int
    member: int = 0
    opened: int = 0
    started: int = 0
    ended: int = 0
    result: bytes | None = None
    rest: Raw = Raw(b"")


class _Head(Struct, array_like=True):
    plan: bytes | None
    created: int
    name: str
    inputs: bytes
    rest: Raw = Raw(b"")


_NodeRest = _rest_of(Node, *_HEADED, *_COMMON)
_HeaderRest = _rest_of(Header, "run", "plan", "created_at_ms", "name", "inputs", "reply_to")
_node_rest: Final = _defaults(_NodeRest)
_header_rest: Final = _defaults(_HeaderRest)
_node_values: Final = attrgetter(*(name for name, _ in _node_rest))
_node_defaults: Final = tuple(default for _, default in _node_rest)
_header_values: Final = attrgetter(*(name for name, _ in _header_rest))
_header_defaults: Final = tuple(default for _, default in _header_rest)
_rest_decoder: Final = msgspec.msgpack.Decoder(_NodeRest, dec_hook=wire.rich).decode
_header_rest_decoder: Final = msgspec.msgpack.Decoder(_HeaderRest).decode
_body: Final = msgspec.msgpack.Decoder(_Body).decode
_head: Final = msgspec.msgpack.Decoder(_Head).decode
_encode: Final = msgspec.msgpack.Encoder(enc_hook=wire.plain).encode


@lru_cache(maxsize=4_096)
def _short(digest: str) -> bytes:
    """A digest as its 16 bytes behind `r`; anything else as a text behind `t`."""
    try:
        raw = bytes.fromhex(digest)
    except ValueError:
        raw = b""
    return b"r" + raw if raw and raw.hex() == digest else b"t" + digest.encode()


@lru_cache(maxsize=4_096)
def _long(digest: bytes) -> str:
    return digest[1:].hex() if digest[0] == RAW else digest[1:].decode()


# -- nodes


def head_of(node: Node, timer: int | None) -> bytes:
    """The fixed part of a node's value, without its order."""
    due = node.due_at_ms
    flags = (TIMED if timer is not None else 0) | (KILL if node.kill else 0)
    if node.tally is not None:
        flags |= SCOPE
    if due is not None:
        flags |= EXPIRES
        if node.tally is None and _timed_when_leased(node):
            flags |= TIMED_LEASED
    return _HEAD.pack(NUMBER[node.state], flags, node.rev, node.delivery, node.lease_ms)


def _timed_when_leased(node: Node) -> bool:
    leased = msgspec.structs.replace(node, state="running")
    return timer_of(leased) is not None


def body_of(node: Node) -> bytes:
    """What the store need not read; in front of it the instant at which it expires, if it does."""
    opened, result, others = node.opened_at_ms, node.result, _node_values(node)
    started = _after(opened, node.started_at_ms) if node.started_at_ms else 0
    ended = _after(opened, node.ended_at_ms) if node.ended_at_ms else 0
    common = (_short(node.plan), node.node, node.index << _TURN_BITS | node.turn, opened, started, ended, result)
    if others != _node_defaults:
        body = _encode((*common, _NodeRest(*others)))
    elif result is not None:
        body = _encode(common)
    else:
        body = _encode(common[:6] if ended else common[:5] if started else common[:4])
    return body if node.due_at_ms is None else node.due_at_ms.to_bytes(6, "little") + body


def _after(opened: int, at_ms: int) -> int:
    """An instant by its distance from another, which takes fewer bytes."""
    distance = at_ms - opened
    return distance + 1 if distance >= 0 else distance


def _at(opened: int, distance: int) -> int:
    """The instant at this distance, as `_after` gave it."""
    return opened + (distance - 1 if distance > 0 else distance)


def decode_node(run: str, path: str, value: bytes) -> tuple[Node, bytes]:
    """The node, and the section in front of its body (see `section_of`)."""
    state, flags, rev, delivery, lease_ms, length = _STORED.unpack_from(value)
    start = _SECTION_AT + length
    node = node_of(run, path, state, flags, rev, delivery, lease_ms, memoryview(value)[start:])
    return node, value[_SECTION_AT:start] if length else b""


def node_of(
    run: str, path: str, state: int, flags: int, rev: int, delivery: int, lease_ms: int, value: bytes | memoryview
) -> Node:
    """The node with this body; `state` is its index in STATES."""
    due_at_ms = None
    if flags & EXPIRES:
        due_at_ms, value = int.from_bytes(value[:6], "little"), memoryview(value)[6:]
    body = _body(value)
    opened = body.opened
    node = Node(
        run=run,
        path=path,
        plan=_long(body.plan),
        node=body.node,
        index=body.member >> _TURN_BITS,
        turn=body.member & _TURN_MASK,
        state=STATES[state],
        rev=rev,
        delivery=delivery,
        lease_ms=lease_ms,
        result=body.result,
        opened_at_ms=opened,
        started_at_ms=_at(opened, body.started) if body.started else 0,
        ended_at_ms=_at(opened, body.ended) if body.ended else 0,
        due_at_ms=due_at_ms,
    )
    if flags & KILL:
        node.kill = True
    if body.rest:
        rest = astuple(_rest_decoder(body.rest))
        for (name, default), value_of in zip(_node_rest, rest, strict=True):
            if value_of is not default and value_of != default:
                setattr(node, name, value_of)
    return node


def read_node(run: str, path: str, value: bytes) -> tuple[Node, bytes]:
    """As `decode_node`, with a placeholder for a node that cannot be decoded."""
    try:
        return decode_node(run, path, value)
    except Exception as error:  # bytes that anybody may have written raise anything
        if len(value) < _SECTION_AT:
            return damaged_node((run, path), error), b""
        state, _, rev, delivery, _, length = _STORED.unpack_from(value)
        known = STATES[state] if state < len(STATES) else None
        return damaged_node((run, path), error, known, rev, delivery), value[_SECTION_AT : _SECTION_AT + length]


# -- headers


def section_of(header: Header, root: Node) -> tuple[bytes, bytes | None]:
    """What a root's value holds of a new run, and the header itself if it is too big for that."""
    address = header.reply_to.encode()
    short = bytes((len(address),)) + address
    body = _header_body(header, root.plan, root.opened_at_ms)
    if len(body) <= INLINE:
        return short + body, None
    return short, encode_header(header)


def encode_header(header: Header, plan: str | None = None) -> bytes:
    """A header that is stored alone; with `plan`, a reader knows the digest of its plan."""
    address = header.reply_to.encode()
    return bytes((len(address),)) + address + _header_body(header, plan, 0)


def _header_body(header: Header, root_plan: str | None, opened: int) -> bytes:
    plan = None if header.plan == root_plan else _short(header.plan)
    others = _header_values(header)
    common = (plan, header.created_at_ms - opened, header.name, _squeezed(header.inputs))
    return _encode(common if others == _header_defaults else (*common, _HeaderRest(*others)))


_ARGS, _NO_KWARGS = b'{"args":', b',"kwargs":{}}'
_BARE, _WHOLE = b"a", b"="


def _squeezed(inputs: bytes) -> bytes:
    """Inputs without the frame that they have in most tasks that were submitted alone."""
    if inputs.startswith(_ARGS) and inputs.endswith(_NO_KWARGS):
        return _BARE + inputs[len(_ARGS) : -len(_NO_KWARGS)]
    return _WHOLE + inputs


def _unsqueezed(inputs: bytes) -> bytes:
    return inputs[1:] if inputs[:1] == _WHOLE else b"".join((_ARGS, inputs[1:], _NO_KWARGS))


def decode_header(run: str, section: bytes, root: Node | None = None) -> Header | None:
    """The header in the section of `root`, None where it is stored alone; without `root`, one that is stored alone."""
    start = 1 + section[0]
    if len(section) == start:
        return None
    return header_of(run, section, "" if root is None else root.plan, 0 if root is None else root.opened_at_ms)


def read_header(run: str, section: bytes, root: Node | None = None) -> Header | None:
    """As `decode_header`, with a placeholder for a header that cannot be decoded."""
    try:
        return decode_header(run, section, root)
    except Exception as error:
        return damaged_header(run, error)


def header_of(run: str, section: bytes, plan: str, opened: int = 0) -> Header:
    """The header whose bytes follow the address in `section`; `plan` where they do not say their own."""
    start = 1 + section[0]
    found = _head(memoryview(section)[start:])
    header = Header(
        run=run,
        plan=_long(found.plan) if found.plan is not None else plan,
        created_at_ms=found.created + opened,
        name=found.name,
        inputs=_unsqueezed(found.inputs),
        reply_to=section[1:start].decode(),
    )
    if found.rest:
        rest = _header_rest_decoder(found.rest)
        header = msgspec.structs.replace(header, **{name: getattr(rest, name) for name, _ in _header_rest})
    return header


# -- records that belong to no run


def shared_parts(record: Shared) -> tuple[bytes, bytes]:
    return record.rev.to_bytes(7, "little"), wire.encode(record)


def read_shared(key: str, value: bytes) -> Shared:
    """A record that belongs to no run, or its placeholder if it cannot be decoded."""
    try:
        return wire.decode_shared(key, value[7:])
    except Exception as error:
        return damaged_shared(key, int.from_bytes(value[:7], "little"), error)
