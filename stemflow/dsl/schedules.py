"""The schedules of a file, under `on.schedule`."""

from __future__ import annotations

from typing import Any

from stemflow.dsl.expressions import EVENT, TICK, Expressions
from stemflow.dsl.source import Node
from stemflow.schedule import ScheduleError, spec_of


def read_schedules(node: Node | None, workflow: str, expressions: Expressions) -> dict[str, Any]:
    """Name of a schedule -> what the file says of it. Reports schedules that cannot be.

    What events start is a schedule, too; its name is that of the workflow with `.event`.
    """
    schedules = None if node is None else node.get("schedule")
    found = _of_event(None if node is None else node.get("event"), workflow, expressions)
    if schedules is None or not isinstance(schedules.value, dict):
        return found
    for name, schedule in schedules.members.items():
        if not isinstance(schedule.value, dict):
            continue
        inputs = schedule.get("inputs")
        expressions.template(inputs, TICK, "")
        if schedule.is_sound():
            _check(name, schedule, schedules, expressions)
        found[name] = schedule.value
    return found


def _of_event(node: Node | None, workflow: str, expressions: Expressions) -> dict[str, Any]:
    if node is None or not isinstance(node.value, dict):
        return {}
    expressions.condition(node.get("match"), EVENT, "")
    expressions.template(node.get("inputs"), EVENT, "")
    if not node.is_sound():
        return {}
    given = {("event" if key == "type" else key): value for key, value in node.value.items()}
    return {f"{workflow[:90]}.event": given}


def _check(name: str, schedule: Node, schedules: Node, expressions: Expressions) -> None:
    try:
        spec_of(schedule.value)
    except ScheduleError as error:
        inner = schedule
        for part in error.key.replace("[", ".").replace("]", "").split(".") if error.key else ():
            inner = inner.items[int(part)] if part.isdecimal() and inner.items else inner.members.get(part, inner)
        place = schedules.keys[name] if inner is schedule else inner.place
        expressions.findings.error("SF530", f"on.schedule.{name}: {error}", place)
