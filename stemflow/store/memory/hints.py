"""Hints with a time to live, in memory."""

from __future__ import annotations

import heapq


class Hints:
    """Hints by topic and name; each call first drops those that have expired."""

    __slots__ = ("_topics", "_ends")

    def __init__(self) -> None:
        self._topics: dict[str, dict[str, tuple[int, bytes]]] = {}
        self._ends: list[tuple[int, str, str]] = []

    def set(self, topic: str, name: str, body: bytes, now_ms: int, ttl_ms: int) -> None:
        self._drop(now_ms)
        self._topics.setdefault(topic, {})[name] = (now_ms + ttl_ms, body)
        heapq.heappush(self._ends, (now_ms + ttl_ms, topic, name))

    def of(self, topic: str, now_ms: int) -> dict[str, bytes]:
        self._drop(now_ms)
        return {name: body for name, (_, body) in self._topics.get(topic, {}).items()}

    def _drop(self, now_ms: int) -> None:
        while self._ends and self._ends[0][0] <= now_ms:
            until_ms, topic, name = heapq.heappop(self._ends)
            names = self._topics.get(topic, {})
            if name in names and names[name][0] == until_ms:
                del names[name]
                if not names:
                    del self._topics[topic]
