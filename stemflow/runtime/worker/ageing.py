"""Some of a worker's leases go by age, so that low priorities and large runs are served as well."""

from __future__ import annotations

from typing import Final

EVERY: Final = 16
"""Of so many leases that others may have been waiting for, one is the leaf that became ready first."""


class Ageing:
    """Counts leases of requests that were answered in full: only then may anything have been left to wait."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def share(self, limit: int) -> int:
        """How many of `limit` leases are to be asked for by age."""
        share = min(self._count // EVERY, limit)
        self._count -= share * EVERY
        return share

    def answered(self, limit: int, leases: int) -> None:
        """A request for `limit` leases was answered with so many."""
        if 0 < limit <= leases:
            self._count += leases
