"""Commands with which operators stop and start work, and see by whom that was done."""

from __future__ import annotations

from typing import Any

import click

from stemflow.cli.grammar.options import OrderedGroup, command, keys, rate, store
from stemflow.cli.grammar.types import DURATION, Positive


def said() -> list[click.Parameter]:
    """By whom something is done, and why."""
    return [
        click.Option(["--by"], default="", metavar="NAME", help="The name of the operator (default: the user)."),
        click.Option(["--reason"], default="", metavar="TEXT", help="Why; shown by `why`, `queues` and `audit`."),
    ]


def waiting() -> list[click.Parameter]:
    """How long to wait for workers."""
    return [
        click.Option(["--no-wait"], is_flag=True, help="Do not wait until every worker has applied it."),
        click.Option(["--timeout"], type=DURATION, default=10_000, metavar="TIME", help="The longest wait (10s)."),
    ]


def _action(name: str, summary: str, *params: click.Parameter, existing: bool = False) -> click.Command:
    more: dict[str, Any] = {"action": name}
    return command(name, summary, *params, keys(), *store(), module="control", existing=existing, **more)


PAUSE = _action(
    "pause", "start nothing of queues, workflows or tasks until they are resumed; list pauses",
    click.Argument(
        ["targets"], metavar="[TARGET]...", nargs=-1, help="queue:NAME, workflow:NAME or task:NAME; none: list pauses."
    ),
    click.Option(["--for", "for_ms"], type=DURATION, metavar="TIME", help="Resume by itself after this time."),
    *said(), *waiting(),
)  # fmt: skip
AUDIT = _action(
    "audit", "list what operators did in the last 30 days, the newest first",
    click.Option(["--limit"], type=Positive(), default=50, metavar="N", help="List at most this many (50)."),
    existing=True,
)  # fmt: skip


def _bulk(name: str, summary: str, *params: click.Parameter) -> click.Command:
    more: dict[str, Any] = {"action": name}
    return command(name, summary, *params, keys(), *store(), module="bulk", existing=True, **more)


BULK = OrderedGroup(
    "bulk",
    commands=[
        _bulk("list", "list the bulk actions of the last 30 days, the newest first"),
        _bulk(
            "resume", "go on with a bulk action that was interrupted",
            click.Argument(["bulk"], metavar="ID", help="Its id, or the beginning of it."), rate(), *said(),
        ),
    ],
    help="List and continue cancels, reruns, replays and purges of many.",
    short_help="list and continue cancels, reruns, replays and purges of many",
)  # fmt: skip
METRICS = command(
    "metrics", "print the metrics of a store, or serve them for Prometheus",
    click.Option(["--port"], type=click.IntRange(0, 65_535), metavar="PORT", help="Serve them until a signal."),
    click.Option(["--bind"], default="127.0.0.1", metavar="HOST", help="The address to listen on (127.0.0.1)."),
    keys(), store()[0], existing=True,
)  # fmt: skip
