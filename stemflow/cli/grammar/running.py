"""Commands that start runs or work on them."""

from __future__ import annotations

from typing import Any

import click

from stemflow.cli.arguments import Arguments
from stemflow.cli.grammar.control import said, waiting
from stemflow.cli.grammar.options import (
    CommandGroup,
    chosen_runs,
    command,
    concurrency,
    keys,
    one_run_or_filters,
    run_id,
    store,
    store_url,
    tasks,
    workflow_file,
)
from stemflow.cli.grammar.types import DURATION, Names, Positive


def _one_of_failed_and_from(arguments: Arguments) -> None:
    if arguments.failed == (arguments.from_step is not None):
        raise click.UsageError("expected one of --failed and --from STEP")
    one_run_or_filters(arguments)


RUN = command(
    "run", "run a workflow file with an embedded worker and show its progress",
    *workflow_file(), tasks(), concurrency(), *store(),
)  # fmt: skip
RESUME = command(
    "resume", "continue a run that was interrupted or whose process died; or end a pause",
    run_id("The id of the run, or the beginning of it; or what was paused: queue:NAME, workflow:NAME or task:NAME."),
    tasks(), concurrency(), *said(), *waiting(), *store(), existing=True,
)  # fmt: skip
RERUN = command(
    "rerun", "start a new run that keeps results of an old one, or of all that filters choose",
    *chosen_runs(),
    click.Option(["--failed"], is_flag=True, help="Run again only what did not succeed."),
    click.Option(["--from", "from_step"], metavar="STEP", help="Run again this step and all that depends on it."),
    *said(), tasks(), concurrency(), *store(), check=_one_of_failed_and_from, existing=True,
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
    click.Option(
        ["--metrics-port"], type=click.IntRange(0, 65_535), metavar="PORT",
        help="Serve the metrics of the store at /metrics; of several processes, the first does.",
    ),
    click.Option(["--metrics-bind"], default="127.0.0.1", metavar="HOST", help="On this address (127.0.0.1)."),
    click.Option(["-v", "--verbose"], is_flag=True, help="Log a line for each task that starts and succeeds."),
    tasks(), store_url(),
)  # fmt: skip


def _action(name: str, summary: str, *params: click.Parameter) -> click.Command:
    more: dict[str, Any] = {"action": name}
    return command(name, summary, *params, keys(), *store(), module="worker_control", existing=True, **more)


def _name(required: bool = True) -> click.Argument:
    return click.Argument(
        ["worker"], metavar="NAME" if required else "[NAME]", required=required, help="The name of a worker."
    )


WORKER_ACTIONS = [
    _action(
        "drain", "let a worker lease nothing new, while what it runs goes on", _name(),
        click.Option(["--undo"], is_flag=True, help="Let it lease again."), *said(), *waiting(),
    ),
    _action(
        "concurrency", "change how many tasks a worker runs at the same time", _name(),
        click.Argument(["slots"], metavar="N", type=click.IntRange(0, 100_000), help="0: as it was started."),
        *said(), *waiting(),
    ),
    _action("dump", "print the stacks of what a worker runs", _name(), waiting()[1]),
    _action(
        "health", "exit with 0 if the workers of this host are alive, else with 1: a probe for containers",
        _name(required=False),
        click.Option(["--ready"], is_flag=True, help="They must also lease new tasks."),
    ),
]  # fmt: skip

WORKER_GROUP = CommandGroup(WORKER, WORKER_ACTIONS)
