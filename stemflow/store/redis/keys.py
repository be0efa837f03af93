"""Keys behind names of runs and paths; a run's name says where it ends, so that a path may follow it."""

from __future__ import annotations

from stemflow.model.records import Key
from stemflow.store.redis import layout
from stemflow.store.run_names import RAW, run_name, run_of


def key_of(name: bytes) -> Key:
    """The key behind a run's name and a path."""
    end = 17 if name[0] == RAW else 3 + int.from_bytes(name[1:3], "big")
    return run_of(name[:end]), name[end:].decode()


def page_field(path: str, number: int) -> bytes:
    return number.to_bytes(4, "big") + path.encode()


def page_key(prefix: bytes, run: str) -> bytes:
    return prefix + layout.KeyFamily.pages.value + run_name(run)
