"""Which server covers which promise; printed by `stemflow doctor` and shown in docs/durability.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from stemflow.store.health import Finding
from stemflow.store.redis.server import OLDEST, Version, named, version_of


class Row(Struct, frozen=True):
    """Servers from one version up to before another: what they keep, what they do when short of memory, how work
    moves from one of them to another, and with which versions, and how, that was tested."""

    kind: str
    span: str
    since: Version
    before: Version
    promises: str
    full: str
    moves: str
    tested: str


BY_FLAGS: Final = "new work is refused completely, accepted work continues (script flags)"
BY_ORDER: Final = "new work is refused completely, accepted work continues (order of writes in scripts)"
EVERY: Final = "G1 to G5"
BY_KEY: Final = "a failover by sentinels may lose the last writes; slots move key by key"
BY_SLOT: Final = "a planned failover by sentinels (`COORDINATED`) loses nothing; slots can also move as a whole"
CHECKS: Final = "in every run of the checks"
HAND: Final = "by hand"

TABLE: Final = (
    Row("Redis", "6.2", (6, 2), (7, 0), EVERY, BY_ORDER, BY_KEY, f"6.2.14, {CHECKS}"),
    Row("Redis", "7.0", (7, 0), (7, 2), EVERY, BY_FLAGS, BY_KEY, f"7.0.15, {HAND}"),
    Row("Redis", "7.2 and 7.4", (7, 2), (8, 0), EVERY, BY_FLAGS, BY_KEY, f"7.2.6 and 7.4.1, {HAND}"),
    Row("Redis", "8", (8, 0), (9, 0), EVERY, BY_FLAGS, BY_KEY, f"8.2.3, {CHECKS}"),
    Row("Valkey", "7.2", (7, 2), (8, 0), EVERY, BY_FLAGS, BY_KEY, f"7.2.7, {HAND}"),
    Row("Valkey", "8", (8, 0), (9, 0), EVERY, BY_FLAGS, BY_KEY, f"8.0.1, {HAND}"),
    Row("Valkey", "9", (9, 0), (10, 0), EVERY, BY_FLAGS, BY_SLOT, f"9.1.2, {CHECKS}"),
)


def covered(info: Mapping[str, str]) -> Finding:
    """What the version of a server means for the promises."""
    name, found = named(info), version_of(info, own=True)
    if found == (0, 0):
        return Finding("version", "warning", f"{name}: its version is not said", "see the table in docs/durability.md")
    if version_of(info) < OLDEST:
        return Finding("version", "error", f"expected Redis 6.2 or later, or Valkey, got {name}", "upgrade it")
    kind = name.partition(" ")[0]
    for row in TABLE:
        if row.kind == kind and row.since <= found < row.before:
            return Finding("version", "ok", f"{name}: promises {row.promises}; {row.moves}; tested with {row.tested}")
    advice = "expected Redis 6.2 to 8 or Valkey 7.2 to 9; run the tests of the project with it (`STEMFLOW_SERVER`)"
    return Finding("version", "warning", f"{name}: newer than what is known to work", advice)
