"""The head of a schedule: a run that waits without end and whose inputs say what runs when.

A head is replaced as a whole by the next one. The unique key of the schedule keeps them apart: the newest takes the key
when the one before has ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from stemflow.errors import OptionError
from stemflow.model.records import FINAL, NO_RUN, Claim, ClaimSpec, Node
from stemflow.model.signature import AnySig, Signature, StepsSig, TaskSig, WaitSig
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.run_ids import HEAD_NAME, HEAD_PREFIX, TICK, TICK_PREFIX
from stemflow.runtime.tasks.submission import Submission
from stemflow.runtime.values.resolver import Values
from stemflow.schedule import ScheduleSpec

BACKFILL: Final = "stemflow.backfill"
"""The task that starts the run of one tick of the past and waits for its end."""
LEDGER_MS: Final = 30 * 86_400_000
"""How long the outcome of a tick is kept."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_FOR_EVER_MS: Final = 100 * 365 * 86_400_000


class Paused(Struct, frozen=True, omit_defaults=True):
    """Why a schedule makes no ticks. `ticks`: those of the meantime are skipped, or held until it resumes.

    `until_ms`: when it resumes by itself; None: when somebody resumes it.
    """

    at_ms: int
    ticks: Literal["skip", "hold"] = "skip"
    until_ms: int | None = None
    by: str = ""
    reason: str = ""


class Head(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule as it is in the store. Its ticks come after `from_ms`."""

    schedule: str
    spec: ScheduleSpec
    workflow: str
    """The name of the workflow, or of the task or canvas."""
    source: str
    """The text of the workflow file, or the signature as JSON."""
    form: Literal["file", "workflow", "signature"] = "file"
    """`workflow`: the workflow as JSON, with those that it calls."""
    file: str | None = None
    tasks: tuple[str, ...] = ()
    from_ms: int = 0
    after: int = 0
    """Of events: the number of the last one that starts no run."""
    applied_at_ms: int = 0
    paused: Paused | None = None

    def paused_at(self, now_ms: int) -> bool:
        """Whether no tick is made at this instant because somebody has paused the schedule."""
        return self.paused is not None and (self.paused.until_ms is None or now_ms < self.paused.until_ms)

    def same_work(self, other: Head) -> bool:
        """Whether both run the same work at the same times."""
        mine, theirs = (
            (one.spec, one.workflow, one.source, one.form, one.file, one.tasks) for one in (self, other)
        )
        return mine == theirs


def check_name(name: Any) -> str:
    """The name of a schedule: letters, digits, `_`, `-` and `.`, at most 100. Raises OptionError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(f"schedule: expected a name of 1 to 100 letters, digits, _, - and ., got {name!r:.80}")
    return name


def source_of(what: Signature[Any, Any]) -> str:
    """A signature as JSON. Raises OptionError for one that cannot be read again as it is."""
    text = msgspec.json.encode(what).decode()
    try:
        same = signature_of(text) == what
    except msgspec.MsgspecError:
        same = False
    if not same:
        raise OptionError(
            "schedule: expected a signature of plain JSON data, got one with objects in its arguments or options; give "
            "the options where the task is registered"
        )
    return text


def signature_of(source: str) -> Signature[Any, Any]:
    """The signature that `source_of` wrote."""
    found: Signature[Any, Any] = msgspec.json.decode(source, type=AnySig)
    return found


def head_key(schedule: str) -> str:
    """The unique key that the head of a schedule holds."""
    return f"schedule:{schedule}"


def run_key(schedule: str) -> str:
    """The unique key that the runs of a schedule hold, unless they may overlap."""
    return f"scheduled:{schedule}"


def head_prefix(schedule: str = "") -> str:
    """How the ids of the heads of a schedule begin; of all schedules without a name."""
    return f"{HEAD_PREFIX}{schedule}/" if schedule else HEAD_PREFIX


def tick_prefix(schedule: str) -> str:
    """How the ids of the runs begin that make the ticks of a schedule."""
    return f"{TICK_PREFIX}{schedule}/"


def tick_options(queue: str) -> Mapping[str, Any]:
    """The options of the tasks that make ticks: a tick that fails is made again until it succeeds."""
    return {
        "queue": queue,
        "priority": 9,
        "max_retries": 1_000_000,
        "retry": {"initial": "1s", "max": "1m"},
        "max_deliveries": 1_000,
        "result_ttl": LEDGER_MS / 1_000,
    }


def head_submission(head: Head, run_id: str) -> Submission:
    """The submission of a head: a run that waits, after it has arranged for its first tick."""
    start: TaskSig[Any, Any] = TaskSig(
        name="start",
        task=TICK,
        bind={"schedule": head.schedule, "head": "${{ run.id }}"},
        options=tick_options(head.spec.queue),
        declared=True,
    )
    hold: WaitSig[Any, Any] = WaitSig(name="hold", for_ms=_FOR_EVER_MS)
    flow = Workflow(
        name=f"{HEAD_NAME}{head.schedule}", body=StepsSig(steps=(start, hold)), inputs={"head": {"type": "object"}}
    )
    claim = ClaimSpec(head_key(head.schedule), "keep_last")
    return Submission(what=flow, inputs={"head": msgspec.to_builtins(head)}, run_id=run_id, claim=claim)


async def read_head(parts: Parts, run_id: str) -> Head | None:
    """The head that is this run; None if it has ended or is not there. Raises StoreError."""
    (root,) = await parts.store.read([(run_id, "")])
    if not isinstance(root, Node) or root.state in FINAL:
        return None
    inputs = await Values(parts.library).inputs(await parts.library.header(run_id))
    return msgspec.convert(inputs["head"], Head)


async def newest_head(parts: Parts, schedule: str) -> str | None:
    """The run id of the head that is in force, or will be as soon as the one before has ended. Raises StoreError."""
    (claim,) = await parts.store.read([(NO_RUN, head_key(schedule))])
    if not isinstance(claim, Claim) or claim.finished:
        return None
    return (claim.waiters or claim.holders)[-1][0]
