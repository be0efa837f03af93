"""The schedules of a file, under `on.schedule`."""

from __future__ import annotations

from typing import Any

from stemflow.dsl.expressions import TICK, Expressions
from stemflow.dsl.source import Node
from stemflow.schedule import ScheduleError, spec_of


def read_schedules(node: Node | None, expressions: Expressions) -> dict[str, Any]:
    """Name of a schedule -> what the file says of it. Reports schedules that cannot be."""
    schedules = None if node is None else node.get("schedule")
    found: dict[str, Any] = {}
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


def _check(name: str, schedule: Node, schedules: Node, expressions: Expressions) -> None:
    try:
        spec_of(schedule.value)
    except ScheduleError as error:
        inner = schedule
        for part in error.key.replace("[", ".").replace("]", "").split(".") if error.key else ():
            inner = inner.items[int(part)] if part.isdecimal() and inner.items else inner.members.get(part, inner)
        place = schedules.keys[name] if inner is schedule else inner.place
        expressions.findings.error("SF530", f"on.schedule.{name}: {error}", place)
