"""`stemflow show --timeline`: when each step of a run waited and ran, and which steps decided when it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stemflow.cli.table import table
from stemflow.cli.text import clip, short_duration, shown
from stemflow.core.timeline import Span, critical_path, slowest, spans
from stemflow.model.records import Node

_WIDTH = 40
"""Of the bars, in characters."""
_WIDEST_NAME = 36
MOST_ROWS = 60
"""More steps than that are not drawn, but for those on the critical path."""
_SLOWEST = 5


def timeline_lines(nodes: Sequence[Node], now_ms: int) -> Iterator[str]:
    """A bar for each step, `.` while it waited and `=` while it ran, `*` on the critical path; then the slowest."""
    found, path = spans(nodes, now_ms), critical_path(nodes, now_ms)
    critical = {one.path for one in path}
    drawn = found if len(found) <= MOST_ROWS else [one for one in found if one.path in critical][:MOST_ROWS]
    if not drawn:
        return
    start, end = min(one.opened_at_ms for one in found), max(one.ended_at_ms for one in found)
    rows = [
        ("*" if one.path in critical else "", clip(_name(one), _WIDEST_NAME), one.state, _bar(one, start, end),
         f"+{short_duration(one.opened_at_ms - start)}", short_duration(one.took_ms), *_parts(one))
        for one in drawn
    ]  # fmt: skip
    head = ("", "step", "state", f"{short_duration(end - start)}", "from", "took", "waited", "ran")
    yield from table(head, rows, right=frozenset((4, 5, 6, 7)))
    if len(drawn) < len(found):
        yield f"and {len(found) - len(drawn):,} more steps"
    yield f"critical path (*), {short_duration(sum(one.took_ms for one in path))}: {' > '.join(map(_name, path))}"
    named = (f"{_name(one)} {short_duration(one.took_ms)}" for one in slowest(found, _SLOWEST))
    yield f"slowest: {', '.join(named)}"


def timeline_data(nodes: Sequence[Node], now_ms: int) -> dict[str, Any]:
    """The spans of a run as an object."""
    found = spans(nodes, now_ms)
    return {
        "spans": [_data(one) for one in found],
        "critical_path": [one.path for one in critical_path(nodes, now_ms)],
        "slowest": [one.path for one in slowest(found, _SLOWEST)],
    }


def _data(one: Span) -> dict[str, Any]:
    return {
        "path": one.path, "state": one.state, "opened_at_ms": one.opened_at_ms, "started_at_ms": one.started_at_ms,
        "ended_at_ms": one.ended_at_ms,
    }  # fmt: skip


def _name(one: Span) -> str:
    return shown(one.path) or "the task"


def _parts(one: Span) -> tuple[str, str]:
    waited = max(one.started_at_ms - one.opened_at_ms, 0)
    return short_duration(waited), short_duration(one.took_ms - waited)


def _bar(one: Span, start: int, end: int) -> str:
    scale = _WIDTH / max(end - start, 1)
    opened = min(int((one.opened_at_ms - start) * scale), _WIDTH - 1)
    ended = max(int((one.ended_at_ms - start) * scale), opened + 1)
    started = min(max(int((one.started_at_ms - start) * scale), opened), ended - 1)
    return " " * opened + "." * (started - opened) + "=" * (ended - started)
