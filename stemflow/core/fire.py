"""`fire`: look up the cell of the transition table, run its action, and check the state in which it left the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stemflow.core.table import TABLE, Event
from stemflow.core.work import Work
from stemflow.model.records import Node

Action = Callable[[Work, Node, Any], None]

ACTIONS: dict[str, Action] = {}
"""Name of the action in the table -> function; filled by `core.decide`, which knows every module of actions."""


class TableBroken(AssertionError):
    """An action left a node in a state that its cell does not allow: a bug in the machine."""


def fire(w: Work, node: Node, event: Event, argument: Any) -> bool:
    """Apply `event` to `node`; False if the table has no cell for it, and nothing changed.

    The action gets the working copy of `node`. Raises TableBroken if it leaves the node in a state that the cell does
    not allow."""
    before = node.state
    kind = "scope" if node.tally is not None else w.shape(node.plan).kinds[node.node]
    cell = TABLE.get((kind, before, event))
    if cell is None:
        return False
    node = w.edit(node)
    ACTIONS[cell.action](w, node, argument)
    if node.state not in cell.to and node.key in w.changed:
        raise TableBroken(f"{kind} in {before} x {event}: {cell.action} left it in {node.state}")
    return True
