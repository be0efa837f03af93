"""A small project in a folder, and what a command answered in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from stemflow.runtime.clock import SystemClock
from stemflow.store.open import DEFAULT_PATH, open_store

TASKS = '''
import json
from pathlib import Path
from stemflow import Reject, TaskContext, TaskRegistry

registry = TaskRegistry()


@registry.task("say")
async def say(word: str) -> str:
    return word


@registry.task("each")
async def each(n: int) -> int:
    return n * n


@registry.task("flaky")
async def flaky() -> str:
    """Fails until there is a file called `mended`."""
    if not Path("mended").exists():
        raise Reject("not mended yet")
    return "well"


@registry.task("unspeakable")
async def unspeakable() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    raise Mute


@registry.task("a_set")
async def a_set() -> object:
    return {"found": {1}}


@registry.task("escape")
async def escape() -> None:
    raise ValueError("\\x1b[2Jgone\\r\\nand \\u202eback")


@registry.task("prints")
async def prints() -> str:
    print("a task prints")
    return "done"
'''

HELLO = """\
stemflow: "1"
name: hello
inputs:
  who: {type: string, default: world}
  times: {type: integer, minimum: 1, default: 1}
steps:
  greet: {task: say, args: {word: "${{ inputs.who }}"}}
  again: {needs: [greet], task: each, args: {n: "${{ inputs.times }}"}}
outputs:
  said: ${{ steps.greet.output }}
  squared: ${{ steps.again.output }}
"""

FLAKY = """\
stemflow: "1"
name: flaky
steps:
  first: {task: say, args: {word: one}}
  second: {needs: [first], task: flaky}
  third: {needs: [second], task: say, args: {word: three}}
outputs:
  second: ${{ steps.second.output }}
"""


class Ran(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


def make_store(folder: Path) -> None:
    """The store of the folder, without any run."""

    async def opened() -> None:
        store = open_store(f"sqlite:{folder / DEFAULT_PATH}", SystemClock())
        await store.open()
        await store.close()

    asyncio.run(opened())


def plain(text: str, folder: Path) -> str:
    """The text without what differs from run to run: the folder, run ids, times, and what is seen on the way."""
    text = re.sub(r"(?m)^ *\d[\w.]*s  .*\n", "", text)
    text = text.replace(str(folder), "DIR")
    text = re.sub(r"\b0[0-9a-f]{31}\b", "RUN", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
    text = re.sub(r"\d\d:\d\d:\d\d UTC", "CLOCK", text)
    text = re.sub(r"  on \S+-\d+\b", "  on WORKER", text)
    text = re.sub(r" +took\b", " took", text)
    text = re.sub(r" *\b(\d+ms|\d+\.\ds)\b", " TIME", text)
    return re.sub(r'("\w+_at_ms": )\d+', r"\1AT", text)
