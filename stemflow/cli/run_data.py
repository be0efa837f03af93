"""A run as one object: what `show --json` prints, complete enough to submit the run elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec

from stemflow.cli.attempts import attempts_data
from stemflow.cli.follow import error_data
from stemflow.cli.live import latest, tree_rows
from stemflow.cli.reasons import reason_data
from stemflow.cli.render import ProgressOf
from stemflow.cli.tree import Row
from stemflow.core.reasons import Explanation, Reason
from stemflow.model import wire
from stemflow.model.records import FAILED, FINAL, SUCCEEDED, Header, Node, task_id
from stemflow.runtime.client.run_list import public_state
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.payloads.encoders import BadPayload, UnknownEncoder
from stemflow.runtime.payloads.signing import SigningError
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.values.resolver import Values


async def reasons_of(app: Stemflow, handle: RunHandle[Any], ended: bool) -> dict[str, Explanation]:
    """Why each open node of the run makes no progress, by path."""
    return {} if ended else {one.path: one for one in (await app.why(handle.id)).nodes}


def _running(why: Explanation | None) -> Reason | None:
    """What is known about the attempt that runs now."""
    return next((one for one in why.reasons if one.code in ("running", "stopping")), None) if why is not None else None


async def run_data(app: Stemflow, handle: RunHandle[Any]) -> dict[str, Any]:
    """The run with its inputs, plans, nodes and their attempts."""
    progress_of = latest(await handle.progress())
    nodes = await handle.records()
    rows = await tree_rows(app, handle, nodes, collapse=False)
    why = await reasons_of(app, handle, rows[0].is_final)
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
        "inputs": await _inputs(app, header, root),
        "headers": dict(header.headers),
        "meta": dict(header.meta),
        "plans": [
            msgspec.to_builtins((await app.library.shape(digest)).plan, enc_hook=wire.plain)
            for digest in dict.fromkeys((header.plan, *(node.plan for node in nodes)))
        ],
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
        "attempts": attempts_data(node) if is_task and node is not None else [],
        "unlisted_attempts": node.unlisted if node is not None else 0,
        "reasons": [reason_data(one) for one in why.reasons] if why is not None else [],
    }


async def _labels(app: Stemflow, node: Node) -> dict[str, str]:
    """The labels of a step."""
    shape = await app.library.shape(node.plan)
    return dict(shape.nodes[node.node].labels)


async def _inputs(app: Stemflow, header: Header, root: Node) -> Any:
    """The inputs of the run; null where they cannot be decrypted or verified here."""
    try:
        return await Values(app.library).inputs(header, root)
    except (UnknownEncoder, BadPayload, SigningError):
        return None


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
