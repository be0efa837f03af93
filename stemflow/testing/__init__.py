"""What tests of programs built on stemflow use; the contract of stores and the simulation are modules beside.

`virtual_time` runs a test on a clock that jumps, `Rehearsal` runs canvases and workflows on it, `context_for` gives a
context to call one handler with.
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
