"""Exponential backoff between attempts to reach a store, spread so that many processes do not come back at once."""

from __future__ import annotations

import hashlib


class ReconnectBackoff:
    """Delays that double from `first_s` up to `most_s` seconds, less up to half by a hash of `name` and the attempt."""

    def __init__(self, name: str, first_s: float, most_s: float) -> None:
        self.name, self.first_s, self.most_s = name, first_s, most_s
        self.tries = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        self.tries += 1
        digest = hashlib.blake2b(f"{self.name}/{self.tries}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        return min(self.most_s, self.first_s * 2.0 ** min(self.tries - 1, 30)) * (1.0 - share / 2)

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self.tries = 0
