"""Schedules: when a workflow is due. Pure: the instants depend on the specification and the time zones alone."""

from stemflow.schedule.spec import ScheduleError, ScheduleSpec, spec_of
from stemflow.schedule.ticks import Tick, due_ms, next_tick, ticks, ticks_between

__all__ = ["ScheduleError", "ScheduleSpec", "Tick", "due_ms", "next_tick", "spec_of", "ticks", "ticks_between"]
