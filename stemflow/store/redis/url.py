"""URLs of the store: which server, and under which name its keys stand."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Struct

from stemflow.store.base import StoreError

SCHEMES: Final = ("redis", "rediss", "unix")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
EXAMPLE: Final = "redis://localhost:6379/0?prefix=sf"


class Place(Struct, frozen=True):
    """Where a store is: `url` for redis-py, `shown` without a password, `name` in front of its keys."""

    url: str
    shown: str
    name: str = "sf"


def place_of(url: str) -> Place:
    """Reads a URL; raises StoreError. `prefix` is the store's, other parameters are redis-py's."""
    parts = urlsplit(url)
    ours = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = ours.pop("prefix", "sf")
    shown = _shown(url)
    if not _NAME.fullmatch(name):
        raise StoreError(f"store {shown}: prefix: expected letters, digits, `_`, `.` or `-`, got {name!r}")
    query = f"?{urlencode(ours)}" if ours else ""
    return Place(f"{parts.scheme}://{parts.netloc}{parts.path}{query}", shown, name)


def _shown(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", url)
