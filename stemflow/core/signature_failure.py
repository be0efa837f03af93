"""What happens to a run with a record that has an invalid signature or is damaged.

This is not a cell of the transition table: the table is about genuine records, while of this one neither the state nor
the index can be trusted. So the node ends, its run ends, and no other node is notified.
"""

from __future__ import annotations

from msgspec import structs

from stemflow.core.ending import finish, letter_of
from stemflow.core.work import Work
from stemflow.model.effects import DEAD_LETTER_MS, RunEnd
from stemflow.model.facts import Damaged, Distrusted
from stemflow.model.records import FAILED, FINAL, ErrorInfo, Node


def fail_run(w: Work, fact: Distrusted | Damaged) -> bool:
    """Fail the node without a retry, and its run with it. Nothing else of the run starts."""
    node = w.node(fact.key)
    if node is None or node.state in FINAL or fact.token not in (None, node.delivery):
        return False
    type_, reason = ("Damaged", "damaged") if isinstance(fact, Damaged) else ("SignatureInvalid", "signature-invalid")
    error = ErrorInfo(type_, fact.why, f"stemflow.{type_}")
    root = w.node((fact.key[0], ""))
    ended = root is not None and root.state in FINAL
    _end(w, node, error, fact.key[1])
    if ended:
        return True
    letter = letter_of(w.view.shapes.get(node.plan), node, reason, w.now_ms, error)
    if root is None:
        # One letter for the run, however many of its nodes are found without their root.
        letter = structs.replace(letter, path="")
        w.ended.append(RunEnd(fact.key[0], DEAD_LETTER_MS))
    elif root is not node:
        _end(w, root, error, fact.key[1])
    w.dead.append(letter)
    return True


def _end(w: Work, node: Node, error: ErrorInfo, failed_at: str) -> None:
    node = w.edit(node)
    node.error, node.failed_at, node.result, node.alias = error, failed_at, None, None
    finish(w, node, FAILED, kept_ms=DEAD_LETTER_MS)
    w.drop_member_ends()
