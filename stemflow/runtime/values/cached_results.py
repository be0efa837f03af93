"""Cached results: the keys under which equal calls share a result, and how they are cleared.

A cached result is a unique key with a window: the first call holds it, and equal calls within the window end with its
result. Clearing the cache writes a new *generation* of one task or of all; it is part of the key, so results of older
generations are not found any more, and expire.
"""

from __future__ import annotations

from stemflow.model.policy import LONGEST_CACHE_MS
from stemflow.model.records import Key
from stemflow.store.base import Store

TOPIC = "cache"
"""Topic of the hints that hold the generations, by the name of the task."""
EVERY_TASK = "*"


async def cached_key(store: Store, task: str, unique: str, private: Key | None = None) -> str:
    """The key of a cached result, given the unique key of the call.

    `private`: the node that neither reads nor writes the cache, since its run was submitted so.
    """
    if private is not None:
        return f"cache:{'/'.join(private)}:{unique}"
    generations = await store.hints(TOPIC)
    latest = max(generations.get(EVERY_TASK, b""), generations.get(task, b""))
    return f"cache:{latest.decode()}:{unique}"


async def clear_cache(store: Store, task: str | None = None) -> None:
    """Let no later call find a cached result of `task`, or of any task."""
    generation = f"{store.now_ms():015d}".encode()
    await store.put_hint(TOPIC, task or EVERY_TASK, generation, 2 * LONGEST_CACHE_MS)
