"""The server's time in this process: its last answer, and the time that has passed since."""

from __future__ import annotations

from stemflow.ports import Clock


class ServerTime:
    """Never runs backwards. With `test_time` the given clock itself is the store's time."""

    def __init__(self, clock: Clock, test_time: bool) -> None:
        self._clock, self._test = clock, test_time
        self._latest = 0
        self._observed_at = clock.monotonic_ms()

    def given(self) -> int:
        """The time that goes with a request; 0 asks for the server's."""
        return self._clock.now_ms() if self._test else 0

    def observe(self, now_ms: int) -> None:
        passed = self.now_ms()
        self._latest, self._observed_at = max(now_ms, passed), self._clock.monotonic_ms()

    def monotonic_ms(self) -> int:
        return self._clock.monotonic_ms()

    def now_ms(self) -> int:
        if self._test:
            self._latest = max(self._latest, self._clock.now_ms())
            return self._latest
        return self._latest + self._clock.monotonic_ms() - self._observed_at
