"""The metrics of a store: which there are, and their values as data."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

BUCKETS_MS: Final = (
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
)  # fmt: skip
"""Upper bounds of the buckets of every histogram; a last one has no bound."""


class Family(Struct, frozen=True):
    """A metric, without the `stemflow_` of its name."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


FAMILIES: Final = (
    Family("runs_started_total", "counter", ("workflow",), "Runs that were submitted."),
    Family("runs_ended_total", "counter", ("workflow", "state"), "Runs that have ended."),
    Family("task_attempts_total", "counter", ("task", "outcome"), "Attempts that were reported."),
    Family("tasks_ended_total", "counter", ("task", "state"), "Tasks that have ended, if they had begun to wait."),
    Family("task_retries_total", "counter", ("task", "error_type"), "Failed attempts that another one follows."),
    Family("task_losses_total", "counter", ("task",), "Leases that were lost, as by the death of a worker."),
    Family("dead_letters_total", "counter", ("task", "reason"), "Tasks that failed for good."),
    Family("task_duration_seconds", "histogram", ("task",), "From the start of a handler to its report."),
    Family("task_wait_seconds", "histogram", ("queue",), "From when a task could start to its lease."),
    Family("queue_ready", "gauge", ("queue",), "Tasks that may be leased."),
    Family("queue_oldest_ready_seconds", "gauge", ("queue",), "For how long the oldest of them could have started."),
    Family("queue_limited", "gauge", ("queue",), "How many of them wait for a rate limit."),
    Family("queue_delayed", "gauge", ("queue",), "Tasks that start later."),
    Family("queue_running", "gauge", ("queue",), "Tasks that are leased; at most 10,000 in all queues are counted."),
    Family("queue_paused", "gauge", ("queue",), "1 if an operator has paused it."),
    Family("queue_workers", "gauge", ("queue",), "Live workers that serve it."),
    Family("runs_kept", "gauge", (), "Runs in the store, ended or not."),
    Family("dead_letters_kept", "gauge", (), "Dead letters in the store."),
    Family("leases_late", "gauge", (), "Leases that have expired and that no worker has taken over."),
    Family("timer_overdue_seconds", "gauge", (), "How late the most overdue timer is."),
    Family("workers", "gauge", ("state",), "Workers by state: running, on_hold, stopping, silent."),
    Family("worker_slots", "gauge", (), "Slots of live workers."),
    Family("worker_slots_used", "gauge", (), "How many of them are taken, as the last heartbeats say."),
    Family("pauses", "gauge", ("kind",), "What operators have paused."),
    Family("schedules_overdue", "gauge", (), "Schedules whose next tick is late by more than a minute."),
    Family("schedule_next_timestamp_seconds", "gauge", ("schedule",), "When the next tick is due, in Unix time."),
    Family("build_info", "gauge", ("version",), "1; the version of the process that answers."),
)  # fmt: skip
"""In the order in which they are printed. Counters and histograms are summed over all processes that there were."""

Series = tuple[str, tuple[str, ...]]
"""The name of a family and the values of its labels."""


class Counts(Struct, array_like=True):
    """Values of counters and histograms. A histogram has the number in each bucket, and their sum in milliseconds."""

    counters: dict[Series, int] = {}
    histograms: dict[Series, tuple[list[int], int]] = {}

    def add(self, name: str, labels: tuple[str, ...], count: int = 1) -> None:
        """Count something."""
        series = (name, labels)
        self.counters[series] = self.counters.get(series, 0) + count

    def include(self, other: Counts, sign: int = 1) -> None:
        """Add all values of `other`; subtract them with `sign` -1."""
        for series, count in other.counters.items():
            self.counters[series] = self.counters.get(series, 0) + sign * count
        for series, (buckets, sum_ms) in other.histograms.items():
            mine, mine_ms = self.histograms.get(series) or ([0] * len(buckets), 0)
            added = [one + sign * more for one, more in zip(mine, buckets, strict=True)]
            self.histograms[series] = (added, mine_ms + sign * sum_ms)
