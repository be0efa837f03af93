"""`stemflow` itself: every command, and `--version`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

import click

from stemflow.cli.grammar import answers, control, files, letters, running, schedules, stores
from stemflow.cli.grammar.options import TopicGroup
from stemflow.version import __version__

WIDEST = 100
"""The most columns of a help text."""


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"stemflow {__version__}")
        ctx.exit()


class _Context(click.Context):
    """A context that knows the width of help texts, for which click would import shutil and its compression modules."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.terminal_width is None:
            self.terminal_width = max(min(_columns(), WIDEST) - 2, 50)


def _columns() -> int:
    """The width of the terminal: COLUMNS, else that of the terminal at standard output, else 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    with suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    return 80


TOPICS = (
    ("Run workflows", (running.RUN, running.SUBMIT, running.WORKER_GROUP, running.RESUME, running.RERUN)),
    ("Look at runs", (stores.RUNS, stores.SHOW, stores.WHY, answers.APPROVALS)),
    (
        "Look at a store",
        (
            stores.TOP, stores.QUEUES, stores.WORKERS, stores.KEYS, stores.DOCTOR, control.METRICS, control.AUDIT,
        ),
    ),
    (
        "Intervene",
        (
            stores.CANCEL, control.PAUSE, letters.DLQ, control.BULK, answers.APPROVE, answers.REJECT, answers.EVENT,
            schedules.SCHEDULE, stores.CACHE, stores.PRUNE,
        ),
    ),
    (
        "Write workflow files",
        (
            files.VALIDATE, files.TEST, files.PLAN, files.GRAPH, files.DIFF, files.FMT, files.EXPLAIN, files.EXPORT,
            files.SCHEMA, files.TASKS, files.LSP,
        ),
    ),
    ("Set up", (stores.ACL, files.COMPLETION)),
)  # fmt: skip
PROGRAM = TopicGroup(
    "stemflow", TOPICS,
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version,
            help="Print the version and exit.",
        )
    ],
    help="Run declarative workflows, durably.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
)  # fmt: skip
PROGRAM.context_class = _Context
