"""The real clock and the real source of ids: the only module that asks the operating system for either."""

from __future__ import annotations

import os
import time


class SystemClock:
    """The machine's clocks, in milliseconds."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return the machine's monotonic clock in milliseconds."""
        return time.monotonic_ns() // 1_000_000


class SystemIds:
    """UUIDv7 (RFC 9562) from the wall clock and the system's entropy."""

    def run_id(self) -> str:
        """Return a new UUIDv7 as 32 lower-case hex characters; later ids sort later, to the millisecond."""
        return uuid7_hex(time.time_ns() // 1_000_000, os.urandom(10))


def uuid7_hex(at_ms: int, entropy: bytes) -> str:
    """Lay out a UUIDv7 from milliseconds since the Unix epoch and ten bytes of entropy."""
    timestamp = (at_ms & (2**48 - 1)) << 80
    bits = int.from_bytes(entropy, "big") & ~(0xF << 76) & ~(0x3 << 62)
    return f"{timestamp | bits | 0x7 << 76 | 0x2 << 62:032x}"
