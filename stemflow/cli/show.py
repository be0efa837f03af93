"""`stemflow show`: one run with its tree, results, errors and attempts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.attempts import attempt_lines, failure_lines
from stemflow.cli.exits import FINE, INTERRUPTED
from stemflow.cli.find_run import find_run
from stemflow.cli.follow import MOST_NAMED, command
from stemflow.cli.interrupt import interrupts
from stemflow.cli.live import choose_watch, latest, look_of, tree_rows
from stemflow.cli.operator import operator_engine
from stemflow.cli.reasons import reason_lines
from stemflow.cli.render import error_text, lines
from stemflow.cli.run_data import reasons_of, run_data
from stemflow.cli.text import clip, json_text, shown
from stemflow.cli.timeline import timeline_data, timeline_lines
from stemflow.cli.tree import Row
from stemflow.core.reasons import Explanation
from stemflow.model.records import FAILED, SUCCEEDED, Node, parent_path, task_id
from stemflow.runtime.client.run_list import public_state
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.payloads.encoders import BadPayload, UnknownEncoder
from stemflow.runtime.payloads.signing import SigningError
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.values.resolver import Values

_WIDEST_RESULT = 100
HIDDEN = "= (encrypted or signed under a key that is not given here; --tasks MODULE names the registry that has it)"


def main(arguments: Arguments) -> int:
    """Print the current state of a run; FINE whatever that state is."""
    return asyncio.run(_show(arguments))


async def _show(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        handle = await find_run(app, arguments.run)
        if arguments.follow and not await _followed(app, handle):
            return INTERRUPTED
        now_ms = app.store.now_ms()
        if arguments.json:
            data = await run_data(app, handle)
            if arguments.timeline:
                data["timeline"] = timeline_data(await handle.records(), now_ms)
            print(json_text(data))
        elif arguments.timeline:
            for line in timeline_lines(await handle.records(), now_ms):
                print(line)
        else:
            await _print_tree(app, handle, arguments)
    return FINE


async def _followed(app: Stemflow, handle: RunHandle[Any]) -> bool:
    """Show the changes of the run, of whichever process, on standard error until it ends; False after Ctrl-C."""
    watch = choose_watch(sys.stderr)
    try:
        with interrupts(lambda: None, lambda: None) as asked:
            showing, asking = asyncio.ensure_future(watch.follow(app, handle)), asyncio.ensure_future(asked.wait())
            await asyncio.wait((showing, asking), return_when=asyncio.FIRST_COMPLETED)
            asking.cancel()
            if not showing.done():
                showing.cancel()
                return False
            showing.result()
            return True
    finally:
        watch.close()


async def _print_tree(app: Stemflow, handle: RunHandle[Any], arguments: Arguments) -> None:
    progress_of = latest(await handle.progress())
    nodes = await handle.records()
    rows = await tree_rows(app, handle, nodes)
    why = await reasons_of(app, handle, rows[0].is_final)
    header = await app.library.header(handle.id)
    file = f"  {shown(header.file)}" if header.file else ""
    print(f"run {shown(header.run)}  {public_state(rows[0].state)}{file}")
    if header.rerun_of:
        print(f"rerun of {shown(header.rerun_of)}")
    if header.parent:
        print(f"started by task {shown(task_id(header.parent))}")
    drawn = lines(rows, app.store.now_ms(), look_of(sys.stdout), progress_of)
    for row, line in zip(rows, drawn, strict=True):
        print(line)
        said = [*await _story(app, row), *failed_members(row, nodes), *_waits(row, why, app.store.now_ms(), arguments)]
        for more in said:
            print(f"{'  ' * row.depth}      {more}")
    if not rows[0].is_final:
        print(f"{command(arguments, 'resume', handle.id)} continues it, "
              f"{command(arguments, 'cancel', handle.id)} ends it", file=sys.stderr)  # fmt: skip


_SHOWN_BY_THE_TREE = frozenset(("members", "steps", "window", "timer", "hook"))


def _waits(row: Row, why: dict[str, Explanation], now_ms: int, arguments: Arguments) -> list[str]:
    """The reasons of a node, as far as the tree does not show them."""
    reasons = why[row.path].reasons if row.path in why else ()
    shown_here = [one for one in reasons if one.code not in _SHOWN_BY_THE_TREE]
    if len(shown_here) > 1:
        shown_here = [one for one in shown_here if one.code != "queued"]
    return [reason_lines(one, now_ms, arguments)[0] for one in shown_here if one.code != "retry"]


def failed_members(row: Row, nodes: Sequence[Node]) -> list[str]:
    """The members of a collapsed composite that failed, by name, with their errors."""
    if not row.counts.get("failed"):
        return []
    failed = [one for one in nodes if one.path and one.state == FAILED and parent_path(one.path) == row.path]
    said = [_failed_member(one, row.path) for one in failed[:MOST_NAMED]]
    return said if len(failed) <= MOST_NAMED else [*said, f"and {len(failed) - MOST_NAMED:,} more have failed"]


def _failed_member(node: Node, scope: str) -> str:
    name = shown(node.path[len(scope) :].removeprefix("."))
    if node.error is not None:
        return clip(f"{name} failed: {error_text(node.error)}", _WIDEST_RESULT)
    return f"{name} failed at {shown(node.failed_at or node.path)}"


async def _story(app: Stemflow, row: Row) -> list[str]:
    """Further lines of a node: duplicates of its unique key, its result or its traceback."""
    node = row.node
    if node is None:
        return []
    met = await Values(app.library).duplicates(node)
    notes = [f"{met} {'duplicate' if met == 1 else 'duplicates'} came while it held its unique key"] if met else []
    if row.task is None:
        return notes
    return [*notes, *attempt_lines(node, app.store.now_ms()), *await _outcome(app, node)]


async def _outcome(app: Stemflow, node: Node) -> list[str]:
    if node.state == SUCCEEDED:
        try:
            return [clip(f"= {json_text(await Values(app.library).value(node))}", _WIDEST_RESULT)]
        except (UnknownEncoder, BadPayload, SigningError):
            return [HIDDEN]
    return failure_lines(node)
