"""Commands that start runs or work on them."""

from __future__ import annotations

import click

from stemflow.cli.arguments import Arguments
from stemflow.cli.grammar.control import said, waiting
from stemflow.cli.grammar.options import command, concurrency, run_id, store, store_url, tasks, workflow_file
from stemflow.cli.grammar.types import DURATION, Names, Positive


def _one_of_failed_and_from(arguments: Arguments) -> None:
    if arguments.failed == (arguments.from_step is not None):
        raise click.UsageError("expected one of --failed and --from STEP")


RUN = command(
    "run", "run a workflow file with an embedded worker and show its progress",
    *workflow_file(), tasks(), concurrency(), *store(),
)  # fmt: skip
RESUME = command(
    "resume", "continue a run that was interrupted or whose process died; or end a pause",
    run_id("The id of the run, or the beginning of it; or what was paused: queue:NAME, workflow:NAME or task:NAME."),
    tasks(), concurrency(), *said(), *waiting(), *store(),
)  # fmt: skip
RERUN = command(
    "rerun", "start a new run that keeps results of an old one",
    run_id(),
    click.Option(["--failed"], is_flag=True, help="Run again only what did not succeed."),
    click.Option(["--from", "from_step"], metavar="STEP", help="Run again this step and all that depends on it."),
    tasks(), concurrency(), *store(), check=_one_of_failed_and_from,
)  # fmt: skip
SUBMIT = command(
    "submit", "store a run of a workflow file for workers and print its id",
    *workflow_file(),
    click.Option(["--allow-unknown"], is_flag=True, help="Accept tasks that no worker has declared."),
    tasks(), *store(),
)  # fmt: skip
WORKER = command(
    "worker", "serve the queues of a store until stopped",
    click.Option(["--queues"], type=Names(), metavar="A,B", help="The queues to lease from (default: every queue)."),
    concurrency(),
    click.Option(["--processes"], type=Positive(), default=1, metavar="P", help="The number of worker processes (1)."),
    click.Option(["--name"], metavar="NAME", help="The worker's name in lists (default: host and process id)."),
    click.Option(
        ["--grace"], type=DURATION, default=30_000, metavar="TIME",
        help="How long running tasks may continue after SIGTERM or Ctrl-C before they are returned (30s).",
    ),
    click.Option(
        ["--unroutable-after"], type=DURATION, default=60_000, metavar="TIME",
        help="A task that no worker has declared for this long fails (60s).",
    ),
    click.Option(["-v", "--verbose"], is_flag=True, help="Log a line for each task that starts and succeeds."),
    tasks(), store_url(),
)  # fmt: skip

COMMANDS = (RUN, RESUME, RERUN, SUBMIT, WORKER)
