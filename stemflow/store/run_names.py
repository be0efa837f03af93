"""Names of runs as bytes: 17 bytes for an id that the engine makes."""

from __future__ import annotations

from functools import lru_cache

from stemflow.model.records import NO_RUN

RAW = 114
"""`r`: 16 bytes of the id follow; any other id is a text behind `t` and its length in two bytes."""


@lru_cache(maxsize=65_536)
def run_name(run: str) -> bytes:
    """The bytes that name a run; b"" for NO_RUN. Where they end can be read from them."""
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


@lru_cache(maxsize=65_536)
def run_of(name: bytes) -> str:
    """The id behind a name of a run."""
    return name[1:].hex() if name[0] == RAW else name[3:].decode()
