"""Reruns: a new run of the same plan that keeps results of an ended one."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from stemflow.core.kinds import rules_of
from stemflow.core.shape import Shape
from stemflow.errors import OptionError
from stemflow.model.facts import Requested
from stemflow.model.plan import ScopePlan
from stemflow.model.records import FINAL, Header, Key, Node, child_path
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.run_ids import colocated_run_id, expect_id
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.runs.handle import RunHandle, UnknownRun
from stemflow.runtime.tasks.submission import Prepared
from stemflow.runtime.values.resolver import Values
from stemflow.runtime.values.value_codec import value_location


async def rerun(
    parts: Parts, submitter: Submitter, run_id: str, *, failed: bool, from_step: str | None, new_id: str | None = None
) -> RunHandle[Any]:
    """See `Stemflow.rerun`. `new_id`: the id of the new run, in the partition of the old one."""
    if failed == (from_step is not None):
        raise OptionError("rerun: expected either failed or from_step")
    (root,) = await parts.store.read([(expect_id("rerun", run_id), "")])
    if not isinstance(root, Node):
        raise UnknownRun(run_id, parts.store.url)
    if root.state not in FINAL:
        raise OptionError(f"rerun: expected run {run_id} to have ended, it is {root.state}; cancel it first")
    redo: tuple[str, ...] = ()
    if from_step is not None:
        old = await parts.library.header(run_id)
        redo = redo_paths(await parts.library.shape(old.plan), from_step)
    letters = tuple(letter.key for letter in await parts.store.dead_letters(run_id))
    new_id = new_id or colocated_run_id(parts.ids, parts.store, run_id)
    return await repeat(parts, submitter, root, new_id, letters, redo=redo)


async def repeat(
    parts: Parts,
    submitter: Submitter,
    root: Node,
    run: str,
    letters: tuple[Key, ...],
    *,
    redo: tuple[str, ...] = (),
    delay_ms: int = 0,
) -> RunHandle[Any]:
    """Submit `run` in place of the ended run of `root`, whose dead `letters` are removed in the same commit.

    `redo`: paths whose results are not kept; empty: of all that did not succeed. `delay_ms`: no task starts before.
    Raises DuplicateRun while a run that has not ended holds its unique key, SignatureInvalid, UnknownKey.
    """
    old = await parts.library.header(root.run)
    shape = await parts.library.shape(old.plan)
    claim = None if old.claim is None else structs.replace(old.claim, mode="take")
    now_ms = parts.store.now_ms()
    header = structs.replace(
        old,
        run=run,
        inputs=await _inputs_of(parts, root, old),
        created_at_ms=now_ms,
        base=0,
        not_before_ms=now_ms + delay_ms if delay_ms else 0,
        rerun_of=old.run,
        origin=old.origin or old.run,
        redo=redo,
        claim=claim,
        reply_to=parts.store.address,
        seal=None,
    )
    items = tuple([await parts.library.items.copied((old.run, path), (run, path)) for path in stored_maps(shape)])
    parts.library.headers[run] = header
    parts.library.items.staged.update((some.key, some.pages) for some in items)
    return await submitter.store(Prepared(header, shape.plan, items), Requested(header, letters))


async def _inputs_of(parts: Parts, root: Node, header: Header) -> bytes:
    """The inputs of a run, encoded for its rerun; a later submission that was debounced may have replaced them."""
    if root.inputs is None:
        return header.inputs
    if root.error is not None and root.error.type == "SignatureInvalid":
        raise OptionError(
            f"run {root.run}: expected inputs that somebody with a key has written, but they came from a later "
            "submission into a record that was altered; submit it again"
        )
    inputs = await Values(parts.library).inputs(header, root)
    encoders = parts.library.encoders
    write = encoders.writer(encoders.args, value_location(header.origin or header.run, "", "inputs"))
    return write(inputs, "inputs")


def stored_maps(shape: Shape) -> list[str]:
    """The paths of the maps whose items were stored at submission."""
    found, todo = [], [("", 0)]
    while todo:
        path, place = todo.pop()
        plan = shape.nodes[place]
        if isinstance(plan, ScopePlan) and isinstance(plan.items, int):
            found.append(path)
        elif isinstance(plan, ScopePlan) and not (rules := rules_of(plan)).repeats:
            todo += [(child_path(path, rules.segment(plan, i)), member) for i, member in enumerate(plan.members)]
    return found


def redo_paths(shape: Shape, step: str) -> tuple[str, ...]:
    """The paths of `step` (a member of the root) and of every step that depends on it; raises OptionError."""
    root = shape.nodes[0]
    names = []
    if isinstance(root, ScopePlan):
        names = [rules_of(root).segment(root, i) for i in range(len(root.members))]
    if step not in names or not isinstance(root, ScopePlan):
        raise OptionError(f"rerun: --from: there is no step {step!r}; steps are {', '.join(names) or 'none'}")
    again = rules_of(root).redone(shape, 0, names.index(step))
    return tuple(names[i] for i in sorted(again))
