"""The walk over a tree of signatures knows every field that holds one."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from msgspec import structs

from stemflow.canvas import Canvas
from stemflow.model.signature import AnySig, Signature, TaskSig
from stemflow.model.tree import changed, everything, first_task, members_of, walk

KINDS = [typing.get_origin(kind) or kind for kind in typing.get_args(AnySig)]


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_each_signature_declares_the_fields_that_hold_signatures(kind: type[Any]) -> None:
    holding = {
        field.name
        for field in structs.fields(kind)
        if any(word in str(kind.__annotations__.get(field.name, "")) for word in ("Child", "Sig["))
    }
    inherited = {"success_hooks", "failure_hooks", "cancel_hooks", "catches", "cleanup", "compensate"}
    assert holding | inherited == {*kind.MEMBERS, *kind.OTHERS}


def test_a_walk_names_each_member_by_its_path_and_leaves_hooks_out() -> None:
    body = Canvas.chain(Canvas.map(Canvas.task("each"), [1]), Canvas.task("last").named("end"))
    tree = Canvas.chord([Canvas.task("a").on_failure(Canvas.task("hook")), body], Canvas.task("body"))
    assert [path for path, _ in walk(tree)] == ["", "[0]", "[1]", "[1][0]", "[1][0][*]", "[1].end", "then"]
    assert [segment for segment, _ in members_of(tree)] == ["[0]", "[1]", "then"]


def test_everything_holds_hooks_and_compensations_too() -> None:
    task: TaskSig[Any, Any] = structs.replace(TaskSig(task="pay"), compensate=TaskSig(task="refund"))
    tree = Canvas.group(task.on_success(Canvas.task("note")))
    assert [one.task for one in everything(tree) if isinstance(one, TaskSig)] == ["pay", "note", "refund"]


def test_a_change_reaches_what_a_signature_holds_and_keeps_what_stays_the_same() -> None:
    def renamed(sig: Signature[Any, Any]) -> Signature[Any, Any]:
        return structs.replace(sig, task="new") if isinstance(sig, TaskSig) and sig.task == "old" else sig

    tree = Canvas.chain(Canvas.task("old"), Canvas.task("kept"))
    after = changed(tree, renamed)
    first = first_task(after)
    assert first is not None and first.task == "new" and after.steps[1] is tree.steps[1]
    assert changed(after, renamed) is after
