"""The attempts of a task as lines and as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stemflow.cli.reasons import instant
from stemflow.cli.render import error_text
from stemflow.cli.text import clip, short_duration, shown
from stemflow.core.journal import FIRST, TRACEBACK_CHARS, attempts_of
from stemflow.model.records import FAILED, Attempt, Node

_WIDEST_ERROR = 100
_PACKAGE = Path(__file__).resolve().parent.parent


def attempt_lines(node: Node, now_ms: int) -> list[str]:
    """A line for each attempt in the journal of a task, and the tracebacks that differ from the one before."""
    if not node.journal:
        return []
    found: list[str] = []
    last = ""
    for place, one in enumerate(attempts_of(node)):
        if place == FIRST and node.unlisted:
            found.append(f"{node.unlisted:,} more attempts are not listed")
        found.append(_line(one, now_ms))
        trace = "" if one.error is None else one.error.traceback
        if trace and trace[-TRACEBACK_CHARS:] != last:
            found += [f"  {shown(line)}" for line in own_frames(trace)]
        last = trace[-TRACEBACK_CHARS:] or last
    return found


def _line(one: Attempt, now_ms: int) -> str:
    said = [f"attempt {one.number + 1}", one.outcome, instant(one.started_at_ms or one.ended_at_ms, now_ms)]
    if one.started_at_ms:
        said.append(f"for {short_duration(one.ended_at_ms - one.started_at_ms)}")
    if one.worker:
        said.append(f"on {shown(one.worker)}")
    if one.error is not None:
        said.append(clip(error_text(one.error), _WIDEST_ERROR))
    return "  ".join(said)


def failure_lines(node: Node) -> list[str]:
    """The traceback of a task that failed, where its journal does not show it."""
    if node.state == FAILED and not node.journal and node.error is not None and node.error.traceback:
        return [shown(line) for line in own_frames(node.error.traceback)]
    return []


def attempts_data(node: Node) -> list[dict[str, Any]]:
    """The attempts as objects; `attempt` counts from 1."""
    return [
        {
            "attempt": one.number + 1,
            "outcome": one.outcome,
            "worker": one.worker or None,
            "started_at_ms": one.started_at_ms or None,
            "ended_at_ms": one.ended_at_ms,
            "error": None if one.error is None else {"type": one.error.type, "message": one.error.message},
            "traceback": "" if one.error is None else one.error.traceback,
        }
        for one in attempts_of(node)
    ]


def own_frames(traceback: str) -> list[str]:
    """The lines of a traceback without the frames of stemflow itself, which do not help to find the error."""
    lines, skipped = [], False
    for line in traceback.rstrip().split("\n"):
        if line.startswith('  File "'):
            skipped = line.startswith(f'  File "{_PACKAGE}')
        elif not line.startswith("    "):
            skipped = False
        if not skipped:
            lines.append(line)
    return lines
