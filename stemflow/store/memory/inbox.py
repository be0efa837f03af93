"""The inboxes of runs in the store in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

from stemflow.model.effects import Decision
from stemflow.model.facts import Post
from stemflow.model.records import Key, Node, Record
from stemflow.store.base import INBOX_MS, INBOX_POSTS, INBOX_RUNS, Inbox, Want


class _Numbered(NamedTuple):
    number: int
    post: Post


class _Box:
    """The posts of a run; they are not leased before `free_at_ms`."""

    __slots__ = ("free_at_ms", "posts")

    def __init__(self) -> None:
        self.free_at_ms = 0
        self.posts: list[_Numbered] = []


class Inboxes:
    """By run, only those in which there is something."""

    __slots__ = ("_boxes", "_count")

    def __init__(self) -> None:
        self._boxes: dict[str, _Box] = {}
        self._count = 0

    def has_posts(self, run: str) -> bool:
        return run in self._boxes

    def commit(self, decision: Decision) -> None:
        for run, upto in decision.consumed:
            self._consume(run, upto)
        for post in decision.posts:
            self._count += 1
            self._boxes.setdefault(post.run, _Box()).posts.append(_Numbered(self._count, post))

    def _consume(self, run: str, upto: int) -> None:
        box = self._boxes.get(run)
        if box is not None:
            box.free_at_ms = 0
            del box.posts[: bisect_right(box.posts, upto, key=lambda one: one.number)]
            if not box.posts:
                del self._boxes[run]

    def take(
        self, want: Want | None, records: Mapping[Key, Record], now_ms: int
    ) -> tuple[tuple[Inbox, ...], tuple[str, ...]]:
        """Lease the inboxes that are free; and the runs whose inbox is not."""
        if want is None or not self._boxes:
            return (), ()
        boxes = sorted((box.free_at_ms, run) for run, box in self._boxes.items() if want.only_run in (None, run))
        free = [run for at_ms, run in boxes if at_ms <= now_ms]
        busy = [run for at_ms, run in boxes if at_ms > now_ms]
        leased = [self._lease(run, records, now_ms) for run in free[:INBOX_RUNS]]
        return tuple(leased), tuple(busy[:INBOX_RUNS])

    def _lease(self, run: str, records: Mapping[Key, Record], now_ms: int) -> Inbox:
        box = self._boxes[run]
        box.free_at_ms = now_ms + INBOX_MS
        some = box.posts[:INBOX_POSTS]
        posts = tuple([one.post for one in some])
        found = (records.get(key) for key in dict.fromkeys(post.scope for post in posts))
        return Inbox(run, some[-1].number, posts, tuple([one for one in found if isinstance(one, Node)]))

    def next_at_ms(self, only_run: str | None, now_ms: int) -> int | None:
        """When the next one is free that is not."""
        if not self._boxes:
            return None
        boxes = [box for run, box in self._boxes.items() if only_run in (None, run)]
        return min((box.free_at_ms for box in boxes if box.free_at_ms > now_ms), default=None)

    def drop(self, run: str) -> None:
        self._boxes.pop(run, None)
