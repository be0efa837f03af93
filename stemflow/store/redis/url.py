"""URLs of the store: which server, and under which name its keys stand."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from msgspec import Struct

from stemflow.store.base import StoreError

SCHEMES: Final = ("redis", "rediss", "unix")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_EXAMPLE: Final = "redis://localhost:6379/0?prefix=sf"


class Place(Struct, frozen=True):
    """Where a store is: `url` for redis-py, `shown` without a password, `name` in front of its keys."""

    url: str
    shown: str
    name: str = "sf"
    partitions: int = 1


def place_of(url: str) -> Place:
    """Reads a URL; raises StoreError. `prefix` and `partitions` are the store's, other parameters are redis-py's."""
    parts = urlsplit(url)
    ours = dict(parse_qsl(parts.query, keep_blank_values=True))
    name, partitions = ours.pop("prefix", "sf"), ours.pop("partitions", "1")
    shown = _shown(url)
    if not _NAME.fullmatch(name):
        raise StoreError(f"store {shown}: prefix: expected letters, digits, `_`, `.` or `-`, got {name!r}")
    if not partitions.isdecimal() or not 1 <= int(partitions) <= 1_024:
        raise StoreError(f"store {shown}: partitions: expected a number from 1 to 1024, got {partitions!r}")
    plain = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(ours), ""))
    return Place(plain, shown, name, int(partitions))


def _shown(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", url)
