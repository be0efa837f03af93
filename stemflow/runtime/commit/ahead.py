"""The records that decisions of an exchange leave, for those that are made after them and committed with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stemflow.model.effects import Decision
from stemflow.model.records import NO_RUN, Key, Record


class Ahead:
    """The decisions of one exchange that was not sent yet, and what they change together with records that runs share.

    Later decisions of the exchange rest on that. Were each decided on what is stored, only one of the decisions that
    change the same shared record would be committed in each exchange.
    """

    __slots__ = ("records", "places", "_count")

    def __init__(self) -> None:
        self.records: dict[Key, Record | None] = {}
        self.places: dict[Key, int] = {}
        """By key, the place in the exchange of the last decision that changes it."""
        self._count = 0

    def add(self, decision: Decision) -> None:
        """Note the next decision of the exchange; each one, in their order."""
        if any(put.key[0] == NO_RUN for put in decision.puts):
            for put in decision.puts:
                self.records[put.key], self.places[put.key] = put.record, self._count
        self._count += 1


class Resting(Mapping[Key, Record | None]):
    """Records as the decisions `ahead` leave them. Notes which of these have been looked up: the decision that is made
    from this view rests on them (`after`)."""

    def __init__(self, ahead: Ahead) -> None:
        self._ahead = ahead
        self._after: set[int] = set()

    @property
    def after(self) -> tuple[int, ...]:
        """The places of the decisions whose records were looked up."""
        return tuple(sorted(self._after))

    def __getitem__(self, key: Key) -> Record | None:
        found = self._ahead.records[key]
        self._after.add(self._ahead.places[key])
        return found

    def __iter__(self) -> Iterator[Key]:
        return iter(self._ahead.records)

    def __len__(self) -> int:
        return len(self._ahead.records)
