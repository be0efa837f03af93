"""Tools for testing programs built on stemflow.

`virtual_time` runs a test on a clock that jumps, `Rehearsal` runs canvases and workflows on it, and `context_for` makes
a context for calling one handler. The contract of stores, test servers and the simulation are sub-packages.
"""

from __future__ import annotations

from stemflow.testing.contexts import RecordedContext, RecordedSyncContext, context_for
from stemflow.testing.rehearsal import Call, Enqueued, Rehearsal, answers, virtual_time

__all__ = [
    "Call",
    "Enqueued",
    "RecordedContext",
    "RecordedSyncContext",
    "Rehearsal",
    "answers",
    "context_for",
    "virtual_time",
]
