"""Results of runs and tasks by their id, from any process."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import structs

from stemflow.model.records import FINAL, Key, Node, task_keys
from stemflow.runtime.client.run_ids import expect_id
from stemflow.runtime.runs.decode import decode_as
from stemflow.runtime.runs.handle import RunAccess, RunHandle, TaskResult, UnknownRun, result_of
from stemflow.units import Duration, timeout_s

READ_EVERY_MS = 1_000
"""How often the record of a task is read at least while its end is waited for."""


async def result_by_id(access: RunAccess, task_id: str, decode: Any) -> TaskResult[Any]:
    """The result of a run (`RUN`) or of a task (`RUN/path`) as it is now. Raises UnknownRun."""
    nodes = await access.store.read(task_keys(expect_id("result", task_id)))
    node = next((one for one in nodes if isinstance(one, Node)), None)
    if node is None:
        raise UnknownRun(task_id, access.store.url)
    return _decoded(await result_of(access, node), decode)


async def wait_by_id(access: RunAccess, task_id: str, timeout: Duration | None, decode: Any) -> TaskResult[Any]:
    """Wait for the end of a run or of a task, also of one that has not started yet; see `Stemflow.wait_for_task`."""
    limit_s = timeout_s("wait_for_task: timeout", timeout)
    run, path = await _key_of(access, expect_id("wait_for_task", task_id))
    if not path:
        handle: RunHandle[Any] = RunHandle(access, run)
        return _decoded(await handle.wait(timeout), decode)
    loop = asyncio.get_running_loop()
    until = None if limit_s is None else loop.time() + limit_s
    # The count is taken before the records are read, so that a commit in between ends the wait below at once.
    seen = await access.store.wait_for_change(0, 0, run)
    with access.warned_if_unserved(run):
        while True:
            root, node = await access.store.read([(run, ""), (run, path)])
            if not isinstance(root, Node):
                raise UnknownRun(run, access.store.url)
            over = until is not None and loop.time() >= until
            if isinstance(node, Node) and (node.state in FINAL or over):
                return _decoded(await result_of(access, node), decode)
            if root.state in FINAL:
                raise UnknownRun(task_id, access.store.url)
            if over:
                return TaskResult(task_id=task_id, status="waiting", timed_out=True)
            async with access.slot_released():
                seen = await access.store.wait_for_change(seen, _pause_ms(loop.time(), until), run)


async def _key_of(access: RunAccess, task_id: str) -> Key:
    """The key of a run that is in the store, or of a task of one, which may not have started."""
    keys = task_keys(task_id)
    if len(keys) == 1:
        return keys[0]
    roots = await access.store.read([(run, "") for run, _ in keys])
    return next((key for key, root in zip(keys, roots, strict=True) if root is not None), keys[0])


def _pause_ms(now: float, until: float | None) -> int:
    return READ_EVERY_MS if until is None else max(1, min(READ_EVERY_MS, round((until - now) * 1_000)))


def _decoded(result: TaskResult[Any], decode: Any) -> TaskResult[Any]:
    return result if decode is None else structs.replace(result, decode=decode_as(decode, result.task_id))
