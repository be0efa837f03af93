"""What the engine needs from outside to know the time and to name things."""

from typing import Protocol


class Clock(Protocol):
    """Tells the time; the engine reads it nowhere else."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since the Unix epoch; it may jump."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds since an arbitrary instant; it never runs backwards."""
        ...


class IdSource(Protocol):
    """Makes the few ids that are not derived from a run: those of runs and channels."""

    def run_id(self) -> str:
        """Return a new UUIDv7 as 32 lower-case hex characters."""
        ...
