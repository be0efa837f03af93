"""`stemflow prune`: delete expired records now; every worker also does so each minute."""

from __future__ import annotations

import asyncio

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.text import json_text
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.worker.retention import prune


def main(arguments: Arguments) -> int:
    """Count expired records, delete them unless it is a dry run, and print the counts."""
    return asyncio.run(_prune(arguments))


async def _prune(arguments: Arguments) -> int:
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        past = await app.store.count_expired()
        records = 0 if arguments.dry_run else await prune(app.store)
    if arguments.json:
        counts = {"runs": past.runs, "dead_letters": past.dead_letters, "others": past.others}
        print(json_text({"dry_run": arguments.dry_run, **counts, "records": records}))
        return FINE
    what = f"expired: runs {past.runs:,}, dead letters {past.dead_letters:,}, claims and memos {past.others:,}"
    print(f"{what}; {'nothing was deleted' if arguments.dry_run else f'records deleted: {records:,}'}")
    return FINE
