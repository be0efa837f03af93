"""The one place where a URL chooses the class of a store."""

from __future__ import annotations

import os
import re
import unicodedata
from importlib import import_module
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from stemflow.ports import Clock
from stemflow.store.base import Store, StoreError
from stemflow.store.memory.store import MemoryStore
from stemflow.store.sqlite.schema import Synchronous
from stemflow.store.sqlite.store import SqliteStore

DEFAULT_PATH: Final = ".stemflow/stemflow.db"
REDIS: Final = re.compile(r"((redis|valkey)s?(\+\w*)?|unix)")
"""The schemes of the store on Redis: `stemflow.store.redis.url` says which of them there are."""


NEEDLESS: Final = {
    "block_time": "a worker waits until it is notified of work or the next instant is due, so there is no time to set",
    "claim_interval": "a lease carries its own end, and expired leases are looked for every second; give tasks a "
    "visibility_timeout to change how long a lease lasts",
    "default_visibility_timeout": "it belongs to the tasks; write TaskRegistry(visibility_timeout=...)",
}
"""Parameters that other engines have in their URLs, with the reason why there are none here."""


def _refuse_needless(url: str) -> None:
    for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        if name in NEEDLESS:
            raise StoreError(f"store URL: {name}: expected no such parameter: {NEEDLESS[name]}")


def _refuse_no_text(url: Any) -> None:
    if not isinstance(url, str):
        raise StoreError(f"store URL: expected text, got {type(url).__name__}; write for example sqlite:{DEFAULT_PATH}")
    for place, one in enumerate(url):
        if unicodedata.category(one) in ("Cc", "Cs"):  # not shown: there may be a password around it
            raise StoreError(
                "store URL: expected text without control characters and lone surrogates, got "
                f"U+{ord(one):04X} at character {place + 1}"
            )


def open_store(url: str, clock: Clock) -> Store:
    """The store that `url` names, not yet connected (`open` does that); raises StoreError for a URL it cannot read.

    `memory:` is a store of its own for each call; `sqlite:PATH` a file, `sqlite:` the one in `.stemflow`;
    `?synchronous=full` has every commit wait for the disk.
    """
    _refuse_no_text(url)
    _refuse_needless(url)
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest.strip("/"):
        return MemoryStore(url, clock)
    if (found := sqlite_location(url)) is not None:
        return SqliteStore(url, found.path, clock, found.synchronous)
    if colon and REDIS.fullmatch(scheme):
        opened: Store = import_module("stemflow.store.redis.open").open_redis(url, clock)
        return opened
    shown = f"{scheme}:***" if "@" in url or "password" in url.lower() else url
    raise StoreError(
        f"store {shown!r}: expected memory:, sqlite:PATH or redis://HOST:PORT; "
        f"write for example sqlite:{DEFAULT_PATH}"
    )


class SqliteLocation(NamedTuple):
    """The path of a database file, and how far SQLite waits for the disk."""

    path: str
    synchronous: Synchronous = "normal"


def sqlite_location(url: str) -> SqliteLocation | None:
    """What `sqlite:PATH?synchronous=full` says; None for a URL of another kind. Raises StoreError."""
    scheme, colon, rest = url.partition(":")
    if scheme != "sqlite" or not colon or rest == ":memory:":
        return None
    path, _, query = rest.partition("?")
    if path.startswith("//"):
        if not path.startswith("///"):
            raise StoreError(f"store {url}: expected a path, got a host; write sqlite:{path[2:] or DEFAULT_PATH}")
        path = path[2:]
    given = parse_qsl(query, keep_blank_values=True, strict_parsing=False)
    if query and [name for name, _ in given] != ["synchronous"]:
        raise StoreError(f"store {url}: expected ?synchronous=full or normal, got ?{query}; a path cannot hold `?`")
    value = given[0][1].lower() if given else "normal"
    if value not in ("normal", "full"):
        raise StoreError(f"store {url}: synchronous: expected full or normal, got {value!r}")
    return SqliteLocation(os.path.expanduser(path or DEFAULT_PATH), value)  # type: ignore[arg-type]


def sqlite_path(url: str) -> str | None:
    """The path of the database file that `url` names; None for a store of another kind."""
    found = sqlite_location(url)
    return None if found is None else found.path
