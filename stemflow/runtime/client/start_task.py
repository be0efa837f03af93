"""The task that starts the run of a sub-workflow that is not waited for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from stemflow.errors import StemflowError
from stemflow.model.records import parent_path
from stemflow.model.subworkflow import START_RUN, workflow_of
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.runs.handle import RunConflict
from stemflow.runtime.tasks.context import Reject, TaskContext
from stemflow.runtime.tasks.lineage import child_of
from stemflow.runtime.tasks.submission import MAX_ID, Submission
from stemflow.runtime.tasks.task import Task
from stemflow.store.base import StoreError

OPTIONS: Final[Mapping[str, Any]] = {"max_retries": 1_000_000, "retry": {"initial": "1s", "max": "1m"}}
"""The task fails at once unless the store fails, and then it is tried again until the store is back."""


class RunStarter:
    """Makes the task, for the worker of this process."""

    def __init__(self, submitter: Submitter, propagated: Iterable[str]) -> None:
        self._submitter, self._propagated = submitter, propagated

    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The task by its name."""
        return {START_RUN: Task(START_RUN, self._start, OPTIONS)}

    async def _start(self, context: TaskContext, inputs: Mapping[str, Any], workflow: str) -> dict[str, str]:
        """Start the run, whose id is derived from the step: a second attempt finds the run of the first."""
        run_id = run_id_of(context.run_id, parent_path(context.node))
        asked = Submission(what=workflow_of(workflow), inputs=inputs, run_id=run_id, allow_unknown=True)
        try:
            handle = await self._submitter.submit(child_of(context, asked, self._propagated))
        except StoreError:
            raise
        except RunConflict:  # the run of an earlier attempt, by another version of the program
            return {"run_id": run_id}
        except StemflowError as error:
            raise Reject(str(error)) from error
        return {"run_id": handle.id}


def run_id_of(run: str, path: str) -> str:
    """The id of the run that the step at `path` of a run starts."""
    found = f"{run}@{path}"
    return found if len(found) <= MAX_ID else f"{run[:100]}@{hashlib.sha256(found.encode()).hexdigest()[:32]}"
