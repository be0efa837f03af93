"""Small readings of values that several rules share."""

from __future__ import annotations

from stemflow.dsl.rules.view import Step, View
from stemflow.dsl.source import Node
from stemflow.errors import UnitError
from stemflow.units import parse_duration_ms, parse_rate


def duration_ms(node: Node | None) -> int | None:
    """A duration that is written as a value; None where there is none, or it cannot be read (which is reported)."""
    if node is None or isinstance(node.value, bool) or not isinstance(node.value, (str, int, float)):
        return None
    try:
        return parse_duration_ms(node.value)
    except UnitError:
        return None


def hard_timeout(node: Node) -> tuple[Node, int] | None:
    """The hard limit of a step, or the limit of a composite or the file, in ms."""
    timeout = node.get("timeout")
    if timeout is not None and isinstance(timeout.value, dict):
        timeout = timeout.get("hard")
    limit = duration_ms(timeout)
    return None if timeout is None or limit is None else (timeout, limit)


def task_defaults(view: View) -> Node | None:
    """The mapping `defaults.task`."""
    defaults = view.root.get("defaults")
    found = None if defaults is None else defaults.get("task")
    return found if found is not None and isinstance(found.value, dict) else None


def per_second(node: Node | None) -> float | None:
    """A literal rate limit, in tasks a second; of several, the lowest."""
    if node is None:
        return None
    if node.items:
        found = [one for one in map(per_second, node.items) if one is not None]
        return min(found) if found else None
    rate = node.get("rate") if isinstance(node.value, dict) else node
    try:
        if rate is not None:
            limit, per_ms = parse_rate(rate.value)
            return limit * 1000 / per_ms
    except UnitError:
        return None
    limit_node, per = node.get("limit"), duration_ms(node.get("per"))
    if limit_node is None or not per or not isinstance(limit_node.value, int):
        return None
    return limit_node.value * 1000 / per


def kind_label(step: Step) -> str:
    """A step as messages name it."""
    return f"`{step.path}`" if step.path else "the workflow"
