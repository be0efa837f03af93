"""`stemflow cancel`: stop everything of a run that has not ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence

from stemflow.cli.arguments import Arguments
from stemflow.cli.bulk import on_runs, would_do
from stemflow.cli.exits import FINE
from stemflow.cli.find_run import find_run
from stemflow.cli.follow import command
from stemflow.cli.operator import operator, operator_engine
from stemflow.cli.text import json_text, short_duration
from stemflow.model.records import CANCELLED, FINAL, STOPPING, Node
from stemflow.runtime.client.bulk import BulkOptions
from stemflow.runtime.client.run_list import ListedRun, public_state
from stemflow.store.base import RunInfo


def main(arguments: Arguments) -> int:
    """Cancel a run, or those that filters choose. One that has ended already is left unchanged; that is FINE too."""
    return asyncio.run(_cancel(arguments))


async def _cancel(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        if arguments.run is None:
            return await on_runs(app, arguments, "cancel", BulkOptions(force=arguments.force))
        handle = await find_run(app, arguments.run)
        root = await handle.root()
        if arguments.dry_run:
            chosen = [] if root.state in FINAL else [ListedRun(info=RunInfo(await app.library.header(handle.id), root))]
            return would_do(chosen, "cancel", arguments)
        if root.state not in FINAL:
            details = {"force": arguments.force}
            await app.control.record_on_run("cancel", handle.id, operator(arguments), arguments.reason, details)
        was = await handle.cancel(force=arguments.force)
        nodes = await handle.records()
    root = next(node for node in nodes if not node.path)
    if arguments.json:
        state = {"id": handle.id, "state": public_state(root.state), "was": public_state(was)}
        print(json_text(state))
        return FINE
    for line in _story(arguments, was, root, nodes):
        print(line, file=sys.stderr)
    return FINE


def _story(arguments: Arguments, was: str, root: Node, nodes: Sequence[Node]) -> Iterator[str]:
    """The state of the run in words, and the next command if it keeps stopping for too long."""
    run, state = root.run, public_state(root.state)
    if was in FINAL:
        yield f"run {run} had ended already ({state}); nothing was changed"
    elif root.state == CANCELLED:
        yield f"run {run} is cancelled"
    elif root.state in FINAL:
        yield f"run {run} had ended ({state}); its hooks and compensation were cut off"
    else:
        yield from _still_open(arguments, was, run, [n for n in nodes if n.tally is None and n.state not in FINAL])


def _still_open(arguments: Arguments, was: str, run: str, leaves: Sequence[Node]) -> Iterator[str]:
    force = command(arguments, "cancel", "--force", run)
    stopping = [leaf for leaf in leaves if leaf.state == STOPPING]
    hooks = len(leaves) - len(stopping)
    doing = [f"{_tasks(len(stopping))} asked to end"] if stopping else []
    doing += [f"{_tasks(hooks)} of its hooks, compensation or `run_on: always` to run"] if hooks else []
    yield f"run {run} {'was stopping already' if was == STOPPING else 'is stopping'}: {', '.join(doing)}"
    if stopping:
        lost_ms = max(leaf.lease_ms for leaf in stopping)
        yield (f"next: if it is still stopping after {short_duration(lost_ms)}, its worker is dead; "
               f"{command(arguments, 'cancel', run)} takes over, {force} ends it at once")  # fmt: skip
    else:
        yield (f"next: if no worker runs them, {command(arguments, 'resume', run)} does; "
               f"{force} cuts them off")  # fmt: skip


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"
