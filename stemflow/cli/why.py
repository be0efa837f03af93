"""`stemflow why`: a reason for every node of a run that is not final."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.find_run import find_step
from stemflow.cli.reasons import explanation_data, reason_lines
from stemflow.cli.text import json_text, shown
from stemflow.core.reasons import Explanation
from stemflow.model.records import task_id
from stemflow.runtime.client.run_list import public_state
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry

ALIKE = 5
"""Of nodes with the same task and the same first reason so many are printed."""


def main(arguments: Arguments) -> int:
    """Print the reasons; FINE whatever they are, and for a run that has ended."""
    return asyncio.run(_why(arguments))


async def _why(arguments: Arguments) -> int:
    async with Stemflow(arguments.store, TaskRegistry(), worker=False) as app:
        handle, path = await find_step(app, arguments.run)
        found = await app.why(task_id((handle.id, path)))
        name = (await app.library.header(handle.id)).name
    if arguments.json:
        nodes = [explanation_data(one) for one in found.nodes]
        print(json_text({
            "id": found.task_id, "run": found.run, "state": found.state, "read_at_ms": found.now_ms, "nodes": nodes,
        }))  # fmt: skip
        return FINE
    state = found.state if path else public_state(found.state)
    print(f"{shown(found.task_id)}  {state}" + (f"  {shown(name)}" if name else ""))
    for line in _lines(found.nodes, found.now_ms, arguments):
        print(line)
    return FINE


def _lines(nodes: Iterable[Explanation], now_ms: int, arguments: Arguments) -> Iterable[str]:
    met: Counter[tuple[str, str | None, str]] = Counter()
    left_out: Counter[tuple[str, str | None, str]] = Counter()
    for one in nodes:
        alike = (one.state, one.task, one.reasons[0].code)
        met[alike] += 1
        if met[alike] > ALIKE:
            left_out[alike] += one.members
            continue
        others = f" and {one.members - 1:,} more" if one.members > 1 else ""
        task = f"  {shown(one.task)}" if one.task is not None else ""
        yield f"{shown(one.path) or 'the run'}{others}{task}  {one.state}"
        for reason in one.reasons:
            for line in reason_lines(reason, now_ms, arguments):
                yield f"    {line}"
    for (state, name, code), count in left_out.items():
        yield f"and {count:,} more{f' of {shown(name)}' if name is not None else ''}  {state}  {code}"
