"""Answering steps that wait for a person, and listing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from stemflow.core.waiting import rejection
from stemflow.errors import OptionError, StemflowError
from stemflow.model.facts import Answered
from stemflow.model.plan import ApprovalPlan
from stemflow.model.records import FINAL, HELD, Header, Node
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.run_ids import expect_id
from stemflow.runtime.runs.handle import UnknownRun
from stemflow.runtime.values.events import answer_of
from stemflow.runtime.values.resolver import Values

MOST_NOTE = 10_000
"""The longest note, in characters."""


class NotWaiting(StemflowError):
    """The step does not wait for an answer: it has not begun, was answered, has ended, or is no approval."""


class Approval(Struct, frozen=True, kw_only=True):
    """A step that waits for an answer.

    `run_id` and `name`: of the run. `step`: the path of the step. `by`: the names that may answer; empty: anybody.
    `message`: what is asked. `inputs`: name -> JSON Schema of what is given with an approval. `since_ms`: the instant
    (epoch ms) since which it waits. `until_ms`: the instant at which it stops waiting.
    """

    run_id: str
    name: str
    step: str
    by: tuple[str, ...]
    message: str | None
    inputs: Mapping[str, Any]
    since_ms: int
    until_ms: int | None


async def answer(
    parts: Parts, run_id: str, step: str, approved: bool, by: str, note: str, inputs: Mapping[str, Any]
) -> None:
    """See `Stemflow.approve` and `Stemflow.reject`."""
    what = "approve" if approved else "reject"
    where = f"{what}: {expect_id(what, run_id)}/{expect_id(f'{what}: step', step)}"
    _check_text(f"{where}: by", by, 200)
    if note:
        _check_text(f"{where}: note", note, MOST_NOTE)
    while True:
        node, plan = await _waiting(parts, run_id, step, where)
        if plan.by and by not in plan.by:
            raise OptionError(f"{where}: expected an answer by {' or '.join(plan.by)}, got one by {by!r}")
        if node.state != HELD:
            if await _is_the_same(parts, node, approved, by):
                return
            raise NotWaiting(f"{where}: expected it to wait for an answer, {await _what_it_is(parts, node)}")
        value = answer_of(approved, by, note, _completed(plan, inputs, where) if approved else {}, parts.store.now_ms())
        write = await parts.library.codec.writer(parts.library.encoders.results, *node.key, "result")
        error = None if approved else rejection(by, note)
        fact = Answered(node.key, write(value, f"answer to {step}"), error)
        if not (await parts.committer.commit([fact])).refused:
            return


async def approvals(parts: Parts, run_id: str | None, limit: int) -> list[Approval]:
    """See `Stemflow.approvals`."""
    if run_id is not None:
        return await _of_run(parts, await parts.library.header(expect_id("approvals", run_id)))
    found: list[Approval] = []
    for info in await parts.store.runs(limit):
        if info.root.state not in FINAL:
            found += await _of_run(parts, info.header)
    return found


async def _of_run(parts: Parts, header: Header) -> list[Approval]:
    shape = await parts.library.shape(header.plan)
    if not any(isinstance(node, ApprovalPlan) for node in shape.nodes):
        return []
    found = []
    for node in await parts.store.nodes(header.run):
        plan = (await parts.library.shape(node.plan)).nodes[node.node]
        if isinstance(plan, ApprovalPlan) and node.state == HELD:
            found.append(
                Approval(
                    run_id=header.run,
                    name=header.name,
                    step=node.path,
                    by=plan.by,
                    inputs=plan.form,
                    message=await _message(parts, node, plan), since_ms=node.opened_at_ms,
                    until_ms=node.due_at_ms,
                )
            )
    return found


async def _message(parts: Parts, node: Node, plan: ApprovalPlan) -> str | None:
    """The message with its expressions evaluated; as it is written, if that is not possible here."""
    if plan.message is None:
        return None
    try:
        binder = await parts.decider.binder(node.plan)
        return str(await binder.template(Values(parts.library), node, plan.message))
    except StemflowError:
        return plan.message


async def _waiting(parts: Parts, run_id: str, step: str, where: str) -> tuple[Node, ApprovalPlan]:
    """The record and the plan of an approval. Raises UnknownRun, NotWaiting."""
    root, node = await parts.store.read([(run_id, ""), (run_id, step)])
    if not isinstance(root, Node):
        raise UnknownRun(run_id, parts.store.url)
    if not isinstance(node, Node):
        waiting = await approvals(parts, run_id, 1)
        names = ", ".join(one.step for one in waiting)
        raise NotWaiting(f"{where}: expected a step that waits for an answer; {names or 'none'} of this run does")
    plan = (await parts.library.shape(node.plan)).nodes[node.node]
    if not isinstance(plan, ApprovalPlan):
        raise NotWaiting(f"{where}: expected a step of the kind approval, got another kind")
    return node, plan


async def _is_the_same(parts: Parts, node: Node, approved: bool, by: str) -> bool:
    """Whether the step was answered in this way by the same person, as by a repeated call."""
    if node.error is not None:
        return not approved and node.error.type == "Rejected" and (node.error.data or {}).get("by") == by
    value = await Values(parts.library).value(node)
    return isinstance(value, dict) and value.get("by") == by and value.get("approved") is approved


async def _what_it_is(parts: Parts, node: Node) -> str:
    if node.error is not None:
        return f"it has failed: {node.error.message}"
    value = await Values(parts.library).value(node)
    if not isinstance(value, dict):
        return f"it is {node.state}"
    done = "approved" if value.get("approved") else "rejected"
    return f"it was {done} by {value.get('by') or 'nobody, in time'} at {value.get('at')}"


def _completed(plan: ApprovalPlan, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The inputs of an approval with defaults filled in. Raises InvalidInputs, OptionError."""
    if not plan.form:
        if given:
            raise OptionError(f"{where}: expected no inputs, since the step declares none, got {', '.join(given)}")
        return {}
    # JSON Schema is loaded only for an approval that has a form.
    from stemflow.runtime.values.forms import complete_form  # noqa: PLC0415

    return complete_form(plan.form, given)


def _check_text(where: str, text: Any, most: int) -> None:
    if not isinstance(text, str) or not 1 <= len(text) <= most:
        raise OptionError(f"{where}: expected a text of 1 to {most:,} characters, got {text!r:.80}")
