"""Which functions a task calls how often: of submitting tasks alone, of a chain and a group from end to end.

Counts, not times: they are the same on a busy machine. `tests/spec/test_calls.py` has the bounds that they must keep.
With `--callers` each line has the function that calls.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any

from measure import CONSUMERS, noop, registry, same, store_url

from stemflow import Canvas, Stemflow

KINDS, WORK = ("memory", "sqlite", "redis"), ("submit", "await", "chain", "group")
Edge = tuple[CodeType, CodeType | None]


def named(code: CodeType | None) -> str:
    """The module and name of a function, without the folder that it is installed in."""
    if code is None:
        return "?"
    file = code.co_filename
    for folder in ("/stemflow/", "/python3"):
        if folder in file:
            file = file.rsplit(folder, 1)[1]
            break
    return f"{file}: {code.co_qualname}"


async def calls(kind: str, what: str, count: int) -> Counter[Edge]:
    """Calls by (function, caller) while `count` tasks are worked on."""
    found: Counter[Edge] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            found[frame.f_code, None if frame.f_back is None else frame.f_back.f_code] += 1

    with store_url(kind) as url:
        async with Stemflow(url, registry, concurrency=CONSUMERS, worker=what != "submit") as app:
            if what in ("chain", "group"):
                await app.run(Canvas.chain([same.s(1), same.s()]))
            else:
                await app.submit(noop.s())
            sys.setprofile(note)
            try:
                await work(app, what, count)
            finally:
                sys.setprofile(None)
    return found


async def work(app: Stemflow, what: str, count: int) -> Any:
    match what:
        case "submit":
            return [await app.submit(noop.s()) for _ in range(count)]
        case "await":
            return [await app.run(noop.s()) for _ in range(count)]
        case "chain":
            return await app.run(Canvas.chain([same.s(1), *(same.s() for _ in range(count - 1))]))
        case _:
            return await app.run(Canvas.group([noop.s() for _ in range(count)]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--store", choices=KINDS, action="append")
    options.add_argument("--work", choices=WORK, action="append")
    options.add_argument("--tasks", type=int, default=500)
    options.add_argument("--least", type=float, default=2.0, help="leave out what a task calls less often")
    options.add_argument("--callers", action="store_true")
    given = options.parse_args()
    for kind in given.store or KINDS:
        for what in given.work or WORK:
            edges = asyncio.run(calls(kind, what, given.tasks))
            print(f"{kind}: {what}: {edges.total() / given.tasks:.1f} calls a task")
            lines: Counter[str] = Counter()
            for (code, caller), count in edges.items():
                lines[f"{named(code)} <- {named(caller)}" if given.callers else named(code)] += count
            for line, count in lines.most_common():
                if count / given.tasks >= given.least:
                    print(f"{count / given.tasks:8.1f}  {line}")


if __name__ == "__main__":
    main()
