"""Leases of the store in memory, and renewing them from a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stemflow.model.records import STOPPING, Key, Node, Record
from stemflow.store.base import Renewed


class Held:
    """A lease. Renewals move `until_ms` in place; a transfer replaces the lease by another one."""

    __slots__ = ("token", "until_ms")

    def __init__(self, token: int, until_ms: int) -> None:
        self.token, self.until_ms = token, until_ms


class MemoryRenewer:
    """Renews in the store's tables. Each step is atomic under the interpreter's lock, so any thread may call it."""

    def __init__(self, leases: Mapping[Key, Held], records: Mapping[Key, Record], now_ms: Callable[[], int]) -> None:
        self._leases, self._records, self._now_ms = leases, records, now_ms

    def renew(self, held: Sequence[tuple[Key, int, int]]) -> Renewed:
        now_ms = self._now_ms()
        gone, stopping = [], []
        for key, token, lease_ms in held:
            lease = self._leases.get(key)
            if lease is None or lease.token != token:
                gone.append((key, token))
                continue
            lease.until_ms = now_ms + lease_ms
            node = self._records.get(key)
            if isinstance(node, Node) and node.state == STOPPING:
                stopping.append((key, node.kill))
        return Renewed(tuple(gone), tuple(stopping))

    def close(self) -> None:
        """Nothing to close."""
