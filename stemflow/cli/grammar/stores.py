"""Commands that look at a store or change what is in it."""

from __future__ import annotations

import click

from stemflow.cli.arguments import Arguments
from stemflow.cli.grammar.control import said
from stemflow.cli.grammar.options import (
    OrderedGroup,
    chosen_runs,
    command,
    keys,
    one_run_or_filters,
    run_filters,
    run_id,
    store,
    store_url,
)
from stemflow.cli.grammar.types import DURATION, Positive, RunId


def _one_key(arguments: Arguments) -> None:
    releases = len(arguments.key) == 2 and arguments.key[0] == "release"
    if len(arguments.key) > 1 and not releases:
        raise click.UsageError("expected one KEY, or release KEY")
    arguments.release = arguments.key[1] if releases else None
    arguments.key = arguments.key[0] if arguments.key and not releases else None


RUNS = command(
    "runs", "list the runs of a store, newest first; of those that failed the step and its error",
    *run_filters(),
    click.Option(
        ["--internal"], is_flag=True, help="Also the runs by which schedules are kept and their ticks are made."
    ),
    click.Option(["--limit"], type=Positive(), default=20, metavar="N", help="List at most this many (20)."),
    click.Option(["--after"], type=RunId(), metavar="RUN", help="Go on after this run."),
    click.Option(["--csv"], is_flag=True, help="Print CSV on standard output."),
    click.Option(["-q", "--quiet"], is_flag=True, help="Print ids only."),
    *store(), existing=True,
)  # fmt: skip
SHOW = command(
    "show", "show a run: its steps, results, errors and attempts",
    run_id(),
    click.Option(["--timeline"], is_flag=True, help="When each step waited and ran, and the critical path."),
    click.Option(["--follow"], is_flag=True, help="First show the changes of the run until it ends."),
    keys(), *store(), existing=True,
)  # fmt: skip
WHY = command(
    "why", "explain why a run, or a task of it, makes no progress",
    run_id("The id of the run, or the beginning of it; or RUN/STEP for one step."), *store(), existing=True,
)  # fmt: skip
CANCEL = command(
    "cancel", "cancel a run, or all that filters choose",
    *chosen_runs(),
    click.Option(
        ["--force"], is_flag=True, help="End the run at once: do not wait for handlers, run no hooks or compensation."
    ),
    *said(), keys(), *store(), check=one_run_or_filters, existing=True,
)  # fmt: skip
WORKERS = command(
    "workers", "list the workers of a store, what they serve, and their last heartbeat", *store(), existing=True
)
QUEUES = command(
    "queues", "list the queues of a store: what waits, what runs, and which workers serve them",
    click.Argument(["queue"], metavar="[QUEUE]...", nargs=-1, help="Only these queues."),
    keys(), *store(), existing=True,
)  # fmt: skip
TOP = command(
    "top", "draw queues, workers and runs again and again, until Ctrl-C",
    click.Option(["--once"], is_flag=True, help="Print one picture and exit."),
    click.Option(["--interval"], type=DURATION, default=1_000, metavar="TIME", help="Between two pictures (1s)."),
    keys(), store_url(), existing=True,
)  # fmt: skip
KEYS = command(
    "keys", "list unique keys, concurrency keys and rate limits: which tasks hold them, and which wait",
    click.Argument(
        ["key"], metavar="[KEY | release KEY]", nargs=-1,
        help="Only this key; or take it away from holders that are gone, or end its window.",
    ),
    click.Option(
        ["--kind"], type=click.Choice(["unique", "concurrency", "rate"]), help="Only keys of this kind."
    ),
    click.Option(["--limit"], type=Positive(), default=50, metavar="N", help="List at most this many (50)."),
    click.Option(["--after"], default="", metavar="KEY", help="Go on after this unique or concurrency key."),
    click.Option(["--force"], is_flag=True, help="Release it although a live holder has it; needs `--reason`."),
    *said(), keys(), *store(), check=_one_key, existing=True,
)  # fmt: skip
DOCTOR = command("doctor", "check a store: durability, versions, workers, queues and stuck work", *store())
PRUNE = command(
    "prune", "delete expired runs, dead letters and claims now, as every worker does each minute",
    click.Option(["--dry-run"], is_flag=True, help="Count what would be deleted, and change nothing."),
    *store(), existing=True,
)  # fmt: skip
CACHE = OrderedGroup(
    "cache",
    commands=[
        command(
            "clear", "let no later call get a cached result of a task, or of any task",
            click.Argument(["task"], metavar="[TASK]", required=False, help="Only those of this task."), *store(),
            module="cache", existing=True,
        )
    ],
    help="Clear cached results of tasks.", short_help="clear cached results of tasks",
)  # fmt: skip
ACL = command(
    "acl", "print users for a Redis ACL file, with the rights that they need and no more",
    store_url("redis://localhost:6379/0"),
)  # fmt: skip
