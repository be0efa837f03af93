"""The one place where a URL chooses the class of a store."""

from __future__ import annotations

from stemflow.ports import Clock
from stemflow.store.base import Store, StoreError
from stemflow.store.memory import MemoryStore


def open_store(url: str, clock: Clock) -> Store:
    """The store that `url` names, not yet connected (`open` does that); raises StoreError for a scheme not known."""
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryStore(url, clock)
    raise StoreError(f"store {url!r}: expected memory:, got the scheme {scheme!r}; write the store as a URL")
