"""Submits one run of each task to the store that STEMFLOW_STORE names, and waits for all of them."""

from __future__ import annotations

import asyncio
import os

from tasks import charge, close, refund, registry, settle

from stemflow import Stemflow


def say(text: str) -> None:
    """A line of the producer, in one write: the worker prints, too."""
    print(f"producer  {text}\n", end="", flush=True)


async def main() -> None:
    async with Stemflow(os.environ["STEMFLOW_STORE"], registry, worker=False) as app:
        handles = [(task.name, await app.submit(task.s())) for task in (charge, refund, settle, close)]
        say(f"submitted {', '.join(name for name, _ in handles)}")
        for name, handle in handles:
            result = await handle.wait()
            what = result.value if result.error is None else f"{result.error.type}: {result.error.message}"
            say(f"{name} has {result.status}: {what}")
        for letter in await app.dead_letters():
            say(f"dead letter: {letter.task}, after {letter.attempts} attempts")


if __name__ == "__main__":
    asyncio.run(main())
