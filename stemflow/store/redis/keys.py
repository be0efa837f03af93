"""Names of runs, keys and channels. A run's name says where it ends, so names and paths can stand side by side."""

from __future__ import annotations

from functools import lru_cache

from stemflow.model.records import NO_RUN, Key

RAW = 114
"""`r`: the run's id is 16 bytes; any other id stands as a text behind `t` and its length."""


@lru_cache(maxsize=65_536)
def run_name(run: str) -> bytes:
    """The bytes that name a run; b"" for the house of claims."""
    if run == NO_RUN:
        return b""
    if len(run) == 32:
        try:
            raw = bytes.fromhex(run)
        except ValueError:
            raw = b""
        if raw.hex() == run:
            return b"r" + raw
    text = run.encode()
    return b"t" + len(text).to_bytes(2, "big") + text


def run_of(name: bytes) -> str:
    """The id behind a name of a run."""
    return name[1:].hex() if name[0] == RAW else name[3:].decode()


def key_of(name: bytes) -> Key:
    """The key behind a run's name and a path."""
    end = 17 if name[0] == RAW else 3 + int.from_bytes(name[1:3], "big")
    return run_of(name[:end]), name[end:].decode()


def page_field(path: str, number: int) -> bytes:
    return number.to_bytes(4, "big") + path.encode()


def page_key(prefix: bytes, run: str) -> bytes:
    return prefix + b"g" + run_name(run)


PERMANENT = (b"m", b"b", b"L", b"D", b"U", b"K")
"""Keys of a partition that never expire: its clock and counters, starts of its server, the list of runs, dead letters
and their ends, names of queues. Whatever else has no expiry belongs to a run that goes on."""
