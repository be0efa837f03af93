"""The encoding of records in stores that keep bytes: MessagePack, with bit sets as bytes and fields by name.

Unknown fields are ignored and absent fields have their defaults, so adjacent versions can read each other's records.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stemflow.model.effects import DeadLetter
from stemflow.model.facts import Post
from stemflow.model.plan import Plan
from stemflow.model.records import EVENT, EVENT_ID, TOPIC, Claim, Header, Node, Shared, StoredEvent, Tally, Topic

_COUNTS = ("size", "done", "failures")
_SETS = ("opened", "ended", "ok", "failed", "skipped", "upstream", "cancelled")


def plain(value: Any) -> Any:
    """Convert a value that MessagePack cannot encode by itself."""
    if isinstance(value, Tally):
        found: list[Any] = [value.size, value.done, value.failures]
        for name in _SETS:
            bits = getattr(value, name)
            found.append(bits.to_bytes((bits.bit_length() + 7) // 8, "little"))
        return found
    raise TypeError(f"expected JSON data in a record, got {value!r}")


def rich(kind: type, value: Any) -> Any:
    """The inverse of `plain`."""
    if kind is Tally:
        tally = Tally(value[0])
        tally.done, tally.failures = value[1], value[2]
        for name, bits in zip(_SETS, value[len(_COUNTS) :], strict=True):
            setattr(tally, name, int.from_bytes(bits, "little"))
        return tally
    raise TypeError(f"expected a kind of record that is known, got {kind!r}")


encode = msgspec.msgpack.Encoder(enc_hook=plain).encode
"""Bytes of a Node, Claim, Topic, StoredEvent, Header, Plan, DeadLetter or Post."""

decode_node = msgspec.msgpack.Decoder(Node, dec_hook=rich).decode
_decode_claim = msgspec.msgpack.Decoder(Claim).decode
_decode_topic = msgspec.msgpack.Decoder(Topic).decode
_decode_event = msgspec.msgpack.Decoder(StoredEvent).decode
decode_header = msgspec.msgpack.Decoder(Header).decode
decode_plan = msgspec.msgpack.Decoder(Plan).decode
decode_dead_letter = msgspec.msgpack.Decoder(DeadLetter).decode
decode_post = msgspec.msgpack.Decoder(Post).decode


def decode_shared(key: str, body: bytes | memoryview) -> Shared:
    """The record under `key`, which belongs to no run."""
    if key.startswith(TOPIC):
        return _decode_topic(body)
    return _decode_event(body) if key.startswith((EVENT, EVENT_ID)) else _decode_claim(body)
