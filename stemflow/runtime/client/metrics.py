"""The metrics of a store in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from stemflow.model.metrics import BUCKETS_MS, FAMILIES, Counts, Family
from stemflow.runtime.catalog.controls import read_controls
from stemflow.runtime.catalog.heartbeats import heartbeats
from stemflow.runtime.client.overview import queues
from stemflow.runtime.client.stored_counts import total_counts
from stemflow.runtime.payloads.signing import Trust
from stemflow.store.base import Store
from stemflow.version import __version__

PREFIX: Final = "stemflow_"
TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `exposition`."""
STATES: Final = ("running", "on_hold", "stopping", "silent")

Gauges = dict[str, dict[tuple[str, ...], float]]
"""By family, the values by labels."""


async def exposition(
    store: Store, trust: Trust, schedules: Mapping[str, tuple[int | None, bool]] | None = None
) -> str:
    """Every family with its values. `schedules`: by name the next tick in epoch ms, and whether it is overdue.

    Raises StoreError.
    """
    counts = await total_counts(store)
    gauges = await _gauges(store, trust, schedules or {})
    return "".join(f"{line}\n" for family in FAMILIES for line in _lines(family, counts, gauges))


async def _gauges(store: Store, trust: Trust, schedules: Mapping[str, tuple[int | None, bool]]) -> Gauges:
    found: Gauges = {}
    inventory, controls, now_ms = await store.inventory(), await read_controls(store, trust), store.now_ms()
    for one in await queues(store, trust):
        label = (one.queue,)
        oldest_ms = 0 if one.oldest_since_ms is None else max(0, now_ms - one.oldest_since_ms)
        for name, value in (
            ("ready", one.ready), ("oldest_ready_seconds", oldest_ms / 1_000), ("limited", one.limited),
            ("delayed", one.delayed), ("running", one.running), ("paused", int(one.paused is not None)),
            ("workers", len(one.workers)),
        ):  # fmt: skip
            found.setdefault(f"queue_{name}", {})[label] = value
    overdue_ms = 0 if inventory.overdue_since_ms is None else max(0, now_ms - inventory.overdue_since_ms)
    kinds = Counter(one.kind for one in controls.pauses if one.lasts(now_ms))
    found["runs_kept"] = {(): inventory.runs}
    found["dead_letters_kept"] = {(): inventory.letters}
    found["leases_late"] = {(): inventory.late}
    found["timer_overdue_seconds"] = {(): overdue_ms / 1_000}
    found["pauses"] = {(kind,): kinds[kind] for kind in ("queue", "task", "workflow")}
    found["schedules_overdue"] = {(): sum(overdue for _, overdue in schedules.values())}
    found["schedule_next_timestamp_seconds"] = {
        (name,): at_ms / 1_000 for name, (at_ms, _) in schedules.items() if at_ms is not None
    }
    found["build_info"] = {(__version__,): 1}
    return found | await _workers(store, now_ms)


async def _workers(store: Store, now_ms: int) -> Gauges:
    beats = [one for one in (await heartbeats(store)).values() if one.state != "stopped"]
    alive = [one for one in beats if one.alive(now_ms)]
    states = Counter("on_hold" if one.on_hold and one.state == "running" else one.state for one in alive)
    states["silent"] = len(beats) - len(alive)
    return {
        "workers": {(state,): states[state] for state in STATES},
        "worker_slots": {(): sum(one.concurrency for one in alive)},
        "worker_slots_used": {(): sum(one.concurrency - one.free for one in alive)},
    }


def _lines(family: Family, counts: Counts, gauges: Gauges) -> Iterator[str]:
    name = PREFIX + family.name
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    match family.kind:
        case "gauge":
            for labels, value in sorted(gauges.get(family.name, {}).items()):
                yield f"{name}{_labels(family, labels)} {_number(value)}"
        case "counter":
            for (of, labels), count in sorted(counts.counters.items()):
                if of == family.name:
                    yield f"{name}{_labels(family, labels)} {count}"
        case "histogram":
            for (of, labels), (buckets, sum_ms) in sorted(counts.histograms.items()):
                if of == family.name:
                    yield from _histogram(family, name, labels, buckets, sum_ms)


def _histogram(family: Family, name: str, labels: tuple[str, ...], buckets: list[int], sum_ms: int) -> Iterator[str]:
    total = 0
    bounds = [_number(ms / 1_000) for ms in BUCKETS_MS] + ["+Inf"]
    for bound, count in zip(bounds, buckets, strict=True):
        total += count
        yield f"{name}_bucket{_labels(family, labels, le=bound)} {total}"
    yield f"{name}_sum{_labels(family, labels)} {_number(sum_ms / 1_000)}"
    yield f"{name}_count{_labels(family, labels)} {total}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(family: Family, values: tuple[str, ...], **more: str) -> str:
    pairs = [*zip(family.labels, values, strict=True), *more.items()]
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
