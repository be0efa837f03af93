"""`stemflow show`: one run with its tree, results, errors and attempts."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.find_run import find_run
from stemflow.cli.follow import command, error_data
from stemflow.cli.live import latest, look_of, tree_rows
from stemflow.cli.operator import operator_engine
from stemflow.cli.reasons import reason_data, reason_lines
from stemflow.cli.render import ProgressOf, lines
from stemflow.cli.text import clip, json_text, shown
from stemflow.cli.tree import Row
from stemflow.core.reasons import Explanation, Reason
from stemflow.model.records import FAILED, FINAL, SUCCEEDED, Node, task_id
from stemflow.runtime.client.run_list import public_state
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.payloads.encoders import BadPayload, UnknownEncoder
from stemflow.runtime.payloads.signing import SigningError
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.values.resolver import Values

_WIDEST_RESULT = 100
HIDDEN = "= (encrypted or signed under a key that is not given here; --tasks MODULE names the registry that has it)"
_PACKAGE = Path(__file__).resolve().parent.parent


def main(arguments: Arguments) -> int:
    """Print the current state of a run; FINE whatever that state is."""
    return asyncio.run(_show(arguments))


async def _show(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        handle = await find_run(app, arguments.run)
        if arguments.json:
            print(json_text(await _data(app, handle)))
            return FINE
        progress_of = latest(await handle.progress())
        rows = await tree_rows(app, handle, await handle.nodes())
        why = await _reasons(app, handle, rows[0].is_final)
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
            for more in [*await _story(app, row), *_waits(row, why, app.store.now_ms(), arguments)]:
                print(f"{'  ' * row.depth}      {more}")
        if not rows[0].is_final:
            print(f"{command(arguments, 'resume', handle.id)} continues it, "
                  f"{command(arguments, 'cancel', handle.id)} ends it", file=sys.stderr)  # fmt: skip
    return FINE


async def _reasons(app: Stemflow, handle: RunHandle[Any], ended: bool) -> dict[str, Explanation]:
    """Why each open node of the run makes no progress, by path."""
    return {} if ended else {one.path: one for one in (await app.why(handle.id)).nodes}


_SHOWN_BY_THE_TREE = frozenset(("members", "steps", "window", "timer", "hook"))


def _waits(row: Row, why: dict[str, Explanation], now_ms: int, arguments: Arguments) -> list[str]:
    """The reasons of a node, as far as the tree does not show them."""
    reasons = why[row.path].reasons if row.path in why else ()
    shown_here = [one for one in reasons if one.code not in _SHOWN_BY_THE_TREE]
    if len(shown_here) > 1:
        shown_here = [one for one in shown_here if one.code != "queued"]
    return [reason_lines(one, now_ms, arguments)[0] for one in shown_here if one.code != "retry"]


def _running(why: Explanation | None) -> Reason | None:
    """What is known about the attempt that runs now."""
    return next((one for one in why.reasons if one.code in ("running", "stopping")), None) if why is not None else None


async def _story(app: Stemflow, row: Row) -> list[str]:
    """Further lines of a node: duplicates of its unique key, its result or its traceback."""
    node = row.node
    if node is None:
        return []
    met = await Values(app.library).duplicates(node)
    notes = [f"{met} {'duplicate' if met == 1 else 'duplicates'} came while it held its unique key"] if met else []
    return notes if row.task is None else [*notes, *await _outcome(app, node)]


async def _outcome(app: Stemflow, node: Node) -> list[str]:
    if node.state == SUCCEEDED:
        try:
            return [clip(f"= {json_text(await Values(app.library).value(node))}", _WIDEST_RESULT)]
        except (UnknownEncoder, BadPayload, SigningError):
            return [HIDDEN]
    if node.state == FAILED and node.error is not None and node.error.traceback:
        return [shown(line) for line in own_frames(node.error.traceback)]
    return []


def own_frames(traceback: str) -> list[str]:
    """The lines of a traceback without the frames of stemflow itself, which do not help to find the error."""
    lines, skipped = [], False
    for line in traceback.rstrip().split("\n"):
        if line.startswith('  File "'):
            skipped = line.startswith(f'  File "{_PACKAGE}')
        elif not line.startswith("    "):
            skipped = False
        if not skipped:
            lines.append(line)
    return lines


async def _data(app: Stemflow, handle: RunHandle[Any]) -> dict[str, Any]:
    progress_of = latest(await handle.progress())
    nodes = await handle.nodes()
    rows = await tree_rows(app, handle, nodes, collapse=False)
    why = await _reasons(app, handle, rows[0].is_final)
    header = await app.library.header(handle.id)
    root = await handle.root()
    try:
        result = await handle.result_of(root) if root.state in FINAL else None
    except (UnknownEncoder, BadPayload, SigningError):
        result = None
    error = result.error if result is not None else None
    return {
        "id": header.run,
        "name": header.name,
        "state": public_state(root.state),
        "outputs": result.raw if result is not None else None,
        "error": error_data(error, result.failed_at, result.attempt)
        if result is not None and error is not None
        else None,
        "created_at_ms": header.created_at_ms,
        "ended_at_ms": root.ended_at_ms or None,
        "file": header.file,
        "labels": dict(header.labels),
        "rerun_of": header.rerun_of,
        "started_by": task_id(header.parent) if header.parent else None,
        "nodes": [await _node_data(app, row, progress_of, why.get(row.path)) for row in rows],
    }


async def _node_data(app: Stemflow, row: Row, progress_of: ProgressOf, why: Explanation | None) -> dict[str, Any]:
    """A node as an object; `path` is empty for the run itself, `attempt` counts from 1, 0 if it never opened."""
    node = row.node
    is_task = node is not None and row.task is not None
    progress = progress_of(node) if node is not None else None
    has_value = is_task and row.state == SUCCEEDED
    running = _running(why)
    started_at_ms = running.since_ms if running is not None else node.started_at_ms if node is not None else None
    return {
        "path": row.path,
        "state": row.state,
        "task": row.task,
        "labels": await _labels(app, node) if node is not None else {},
        "progress": None if progress is None else {"percent": progress.percent, "data": progress.data},
        "duplicates": await Values(app.library).duplicates(node) if node is not None else 0,
        "attempt": node.attempt + 1 if is_task and node is not None else 0,
        "result": await _value(app, node) if has_value and node is not None else None,
        "error": await _error(app, node) if node is not None else None,
        "opened_at_ms": (node.opened_at_ms or None) if node is not None else None,
        "started_at_ms": started_at_ms or None,
        "ended_at_ms": (node.ended_at_ms or None) if node is not None else None,
        "worker": running.worker if running is not None else None,
        "reasons": [reason_data(one) for one in why.reasons] if why is not None else [],
    }


async def _labels(app: Stemflow, node: Node) -> dict[str, str]:
    """The labels of a step."""
    shape = await app.library.shape(node.plan)
    return dict(shape.nodes[node.node].labels)


async def _value(app: Stemflow, node: Node) -> Any:
    """The result of a task; null where it cannot be decrypted or verified here."""
    try:
        return await Values(app.library).value(node)
    except (UnknownEncoder, BadPayload, SigningError):
        return None


async def _error(app: Stemflow, node: Node) -> dict[str, Any] | None:
    if node.state == FAILED:
        values = Values(app.library)
        source = await values.node((node.run, node.failed_at or node.path)) or node
        return error_data(await values.error_of(node), source.path, source.attempt)
    return None if node.error is None else error_data(node.error, node.path, node.attempt)
