"""The journal of attempts, as it is kept in a record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stemflow.core import journal
from stemflow.model.facts import Ended, Failed, HandedBack
from stemflow.model.records import RUNNING, ErrorInfo, Node


def test_a_task_that_workers_return_in_turn_keeps_its_failures() -> None:
    work: Any = SimpleNamespace(now_ms=0)
    node = Node(run="r", path="a", plan="p", node=1, state=RUNNING)
    for node.attempt in range(6):
        failed = Failed(ErrorInfo("E", str(node.attempt), "E"), "again")
        journal.note_end(work, node, Ended(node.key, 1, failed, 1, "w1"))
        node.error = failed.error
    for turn in range(40):
        work.now_ms += 1_000
        journal.note_end(work, node, Ended(node.key, 1, HandedBack(1_000), work.now_ms, f"w{turn % 2}"))
    assert [one.outcome for one in node.journal] == ["failed"] * 6 + ["handed-back"]
    assert (node.journal[-1].worker, node.unlisted) == ("w1", 0)
