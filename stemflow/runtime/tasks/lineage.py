"""Runs that a handler starts: what they take over from its task."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from stemflow.runtime.payloads.headers import inherited
from stemflow.runtime.tasks.context import TaskContext, current_context
from stemflow.runtime.tasks.submission import Submission


def child_of(context: TaskContext, asked: Submission, propagated: Iterable[str]) -> Submission:
    """The submission as one of the task of `context`: with its id as parent, its root, and its headers in `propagated`.

    Headers that were given win.
    """
    return structs.replace(
        asked,
        headers=inherited(context.headers, propagated, asked.headers),
        parent=(context.run_id, context.node),
        root=context.root_id,
    )


def from_handler(asked: Submission, propagated: Iterable[str]) -> Submission:
    """The submission as one of the task whose handler calls; unchanged outside of handlers."""
    context = current_context()
    return asked if context is None else child_of(context, asked, propagated)
