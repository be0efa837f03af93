"""Reasons as text: the code, what it says, since when, until when, and the command that helps."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.follow import command
from stemflow.cli.text import short_duration, shown
from stemflow.core.reasons import Explanation, Reason

_WIDEST = 17
"""Of a code."""


def reason_lines(reason: Reason, now_ms: int, arguments: Arguments) -> list[str]:
    """One reason: a line, and one for the command that helps."""
    text = f"{reason.code:<{_WIDEST}}  {shown(reason.text)}{times(reason, now_ms)}"
    if reason.advice is None:
        return [text]
    return [text, f"{'':<{_WIDEST}}  {command(arguments, *shlex.split(reason.advice)[1:])}"]


def times(reason: Reason, now_ms: int) -> str:
    """`; for 4m12s, until 03:30:00 UTC (in 17m00s)`, as far as it is known."""
    said = []
    if reason.since_ms is not None:
        said.append(f"for {short_duration(now_ms - reason.since_ms)}")
    if reason.until_ms is not None:
        what = "lease until" if reason.code in ("running", "stopping") else "until"
        said.append(f"{what} {instant(reason.until_ms, now_ms)} ({_from_now(reason.until_ms - now_ms)})")
    return f"; {', '.join(said)}" if said else ""


def _from_now(ms: int) -> str:
    return f"in {short_duration(ms)}" if ms > 0 else f"{short_duration(-ms)} ago"


def instant(at_ms: int, now_ms: int) -> str:
    """`03:30:00 UTC`, with the date where it is another day than today."""
    at, now = (datetime.fromtimestamp(ms / 1_000, UTC) for ms in (at_ms, now_ms))
    return at.strftime("%H:%M:%S UTC" if at.date() == now.date() else "%Y-%m-%d %H:%M:%S UTC")


def reason_data(reason: Reason) -> dict[str, Any]:
    return {
        "code": reason.code, "text": reason.text, "since_ms": reason.since_ms, "until_ms": reason.until_ms,
        "holder": reason.holder, "worker": reason.worker, "place": reason.place, "advice": reason.advice,
    }  # fmt: skip


def explanation_data(one: Explanation) -> dict[str, Any]:
    return {
        "path": one.path, "state": one.state, "task": one.task, "members": one.members,
        "reasons": [reason_data(reason) for reason in one.reasons],
    }  # fmt: skip
