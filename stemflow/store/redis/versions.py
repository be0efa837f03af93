"""Which server covers which promise; printed by `stemflow doctor` and shown in docs/durability.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from stemflow.store.health import Finding
from stemflow.store.redis.server import OLDEST, Version, named, version_of


class Row(Struct, frozen=True):
    """Servers from one version up to before another; `full`: what they do when short of memory; `tested`: with what
    the tests have run."""

    name: str
    since: Version
    before: Version
    promises: str
    full: str
    tested: str


BY_FLAGS: Final = "new work is refused whole, what is under way goes on (flags of scripts)"
BY_ORDER: Final = "the same (by the order of writes in scripts, for want of flags)"
EVERY: Final = "G1 to G5"
UNTESTED: Final = "not tested"

TABLE: Final = (
    Row("Redis", (6, 2), (7, 0), EVERY, BY_ORDER, "6.2.14"),
    Row("Redis", (7, 0), (7, 2), EVERY, BY_FLAGS, "7.0.15"),
    Row("Redis", (7, 2), (8, 0), EVERY, BY_FLAGS, UNTESTED),
    Row("Redis", (8, 0), (9, 0), EVERY, BY_FLAGS, UNTESTED),
    Row("Valkey", (7, 2), (8, 0), EVERY, BY_FLAGS, UNTESTED),
    Row("Valkey", (8, 0), (9, 0), EVERY, BY_FLAGS, UNTESTED),
    Row("Valkey", (9, 0), (10, 0), EVERY, BY_FLAGS, "9.1.2"),
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
        if row.name == kind and row.since <= found < row.before:
            tested = "not tested with this line" if row.tested == UNTESTED else f"tested with {row.tested}"
            return Finding("version", "ok", f"{name}: promises {row.promises}; {tested}")
    advice = "expected Redis 6.2 to 8 or Valkey 7.2 to 9; run the tests of the project with it (`STEMFLOW_SERVER`)"
    return Finding("version", "warning", f"{name}: newer than what is known to work", advice)
