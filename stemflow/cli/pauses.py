"""Pauses as text and as data, and the name of the operator."""

from __future__ import annotations

import getpass
from typing import Any

from stemflow.cli.reasons import instant
from stemflow.cli.text import short_duration, shown
from stemflow.model.pause import Pause


def user() -> str:
    """The name of the operator, as the system knows it; empty where it does not."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def pause_text(pause: Pause, now_ms: int) -> str:
    """`by ops for 4m12s, until 03:30:00 UTC: psp incident`, as far as it is known."""
    by = f"by {shown(pause.by)} " if pause.by else ""
    until = "" if pause.until_ms is None else f", until {instant(pause.until_ms, now_ms)}"
    reason = f": {shown(pause.reason)}" if pause.reason else ""
    return f"{by}for {short_duration(now_ms - pause.at_ms)}{until}{reason}"


def pause_data(pause: Pause) -> dict[str, Any]:
    return {
        "target": pause.target, "at_ms": pause.at_ms, "until_ms": pause.until_ms, "by": pause.by,
        "reason": pause.reason,
    }  # fmt: skip
