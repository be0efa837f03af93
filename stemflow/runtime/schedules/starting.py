"""Starting the run of a tick or of an event, from what the head of its schedule keeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from stemflow.errors import StemflowError
from stemflow.expr.dates import instant_of, iso
from stemflow.model.signature import Signature
from stemflow.model.subworkflow import workflow_of
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.runs.handle import DuplicateRun, RunConflict, RunHandle
from stemflow.runtime.schedules.head import Head, signature_of
from stemflow.runtime.tasks.submission import Submission
from stemflow.store.base import StoreError

log = logging.getLogger("stemflow.schedule")

Row = dict[str, Any]
"""What became of a tick: `at` (nominal), `fate`, `late_ms`, `run` or `reason`; `count` if it is of several ticks,
`event` if it is of an event."""


async def started(
    submitter: Submitter, schedule: str, row: Row, run_id: str, asked: Callable[[], Awaitable[Submission]]
) -> tuple[Row, RunHandle[Any] | None]:
    """Submit a run; its row, and its handle if it was submitted now. Raises StoreError."""
    try:
        return row, await submitter.submit(await asked())
    except StoreError:
        raise
    except DuplicateRun as taken:
        return {**row, "fate": "skipped", "run": taken.run_id, "reason": "this run has not ended"}, None
    except RunConflict:
        # The run exists from an earlier attempt; only `tick.late_ms`, or an event that was sent again, differs.
        return {**row, "fate": "started", "run": run_id}, None
    except StemflowError as error:
        log.error(
            "schedule %s: the run of %s cannot start: %s", schedule, row.get("event", row["at"]), error,
            extra={"schedule": schedule},
        )  # fmt: skip
        return {**row, "fate": "failed", "reason": str(error)[:1_000]}, None


def stamp(at_ms: int) -> str:
    """A nominal instant as it is written in ids: `2026-11-30T01:30:00Z`."""
    return iso(instant_of(at_ms))


async def work_in_thread(head: Head) -> Workflow | Signature[Any, Any]:
    """As `work_of`; in a thread, since importing the parser and reading a large file would hold the event loop."""
    return await asyncio.to_thread(work_of, head.source, head.form, head.file)


@lru_cache(maxsize=64)
def work_of(source: str, form: str, file: str | None) -> Workflow | Signature[Any, Any]:
    """The workflow or signature of a head. Raises InvalidWorkflow."""
    if form == "signature":
        return signature_of(source)
    return workflow_of(source) if form == "workflow" else file_of(source, file)


def file_of(text: str, file: str | None) -> Workflow:
    """The workflow of a file, with those that it calls as they are now. Raises InvalidWorkflow."""
    # Only a process that makes ticks of a file needs the parser.
    from stemflow.runtime.client.workflow_files import InvalidWorkflow, WorkflowFile  # noqa: PLC0415

    checked = WorkflowFile.of(text, file or "<schedule>").checked(None)
    if checked.workflow is None or checked.fails:
        raise InvalidWorkflow(checked.found)
    return checked.workflow
