"""Tasks that write what they do to a witness file: one line each, one write."""

import asyncio
import os

from stemflow import TaskContext, TaskRegistry

registry = TaskRegistry()


def witness(context: TaskContext, what: str) -> None:
    line = f"{context.node} {what}\n".encode()
    handle = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


@registry.task("step")
async def step(ctx: TaskContext, value: int) -> int:
    witness(ctx, "start")
    await asyncio.sleep(0.002)
    witness(ctx, "end")
    return value + 1


@registry.task("total")
def total(ctx: TaskContext, values: list[int]) -> int:
    witness(ctx, "start")
    witness(ctx, "end")
    return sum(values)
