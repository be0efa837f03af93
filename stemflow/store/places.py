"""Places: where a store keeps leaves that are ready. A place is a queue and, where it is known, a task.

A worker leases only what it has declared, so leaves of each task are kept apart: to a store a place is what a queue
was, and a request for leases names which places it accepts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from stemflow.model.effects import Put
from stemflow.model.records import Node

SEPARATOR: Final = "\x1f"
"""Between queue and task. A task's name has no control characters; the name of a queue may."""


@lru_cache(maxsize=4_096)
def place_of(queue: str, task: str) -> str:
    """The place of a task in a queue; without a task the queue itself, of which every worker may lease."""
    return f"{queue}{SEPARATOR}{task}" if task else queue


def place_of_put(put: Put) -> str:
    """The place of a leaf that a decision makes ready."""
    assert isinstance(put.record, Node)
    return place_of(put.record.queue, put.task)


@lru_cache(maxsize=4_096)
def split(place: str) -> tuple[str, str]:
    """The queue and the task of a place; the task is empty where it is not known."""
    queue, separator, task = place.rpartition(SEPARATOR)
    return (queue, task) if separator else (place, "")
