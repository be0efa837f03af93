"""What becomes of a run in whose records something was found that nobody with a key has written, or that is damaged.

This is no cell of the table: the table says what happens to records that are true, and this one says nothing that may
be built upon, neither its state nor its place among its siblings. So it ends, its run ends, and nobody else is told.
"""

from __future__ import annotations

from collections import deque

from stemflow.core.ending import finish, letter_of
from stemflow.core.work import Tick, Work
from stemflow.model.effects import DEAD_LETTER_MS
from stemflow.model.facts import Damaged, Distrusted
from stemflow.model.records import FAILED, FINAL, ErrorInfo, Node


def condemn(w: Work, fact: Distrusted | Damaged) -> bool:
    """FAILED without a retry, and the run with it: what else is ready or comes to be ready there starts no more."""
    node = w.node(fact.key)
    if node is None or node.state in FINAL or fact.token not in (None, node.delivery):
        return False
    type_, reason = ("Damaged", "damaged") if isinstance(fact, Damaged) else ("SignatureInvalid", "signature-invalid")
    error = ErrorInfo(type_, fact.why, f"stemflow.{type_}")
    root = w.node((fact.key[0], ""))
    running = root is not None and root.state not in FINAL
    _end(w, node, error, fact.key[1])
    if running:
        w.dead.append(letter_of(w.view.shapes.get(node.plan), node, reason, w.now_ms, error))
        if root is not None and root is not node:
            _end(w, root, error, fact.key[1])
    return True


def _end(w: Work, node: Node, error: ErrorInfo, failed_at: str) -> None:
    node = w.edit(node)
    node.error, node.failed_at, node.result, node.alias = error, failed_at, None, None
    finish(w, node, FAILED, kept_ms=DEAD_LETTER_MS)
    w.pending = deque(news for news in w.pending if not isinstance(news, Tick))
