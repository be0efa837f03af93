"""What can be found out about a server: how durable it is, what it can do, how far away it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from stemflow.store.base import StoreError
from stemflow.store.health import Finding, HealthReport, Level
from stemflow.store.redis.client import Client
from stemflow.store.redis.requests import pack
from stemflow.store.redis.server import KEEP, evicts
from stemflow.store.redis.versions import covered

PINGS: Final = 20
SLOW_MS: Final = 5.0
"""A round trip that takes longer makes every commit slow."""
FULL: Final = 0.9
"""The share of `maxmemory` from which a server counts as nearly full."""
NO_CONFIG: Final = "CONFIG GET is refused to this user; `stemflow acl` prints one that may ask"


async def check_health(client: Client, prefix: bytes) -> HealthReport:
    """Asks the server; changes nothing."""
    info = await client.info()
    config = await _config(client)
    return HealthReport(
        (
            covered(info),
            *durability(info, config),
            memory(info),
            replication(info, config),
            await _scripts(client, prefix),
            await _latency(client),
            await _keys(client),
        ),
        usable=evicts(info) is None and covered(info).level != "error",
    )


async def _config(client: Client) -> dict[str, str] | None:
    """Settings that INFO does not tell; None where this user may not ask."""
    found: dict[str, str] = {}
    try:
        for name in (b"appendfsync", b"save", b"min-replicas-to-write"):
            words = [bytes(word).decode() for word in await client.call(b"CONFIG", b"GET", name)]
            found.update(zip(words[::2], words[1::2], strict=True))
    except StoreError:
        return None
    return found


FSYNC: Final[dict[str, tuple[Level, str, str]]] = {
    "always": ("ok", "every acknowledged write is on disk", ""),
    "everysec": ("ok", "a crash of the machine may take the last two seconds of acknowledged writes; one of the "
                 "server alone takes none, unless its disk is slow", ""),
    "no": ("warning", "a crash of the machine takes what the system had not yet written, often 30 s",
           "`CONFIG SET appendfsync everysec`"),
}  # fmt: skip


def durability(info: Mapping[str, str], config: Mapping[str, str] | None) -> list[Finding]:
    """What a restart or a crash of the server keeps."""
    snapshots = "unknown" if config is None else config.get("save", "")
    noted = [Finding("snapshots", "ok", f"RDB snapshots: {snapshots or 'none'}")]
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        noted = [Finding("snapshots", "error", "the last RDB snapshot failed", "look at the server's log and its disk")]
    if info.get("aof_enabled") != "1":
        loses = "what was written since the last snapshot" if snapshots else "everything"
        text = f"append-only file off: a crash or restart of the server loses {loses}"
        advice = "`CONFIG SET appendonly yes`, and so in its configuration"
        return [Finding("durability", "warning", text, advice), *noted]
    if info.get("aof_last_write_status", "ok") != "ok":
        text = "writing the append-only file fails: the server refuses writes"
        return [Finding("durability", "error", text, "look at the server's log and its disk"), *noted]
    if config is None or config.get("appendfsync") not in FSYNC:
        return [Finding("durability", "warning", "append-only file on, fsync policy unknown", NO_CONFIG), *noted]
    level, text, advice = FSYNC[config["appendfsync"]]
    late = int(info.get("aof_delayed_fsync", 0))
    if level == "ok" and late:
        level, text = "warning", f"{text}; it was too slow {late} times, for more than 2 s each, and clients waited"
        advice = "give the server a faster disk, or one of its own"
    return [Finding("durability", level, f"append-only file, fsync {config['appendfsync']}: {text}", advice), *noted]


def memory(info: Mapping[str, str]) -> Finding:
    """Whether the server throws data away, and how full it is."""
    why = evicts(info)
    if why is not None:
        return Finding("memory", "error", why, f"{KEEP}; until then nothing starts here")
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = info.get("maxmemory_policy", "unknown")
    if limit == 0:
        text = f"{_mb(used)} used, no maxmemory, policy {policy}"
        if policy in ("noeviction", "unknown"):
            return Finding("memory", "ok", text)
        advice = "`CONFIG SET maxmemory-policy noeviction`"
        return Finding("memory", "warning", f"{text}: it would throw data away as soon as maxmemory is set", advice)
    text = f"{_mb(used)} of {_mb(limit)} used, policy {policy}"
    if used > FULL * limit:
        advice = "new work is refused when it is full: let workers drain it, shorten result_ttl, or raise maxmemory"
        return Finding("memory", "warning", text, advice)
    return Finding("memory", "ok", text)


def _mb(count: int) -> str:
    return f"{count / 1024**2:.1f} MiB"


def replication(info: Mapping[str, str], config: Mapping[str, str] | None) -> Finding:
    """Replicas, and how many must have a write before it is taken."""
    if info.get("role") == "slave":
        master = f"{info.get('master_host')}:{info.get('master_port')}"
        return Finding("replicas", "error", "this server is a replica and takes no writes", f"name {master} instead")
    count = int(info.get("connected_slaves", 0))
    if count == 0:
        return Finding("replicas", "ok", "no replicas: the data is on this machine alone")
    least = "unknown" if config is None else config.get("min-replicas-to-write", "0")
    text = f"{count} replicas, min-replicas-to-write {least}"
    behind = [line for name, line in info.items() if name.startswith("slave") and "state=" in line]
    if any("state=online" not in line for line in behind):
        return Finding("replicas", "warning", f"{text}; not all of them are online", "look at the replicas' logs")
    if least == "0":
        text += ": a failover may lose writes that were acknowledged"
    return Finding("replicas", "ok", text)


async def _scripts(client: Client, prefix: bytes) -> Finding:
    """Reads a record that is not there, by a script, as everything is done."""
    try:
        await client.run("read", prefix, pack(["", "stemflow-doctor"]))
    except StoreError as error:
        return Finding("scripts", "error", str(error), "allow this user EVAL and EVALSHA (`stemflow acl` prints rules)")
    return Finding("scripts", "ok", "scripts run")


async def _latency(client: Client) -> Finding:
    loop, times = asyncio.get_running_loop(), []
    for _ in range(PINGS):
        start = loop.time()
        await client.call(b"PING")
        times.append((loop.time() - start) * 1_000)
    middle = sorted(times)[PINGS // 2]
    text = f"a round trip takes {middle:.2f} ms (median of {PINGS}; the longest {max(times):.2f} ms)"
    if middle > SLOW_MS:
        return Finding("latency", "warning", text, "bring workers and server closer together")
    return Finding("latency", "ok", text)


async def _keys(client: Client) -> Finding:
    try:
        count = await client.call(b"DBSIZE")
    except StoreError:
        return Finding("keys", "ok", "the number of keys is unknown: DBSIZE is refused to this user")
    return Finding("keys", "ok", f"{count} keys in this database")
