"""The clock of a store in this process: it never runs backwards, and goes on when the machine's is put back."""

from __future__ import annotations

from stemflow.ports import Clock


class SteadyClock:
    """The wall clock, which goes on by the monotonic clock after a step back; a step forward it follows at once."""

    __slots__ = ("_clock", "_last_ms", "_offset_ms")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ms = 0
        self._offset_ms = clock.now_ms() - clock.monotonic_ms()

    def now_ms(self) -> int:
        elapsed_ms = self._clock.monotonic_ms()
        offset_ms = self._clock.now_ms() - elapsed_ms
        if offset_ms > self._offset_ms:
            self._offset_ms = offset_ms
        now_ms = elapsed_ms + self._offset_ms
        if now_ms > self._last_ms:
            self._last_ms = now_ms
        return self._last_ms

    def not_before(self, at_ms: int) -> None:
        """It was this late already, by what is stored: go on from there."""
        self._offset_ms = max(self._offset_ms, at_ms - self._clock.monotonic_ms())
