"""Running one test case in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from stemflow.cli.live import tree_rows
from stemflow.cli.test.mocks import Mocked
from stemflow.cli.tree import Row
from stemflow.dsl.cases import Answer, Case, Sent
from stemflow.errors import StemflowError
from stemflow.model.records import FINAL, HELD, ErrorInfo, Node
from stemflow.model.signature import TaskSig
from stemflow.model.tree import everything
from stemflow.model.workflow import Workflow
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.secrets import NamedSecrets
from stemflow.runtime.values.forms import InvalidInputs
from stemflow.testing.rehearsal import Call, Rehearsal
from stemflow.testing.simulation.virtual_loop import SimulationStuck, run

HORIZON_S = 10 * 366 * 86_400.0
"""Virtual seconds after which a run that has not ended counts as one that never ends."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run of a case went. `broken`: why there is nothing to compare with what is expected."""

    broken: str | None = None
    state: str = ""
    outputs: Any = None
    error: ErrorInfo | None = None
    failed_at: str | None = None
    rows: tuple[Row, ...] = ()
    calls: tuple[Call, ...] = ()
    created: tuple[str, ...] = ()
    """Paths of the nodes in the order in which they opened."""
    elapsed_ms: int = 0
    ended_at_ms: int = 0
    by_path: dict[str, Row] = field(default_factory=dict)


def tasks_of(workflow: Workflow) -> set[str]:
    """The names of all tasks that the workflow calls."""
    return {one.task for one in everything(workflow.body) if isinstance(one, TaskSig)}


def rehearse(workflow: Workflow, case: Case, registry: TaskRegistry | None) -> Outcome:
    """Run the case; `registry` has the handlers of tasks without a mock, None: those may not be called."""
    try:
        with _without_logs():
            return run(lambda loop: _run(workflow, case, registry), horizon_s=HORIZON_S, shuffle=False)[0]
    except InvalidInputs as wrong:
        return Outcome("; ".join(wrong.messages))
    except SimulationStuck as stuck:
        return Outcome(f"the run never ends: {str(stuck).splitlines()[0]}")
    except StemflowError as error:
        return Outcome(str(error))


async def _run(workflow: Workflow, case: Case, registry: TaskRegistry | None) -> Outcome:
    mocked = Mocked(case.mocks)
    stubs = mocked.stubs(tasks_of(workflow), real=registry is not None)
    registry = TaskRegistry() if registry is None else registry.copy()
    registry.secrets = NamedSecrets()
    async with Rehearsal(registry, stubs=stubs, skip_idle=True) as rehearsal:
        handle = await rehearsal.app.submit(workflow, inputs=dict(case.inputs))
        acting = [asyncio.ensure_future(one) for one in _actions(rehearsal, handle, case)]
        try:
            result = await handle.wait()
        finally:
            for one in acting:
                one.cancel()
            failures = await asyncio.gather(*acting, return_exceptions=True)
        failed = next((one for one in failures if isinstance(one, StemflowError)), None)
        if failed is not None:
            return Outcome(str(failed))
        if mocked.unmocked:
            missing = ", ".join(dict.fromkeys(mocked.unmocked))
            return Outcome(f"the case calls {missing} and has no mock of it; add one, or pass --tasks")
        nodes = await handle.records()
        rows = await tree_rows(rehearsal.app, handle, nodes, collapse=False)
        root = next(node for node in nodes if not node.path)
        return Outcome(
            state=rows[0].state,
            outputs=result.raw,
            error=result.error,
            failed_at=result.failed_at,
            rows=tuple(rows),
            calls=tuple(rehearsal.calls),
            created=tuple(_in_order(nodes)),
            elapsed_ms=root.ended_at_ms - root.opened_at_ms,
            ended_at_ms=root.ended_at_ms,
            by_path={row.path: row for row in rows},
        )


def _in_order(nodes: list[Node]) -> list[str]:
    return [node.path for node in nodes if node.path]


def _actions(rehearsal: Rehearsal, handle: RunHandle[Any], case: Case) -> Iterator[Coroutine[Any, Any, None]]:
    """What happens to the run from outside: it is cancelled, approvals are answered, events are sent."""
    if case.cancel_after_ms is not None:
        yield _cancel(rehearsal, handle, case.cancel_after_ms)
    for answer in case.answers:
        yield _give(rehearsal, handle, answer)
    for event in case.events:
        yield _send(rehearsal, event)


async def _cancel(rehearsal: Rehearsal, handle: RunHandle[Any], after_ms: int) -> None:
    await rehearsal.pause(after_ms)
    await handle.cancel()


async def _give(rehearsal: Rehearsal, handle: RunHandle[Any], answer: Answer) -> None:
    """Answer once the step waits; a run that ends before gets no answer."""
    if not await _is_asked(rehearsal, handle, answer.step):
        return
    await rehearsal.pause(answer.after_ms)
    app, given = rehearsal.app, {"by": answer.by, "note": answer.note}
    if answer.approve:
        await app.approve(handle.id, answer.step, inputs=dict(answer.inputs), **given)
    else:
        await app.reject(handle.id, answer.step, **given)


async def _is_asked(rehearsal: Rehearsal, handle: RunHandle[Any], step: str) -> bool:
    """Wait until the step waits for an answer; false if the run ends before. Takes no time, not even virtual time."""
    store, version = rehearsal.app.store, 0
    while True:
        node, root = await store.read([(handle.id, step), (handle.id, "")])
        if isinstance(node, Node) and node.state == HELD:
            return True
        if isinstance(root, Node) and root.state in FINAL:
            return False
        version = await store.wait_for_change(version, None, handle.id)


async def _send(rehearsal: Rehearsal, event: Sent) -> None:
    await rehearsal.pause(event.after_ms)
    await rehearsal.app.send_event(event.type, event.data)


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """What the engine logs is in the story of a case that fails."""
    logger = logging.getLogger("stemflow")
    before = logger.disabled, logger.propagate, logger.handlers
    others = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("stemflow.")]
    states = [one.disabled for one in others]
    for one in (logger, *others):
        one.disabled = True
    try:
        yield
    finally:
        logger.disabled = before[0]
        for one, state in zip(others, states, strict=True):
            one.disabled = state
