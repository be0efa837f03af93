"""Commands that look at a store or change what is in it."""

from __future__ import annotations

import click

from stemflow.cli.grammar.options import command, run_id, store, store_url
from stemflow.cli.grammar.types import Positive

RUNS = command(
    "runs", "list the runs of a store, newest first",
    click.Option(["--limit"], type=Positive(), default=20, metavar="N", help="List at most this many (20)."), *store(),
)  # fmt: skip
SHOW = command("show", "show a run: its steps, results, errors and attempts", run_id(), *store())
CANCEL = command(
    "cancel", "cancel a run",
    run_id(),
    click.Option(
        ["--force"], is_flag=True, help="End the run at once: do not wait for handlers, run no hooks or compensation."
    ),
    *store(),
)  # fmt: skip
WORKERS = command("workers", "list the workers of a store, what they serve, and their last heartbeat", *store())
DOCTOR = command("doctor", "check a store: durability, versions, workers, queues and stuck work", *store())
PRUNE = command(
    "prune", "delete expired runs, dead letters and claims now, as every worker does each minute",
    click.Option(["--dry-run"], is_flag=True, help="Count what would be deleted, and change nothing."), *store(),
)  # fmt: skip
ACL = command(
    "acl", "print users for a Redis ACL file, with the rights that they need and no more",
    store_url("redis://localhost:6379/0"),
)  # fmt: skip

COMMANDS = (RUNS, SHOW, CANCEL, WORKERS, DOCTOR, PRUNE, ACL)
