"""The filters by which `runs`, `cancel` and `rerun` choose runs."""

from __future__ import annotations

from datetime import datetime

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import Refused
from stemflow.cli.text import shown
from stemflow.runtime.client.run_list import Field, RunQuery
from stemflow.units import parse_duration_ms


def run_query(arguments: Arguments, now_ms: int) -> RunQuery:
    """The query that the filters of a command make, at the store's time `now_ms`. Raises Refused."""
    since = arguments.since
    if isinstance(since, datetime):
        since_ms = int(since.timestamp() * 1_000)
    else:
        since_ms = 0 if since is None else now_ms - parse_duration_ms(since)
    return RunQuery(
        states=frozenset(arguments.state),
        name=arguments.name,
        since_ms=since_ms,
        labels=dict(_label(text) for text in arguments.label),
        tasks=tuple(arguments.task),
        excluded=tuple(_term(text) for text in arguments.excluded),
        internal=getattr(arguments, "internal", False),
    )


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Refused(f"--label: expected NAME=VALUE, got {shown(text)!r}")
    return name, value


def _term(text: str) -> tuple[Field, str]:
    field, colon, value = text.partition(":")
    match field if colon else "":
        case "name":
            return "name", value
        case "state":
            return "state", value
        case "task":
            return "task", value
        case "label":
            return "label", "=".join(_label(value))
        case _:
            raise Refused(
                f"--not: expected name:NAME, state:STATE, task:TASK or label:NAME=VALUE, got {shown(text)!r}"
            )
