"""SF53: schedules whose ticks are not those that were meant, and inputs that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from stemflow.dsl.findings import did_you_mean
from stemflow.dsl.inputs import is_secret, misplaced_secret
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.view import View
from stemflow.dsl.source import Node
from stemflow.schedule import ScheduleError, ScheduleSpec, spec_of, ticks
from stemflow.schedule.changes import ClockChange, clock_changes

FIRST_MS = 1_767_225_600_000
"""2026-01-01: findings are the same whenever a file is checked."""
LAST_MS = FIRST_MS + 730 * 86_400_000
LOOKED_AT = 1_000
"""Ticks after which a schedule counts as one that is never reached."""


def _schedules(view: View) -> Iterator[tuple[str, Node, ScheduleSpec]]:
    on = view.root.get("on")
    schedules = None if on is None else on.get("schedule")
    for name, node in ({} if schedules is None else schedules.members).items():
        if node.is_sound() and isinstance(node.value, dict):
            try:
                yield name, node, spec_of(node.value)
            except ScheduleError:
                continue


def _started(view: View) -> Iterator[tuple[str, Node]]:
    """What gives runs their inputs: schedules, and the event."""
    yield from ((f"on.schedule.{name}", node) for name, node, _ in _schedules(view))
    on = view.root.get("on")
    event = None if on is None else on.get("event")
    if event is not None and event.is_sound():
        yield "on.event", event


@rule("SF531", "warning")
def times_that_clock_changes_touch(view: View) -> Iterator[Found]:
    """A fixed time that does not exist, or occurs twice, on a day of the year."""
    for name, node, spec in _schedules(view):
        cron = node.get("cron")
        if cron is None or node.get("dst") is not None:
            continue
        seen: set[str] = set()
        for change in clock_changes(spec, FIRST_MS, LAST_MS):
            if change.kind not in seen:
                seen.add(change.kind)
                hint = "choose another hour, or write dst: {gap: ..., fold: ...} to say what is meant"
                yield Found(f"on.schedule.{name}: {_described(change, spec)}", cron.place, hint)


def _described(change: ClockChange, spec: ScheduleSpec) -> str:
    if change.kind == "gap":
        return (
            f"{change.local[11:]} does not exist in {spec.timezone} when clocks go forward, as on {change.local[:10]}; "
            "the run of that day starts at the first instant after the gap"
        )
    return (
        f"{change.local[11:]} occurs twice in {spec.timezone} when clocks go back, as on {change.local[:10]}; the run "
        "of that day starts the first time"
    )


@rule("SF532", "warning")
def times_without_a_zone(view: View) -> Iterator[Found]:
    """A time of the day for which the file names no zone."""
    for name, node, spec in _schedules(view):
        cron = node.get("cron")
        if cron is None or spec.cron is None or node.get("timezone") is not None:
            continue
        minute, hour, *_ = spec.cron.split()
        if not hour.startswith("*") and not minute.startswith("*"):
            yield Found(f"on.schedule.{name}: this time of the day is in UTC", cron.place,
                        "write timezone: Europe/Berlin, or timezone: UTC if that is meant")  # fmt: skip


@rule("SF533")
def inputs_of_schedules(view: View) -> Iterator[Found]:
    """Inputs that the workflow does not have, and those that it needs and does not get."""
    for name, node in _started(view):
        inputs = node.get("inputs")
        given = {} if inputs is None else inputs.keys
        for key, place in given.items():
            if key not in view.inputs:
                yield Found(f"{name}.inputs: there is no input `{key}`", place,
                            did_you_mean(key, view.inputs, "inputs"))  # fmt: skip
            value = None if inputs is None or not is_secret(view.inputs.get(key)) else inputs.get(key)
            wrong = None if value is None else misplaced_secret(value.value, f"{name}.inputs.{key}")
            if value is not None and wrong is not None:
                yield Found(wrong, value.place)
        for key, schema in view.inputs.items():
            if key not in given and isinstance(schema, dict) and "default" not in schema:
                place = node.place if inputs is None else node.key_place("inputs")
                yield Found(f"{name}: input `{key}` has no default and is not given", place,
                            f"write inputs: {{{key}: ...}} there, or give the input a default")  # fmt: skip


@rule("SF534", "warning")
def ticks_that_are_all_excluded(view: View) -> Iterator[Found]:
    """`exclude` leaves no tick."""
    for name, node, spec in _schedules(view):
        exclude = node.get("exclude")
        if exclude is None or not spec.exclude:
            continue
        if all(tick.excluded for tick in islice(ticks(spec, FIRST_MS), LOOKED_AT)):
            yield Found(f"on.schedule.{name}: every tick is excluded", exclude.place, "take out what covers all days")
