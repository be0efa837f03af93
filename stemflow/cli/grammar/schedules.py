"""`stemflow schedule` and its actions."""

from __future__ import annotations

from typing import Any

import click

from stemflow.cli.grammar.options import OrderedGroup, command, store, tasks
from stemflow.cli.grammar.types import DURATION, Positive, Since


def _action(name: str, summary: str, *params: click.Parameter, url: bool = True) -> click.Command:
    more: dict[str, Any] = {"action": name}
    shared = store() if url else [click.Option(["--json"], is_flag=True, help="Print JSON on standard output.")]
    return command(name, summary, *params, *shared, module="schedule", existing=url and name != "apply", **more)


def _name() -> click.Argument:
    return click.Argument(["name"], metavar="NAME", help="The name of the schedule.")


LIST = _action("list", "list schedules with their next tick")
SHOW = _action(
    "show", "show a schedule and what became of its last ticks", _name(),
    click.Option(["--ticks"], type=Positive(), default=10, metavar="N", help="How many ticks to show (10)."),
)  # fmt: skip
PREVIEW = _action(
    "preview", "print the next ticks of the schedules of files",
    click.Argument(["paths"], metavar="FILE", nargs=-1, required=True, help="Workflow files, or folders of them."),
    click.Option(["--ticks"], type=Positive(), default=5, metavar="N", help="How many ticks of each (5)."),
    click.Option(["--after"], type=Since(), metavar="TIME", help="The ticks after this instant (default: now)."),
    url=False,
)  # fmt: skip
APPLY = _action(
    "apply", "put the schedules of files in force",
    click.Argument(["paths"], metavar="FILE", nargs=-1, required=True, help="Workflow files, or folders of them."),
    click.Option(["--prune"], is_flag=True, help="Remove schedules of workflow files that are not among these."),
    click.Option(["--dry-run"], is_flag=True, help="Print what would be done, and change nothing."),
    tasks("Where the tasks are, besides those that workers have declared; shown with the runs. May be repeated."),
    click.Option(["--allow-unknown"], is_flag=True, help="Accept tasks that no worker has declared."),
)  # fmt: skip
PAUSE = _action(
    "pause", "make no ticks until the schedule is resumed", _name(),
    click.Option(["--ticks"], type=click.Choice(["skip", "hold"]), default="skip", metavar="skip|hold",
                 help="Skip the ticks of the meantime (the default), or hold them for `catch_up`."),
    click.Option(["--for", "for_ms"], type=DURATION, metavar="TIME", help="Resume by itself after this time."),
    click.Option(["--reason"], default="", metavar="TEXT", help="Shown with the schedule."),
)  # fmt: skip
RESUME = _action("resume", "end a pause", _name())
RUN = _action(
    "run", "start a run by hand, for now or for a tick", _name(),
    click.Option(["--tick"], type=Since(), metavar="TIME", help="The instant of the tick (default: now)."),
)  # fmt: skip
BACKFILL = _action(
    "backfill", "start the runs of ticks of the past", _name(),
    click.Option(["--from", "from_"], type=Since(), required=True, metavar="TIME", help="The first instant."),
    click.Option(["--to"], type=Since(), metavar="TIME", help="The last instant (default: now)."),
    click.Option(["--concurrency"], type=Positive(), default=1, metavar="N", help="Runs at the same time (1)."),
    click.Option(["--reverse"], is_flag=True, help="The newest first."),
    click.Option(["--again"], default="", metavar="NAME", help="Run again what has run, under this name."),
    click.Option(["--dry-run"], is_flag=True, help="Print the ticks, and change nothing."),
)  # fmt: skip
REMOVE = _action("remove", "end a schedule; runs that it has started go on", _name())

SCHEDULE = OrderedGroup(
    "schedule", commands=[LIST, SHOW, PREVIEW, APPLY, PAUSE, RESUME, RUN, BACKFILL, REMOVE],
    help="Preview, apply, list, pause or backfill schedules.",
    short_help="preview, apply, list, pause or backfill schedules",
)  # fmt: skip
