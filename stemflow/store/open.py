"""The one place where a URL chooses the class of a store."""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import Final

from stemflow.ports import Clock
from stemflow.store.base import Store, StoreError
from stemflow.store.memory.store import MemoryStore
from stemflow.store.sqlite.store import SqliteStore

DEFAULT_PATH: Final = ".stemflow/stemflow.db"
REDIS: Final = re.compile(r"(rediss?(\+\w*)?|unix)")
"""The schemes of the store on Redis: `stemflow.store.redis.url` says which of them there are."""


def open_store(url: str, clock: Clock) -> Store:
    """The store that `url` names, not yet connected (`open` does that); raises StoreError for a URL it cannot read.

    `memory:` is a store of its own for each call; `sqlite:PATH` a file, `sqlite:` the one in `.stemflow`.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest.strip("/"):
        return MemoryStore(url, clock)
    if (path := sqlite_path(url)) is not None:
        return SqliteStore(url, path, clock)
    if colon and REDIS.fullmatch(scheme):
        opened: Store = import_module("stemflow.store.redis.open").open_redis(url, clock)
        return opened
    raise StoreError(
        f"store {url!r}: expected memory:, sqlite:PATH or redis://HOST:PORT; write for example sqlite:{DEFAULT_PATH}"
    )


def sqlite_path(url: str) -> str | None:
    """The path of the database file that `url` names; None for a store of another kind."""
    scheme, colon, rest = url.partition(":")
    if scheme != "sqlite" or not colon or rest == ":memory:":
        return None
    return os.path.expanduser((rest.removeprefix("//") if rest.startswith("///") else rest) or DEFAULT_PATH)
