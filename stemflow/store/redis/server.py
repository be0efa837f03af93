"""What a server says of itself: its version, and how it handles a lack of memory."""

from __future__ import annotations

from collections.abc import Mapping

from stemflow.store.base import StoreError

Version = tuple[int, int]
OLDEST: Version = (6, 2)
KEEP = "`CONFIG SET maxmemory-policy noeviction`, and so in its configuration, or use a server of its own"


def parsed(answer: bytes) -> dict[str, str]:
    """The fields of an answer to INFO."""
    pairs = (line.partition(":") for line in answer.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def version_of(info: Mapping[str, str], *, own: bool = False) -> Version:
    """As Redis counts: Valkey names the Redis whose commands it has; or its `own`. (0, 0) where it is not said."""
    said = info.get("redis_version", "")
    return _numbers(info.get("valkey_version", said) if own else said)


def _numbers(text: str) -> Version:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


def named(info: Mapping[str, str]) -> str:
    """`Valkey 8.1.1`, `Redis 7.2.4`."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def evicts(info: Mapping[str, str]) -> str | None:
    """Why a store is not safe here: the server throws data away when its memory is full; None where it does not."""
    policy, limit = info.get("maxmemory_policy", "noeviction"), info.get("maxmemory", "0")
    if policy == "noeviction" or limit == "0":
        return None
    return (
        f"expected maxmemory-policy noeviction, got {policy}: when its {limit} bytes are full the server would throw "
        "away records of runs that go on"
    )


def refuse_unfit(shown: str, info: Mapping[str, str]) -> None:
    """Raises StoreError for a server on which no store may be opened."""
    version = version_of(info)
    if (0, 0) < version < OLDEST:
        raise StoreError(f"{shown}: expected Redis 6.2 or later, or Valkey, got {named(info)}; upgrade it")
    why = evicts(info)
    if why is not None:
        raise StoreError(f"{shown}: {why}; {KEEP}")
