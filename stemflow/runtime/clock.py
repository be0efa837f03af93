"""The system's clock and ids: with the store's, the only places that read either."""

from __future__ import annotations

import os
import time
from threading import Lock


class SystemClock:
    """The machine's clock; `now_ms` may jump, `monotonic_ms` never runs backwards."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class SystemIds:
    """UUIDv7 ids (RFC 9562) as 32 hex characters; those of one process sort by their time of making."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = Lock()

    def run_id(self) -> str:
        with self._lock:
            self._last = max(self._last + 1, (time.time_ns() // 1_000_000) << 12)
            stamp = self._last
        random = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
        value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random
        return f"{value:032x}"
