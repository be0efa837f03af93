"""Signing: a writer to the store that has no key cannot make a handler start.

A record that is committed has a signature (`seal`): an HMAC over everything in it that determines execution. The
decider signs between the decision and the commit; stores and the state machine are not involved.
"""

from __future__ import annotations

import copy
import hmac
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal

from msgspec import NODEFAULT, Struct, structs

from stemflow.errors import OptionError, StemflowError
from stemflow.model import wire
from stemflow.model.facts import Post
from stemflow.model.records import READY, RUNNING, Header, Node, Record, Shared

VERSION: Final = 1
"""The first byte of a signature: HMAC-SHA256 over this form of records. No other algorithm is accepted."""
MAC_BYTES: Final = 32
LEAST_KEY_BYTES: Final = 16
ENDED: Final = 10_000
"""Ended runs that a process remembers, so that it does not accept replayed records of them."""

Mode = Literal["sign", "required"]

Sealed = Record | Header | Post
"""Records with a signature."""


class SigningError(StemflowError):
    """A stored record cannot be verified."""


class SignatureInvalid(SigningError):
    """A record was not written by a process with a key, or was altered. `run`: the run that it belongs to, if any."""

    def __init__(self, where: str, why: str, run: str | None = None) -> None:
        super().__init__(f"{where}: {why}; nothing of this run starts any more")
        self.run = run


class UnknownKey(SigningError):
    """A record was signed under a key that this process does not have; it is left to a process that has it."""

    def __init__(self, where: str, key: str | None) -> None:
        what = "none is given here" if key is None else f"key {key!r} is not given here"
        super().__init__(
            f"{where}: it is signed and {what}; pass it in Stemflow(signing=SigningKeys(...)), on the command line as "
            "--tasks MODULE, whose registry has it"
        )


class SigningKeys:
    """A ring of keys for signatures: `registry.signing = SigningKeys({"2026-11": key}, active="2026-11")`.

    `keys`: at least 16 bytes by key id. `active`: the id of the key that signs; all of them verify. `mode`: `required`
    refuses records without a signature; `sign` accepts them, for the time in which signing is introduced. `namespace`:
    different for each store, so that records of one are not valid in another. Raises OptionError.
    """

    def __init__(self, keys: Mapping[str, bytes], active: str, mode: Mode = "required", namespace: str = "") -> None:
        if active not in keys:
            raise OptionError(f"SigningKeys: expected the active key among {', '.join(keys) or 'none'}, got {active!r}")
        for name, key in keys.items():
            if len(key) < LEAST_KEY_BYTES or not 0 < len(name.encode()) < 256:
                raise OptionError(
                    f"SigningKeys: key {name!r}: expected at least {LEAST_KEY_BYTES} bytes under an id of 1 to 255, "
                    f"got {len(key)}"
                )
        if mode not in ("sign", "required"):
            raise OptionError(f"SigningKeys: mode: expected sign or required, got {mode!r}")
        self.keys, self.active, self.mode, self.namespace = dict(keys), active, mode, namespace

    def __repr__(self) -> str:
        return f"SigningKeys({', '.join(self.keys)}; active {self.active}, {self.mode})"


class Trust:
    """Signs records and verifies signatures. Without keys it signs nothing, and signed records cannot be verified."""

    def __init__(self, keys: SigningKeys | None = None) -> None:
        self.keys = keys
        self.ended: dict[str, None] = {}

    # -- records

    def is_valid(self, record: Sealed) -> bool:
        """Whether the signature of a record is valid; False if its key is not known here. Raises SignatureInvalid."""
        if self.keys is None:
            return record.seal is None
        run = None if isinstance(record, Shared) else record.run
        return self._checked(record.seal, _kind(record), lambda: _canonical(record), _where(record), run)

    def is_verified(self, record: Sealed) -> bool:
        """As `is_valid`, but False also for a record that was altered."""
        try:
            return self.is_valid(record)
        except SignatureInvalid:
            return False

    def verify(self, record: Record | Header | None) -> None:
        """Raise SignatureInvalid or UnknownKey unless the record is valid, or this process has no keys."""
        if self.keys is not None and record is not None and not self.is_valid(record):
            assert record.seal is not None
            raise UnknownKey(_where(record), _key_of(record.seal))

    def seal_of(self, record: Sealed) -> bytes | None:
        return None if self.keys is None else self._seal(_kind(record), _canonical(record))

    # -- bytes

    def wrap(self, body: bytes, place: str) -> bytes:
        """Sign bytes that are no record (a page of items) for the location `place`."""
        return body if self.keys is None else self._seal("bytes", place.encode() + b"\0" + body) + body

    def unwrap(self, stored: bytes, place: str) -> bytes:
        """Verify what `wrap` returned, and return the bytes. Raises SignatureInvalid, UnknownKey."""
        size = 2 + stored[1] + MAC_BYTES if stored[0] == VERSION and len(stored) > 1 else 0
        seal, body = stored[:size] or None, stored[size:]
        if self.keys is not None:
            message = place.encode() + b"\0" + body
            if not self._checked(seal, "bytes", lambda: message, place):
                raise UnknownKey(place, _key_of(seal or b""))
        return body

    # -- runs that have ended

    def end(self, run: str) -> None:
        """Remember that a run has ended, so that none of its records can be replayed."""
        if self.keys is not None:
            self.ended[run] = None
            if len(self.ended) > ENDED:
                del self.ended[next(iter(self.ended))]

    def _checked(self, seal: bytes | None, kind: str, message: Any, where: str, run: str | None = None) -> bool:
        assert self.keys is not None
        if seal is None:
            if self.keys.mode == "sign":
                return True
            raise SignatureInvalid(where, "expected a signature, got none", run)
        name = _key_of(seal)
        if name is None or len(seal) != 2 + len(name.encode()) + MAC_BYTES:
            raise SignatureInvalid(where, "expected a signature by HMAC-SHA256, got another form", run)
        if name not in self.keys.keys:
            return False
        if not hmac.compare_digest(self._mac(name, kind, message()), seal[-MAC_BYTES:]):
            raise SignatureInvalid(where, f"it was altered since it was signed under key {name!r}", run)
        return True

    def _seal(self, kind: str, message: bytes) -> bytes:
        assert self.keys is not None
        name = self.keys.active.encode()
        return bytes((VERSION, len(name))) + name + self._mac(self.keys.active, kind, message)

    def _mac(self, name: str, kind: str, message: bytes) -> bytes:
        assert self.keys is not None
        head = [b"stemflow-1", kind.encode(), self.keys.namespace.encode(), name.encode()]
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in (*head, message))
        return hmac.digest(self.keys.keys[name], framed, "sha256")


def same_meaning(one: Record, other: Record) -> bool:
    """Whether two records differ in nothing that is signed, so that a signature of one is valid for the other."""
    return _canonical(one) == _canonical(other)


def _canonical(record: Sealed) -> bytes:
    """The signed content: all but leases, due times and the journal, which stores and workers without keys change."""
    twin: Any = copy.copy(record)
    structs.force_setattr(twin, "seal", None)
    if isinstance(twin, (Node, Shared)):
        twin.rev = 0
    if isinstance(twin, Node):
        twin.delivery = twin.losses = twin.at_ms = twin.unlisted = 0
        twin.journal = ()
        if twin.state == RUNNING and twin.tally is None:
            twin.state = READY
    for name, default in _defaults(type(record)):
        if getattr(twin, name) == default:
            # The encoder leaves out defaults by identity, which stores do not keep.
            structs.force_setattr(twin, name, default)
    return wire.encode(twin)


@cache
def _defaults(kind: type[Struct]) -> list[tuple[str, Any]]:
    return [(one.name, one.default) for one in structs.fields(kind) if one.default is not NODEFAULT]


def _kind(record: Sealed) -> str:
    return type(record).__name__


def _where(record: Sealed) -> str:
    if isinstance(record, (Header, Post)):
        return f"run {record.run}"
    return f"task {'/'.join(record.key).rstrip('/')}" if isinstance(record, Node) else f"record {record.key}"


def _key_of(seal: bytes) -> str | None:
    if len(seal) < 2 or seal[0] != VERSION:
        return None
    return seal[2 : 2 + seal[1]].decode(errors="replace")
