"""`stemflow dlq` and its actions."""

from __future__ import annotations

from typing import Any

import click

from stemflow.cli.grammar.options import OrderedGroup, command, keys, rate, store, tasks
from stemflow.cli.grammar.types import DURATION, Positive, RunId, Since

REASONS = (
    "max-retries-exhausted", "unregistered-task", "signature-invalid", "unknown-encoder", "bad-arguments", "poison",
    "damaged", "lost", "expired",
)  # fmt: skip
"""Why a task may have failed for good."""


def _filters() -> list[click.Parameter]:
    return [
        click.Option(["--queue"], metavar="NAME", help="Only those of this queue."),
        click.Option(["--task"], metavar="NAME", help="Only those of this task."),
        click.Option(
            ["--reason"], type=click.Choice(REASONS), metavar="REASON", help=f"One of: {', '.join(REASONS)}."
        ),
        click.Option(["--error"], metavar="TYPE", help="Only those whose task failed with an error of this type."),
        click.Option(["--since"], type=Since(), metavar="TIME", help="Not older than this: 2h, or 2026-01-31T03:00."),
        click.Option(["--run"], type=RunId(), metavar="RUN", help="Only those of this run (id, or its beginning)."),
        click.Option(["--limit"], type=Positive(), metavar="N", help="Only the newest N (list: 50)."),
    ]  # fmt: skip


def _chosen() -> list[click.Parameter]:
    return [
        click.Argument(["letters"], metavar="RUN[/PATH]", nargs=-1, type=RunId(), help="Only these dead letters."),
        click.Option(["--all"], is_flag=True, help="Every dead letter that matches."),
        click.Option(["--dry-run"], is_flag=True, help="Print what would be done, and change nothing."),
        rate(),
        click.Option(["--by"], default="", metavar="NAME", help="The name of the operator (default: the user)."),
        click.Option(["--note"], default="", metavar="TEXT", help="Why; shown by `audit`."),
    ]


def _action(name: str, summary: str, *params: click.Parameter) -> click.Command:
    more: dict[str, Any] = {"action": name}
    return command(name, summary, *params, *store(), module="dlq", existing=True, **more)


LIST = _action("list", "list dead letters, newest first", *_filters(), keys())
SHOW = _action(
    "show", "show what is known of a dead letter, and what to do about it",
    click.Argument(["letter"], metavar="RUN[/PATH]", type=RunId(), help="A run, or one task of it."), keys(),
)  # fmt: skip
REPLAY = _action(
    "replay", "run failed tasks again, in a new run that keeps the results of the old one",
    *_filters(), *_chosen(),
    click.Option(["--delay"], type=DURATION, default=0, metavar="TIME", help="Wait this long before any task starts."),
    click.Option(["--allow-unknown"], is_flag=True, help="Accept tasks that no worker has declared."),
    tasks(),
)  # fmt: skip
PURGE = _action("purge", "delete dead letters", *_filters(), *_chosen(), keys())

DLQ = OrderedGroup(
    "dlq", commands=[LIST, SHOW, REPLAY, PURGE], help="List, show, replay or delete tasks that failed for good.",
    short_help="list, show, replay or delete tasks that failed for good",
)  # fmt: skip
