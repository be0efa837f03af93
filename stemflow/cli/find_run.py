"""Find a run by its id, or by a prefix of the id that is unique."""

from __future__ import annotations

from typing import Any

from stemflow.cli.exits import Refused
from stemflow.cli.text import shown
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import RunHandle


async def find_run(app: Stemflow, given: str) -> RunHandle[Any]:
    """The run; raises Refused when none or several begin with `given`."""
    (root,) = await app.store.read([(given, "")])
    if root is not None:
        return await app.handle(given)
    found = await app.store.runs(5, given)
    if not found:
        raise Refused(f"run {shown(given)}: expected it in {app.store.url}, found none; "
                      "`stemflow runs` lists those that are there")  # fmt: skip
    if len(found) > 1:
        names = ", ".join(one.header.run for one in found[:4]) + (", ..." if len(found) > 4 else "")
        raise Refused(f"run {shown(given)}: expected the beginning of one run, got that of several ({names}); "
                      "write more of it")  # fmt: skip
    return await app.handle(found[0].header.run)


async def find_step(app: Stemflow, given: str) -> tuple[RunHandle[Any], str]:
    """The run and the path behind `RUN` or `RUN/PATH`, where RUN may be shortened; raises Refused as `find_run`.

    The id of a run may contain a `/` itself, so the longest run id that exists counts.
    """
    end = len(given)
    while True:
        try:
            return await find_run(app, given[:end]), given[end + 1 :]
        except Refused:
            end = given.rfind("/", 0, end)
            if end <= 0:
                raise
