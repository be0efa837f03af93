"""Pauses between tries that grow, and differ from process to process so that many do not come back at once."""

from __future__ import annotations

import hashlib


class Pauses:
    """Each `next` is longer than the one before, up to `most_s`, less a share that is this name's own."""

    def __init__(self, name: str, first_s: float, most_s: float) -> None:
        self.name, self.first_s, self.most_s = name, first_s, most_s
        self.tries = 0

    def next(self) -> float:
        """Seconds to wait before the next try."""
        self.tries += 1
        digest = hashlib.blake2b(f"{self.name}/{self.tries}".encode(), digest_size=8).digest()
        share = int.from_bytes(digest, "big") / 2**64
        return min(self.most_s, self.first_s * 2.0 ** min(self.tries - 1, 30)) * (1.0 - share / 2)

    def reset(self) -> None:
        self.tries = 0
