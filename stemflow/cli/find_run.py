"""Find a run by its id, or by a prefix of the id that is unique."""

from __future__ import annotations

from typing import Any

from stemflow.cli.exits import Refused
from stemflow.cli.text import shown
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import RunHandle


async def find_run(app: Stemflow, given: str) -> RunHandle[Any]:
    """The run; raises Refused when none or several begin with `given`."""
    found = await app.store.runs(5, given)
    exact = [one for one in found if one.header.run == given]
    if not found:
        raise Refused(f"run {shown(given)}: expected it in {app.store.url}, found none; "
                      "`stemflow runs` lists those that are there")  # fmt: skip
    if len(found) > 1 and not exact:
        names = ", ".join(one.header.run for one in found[:4]) + (", ..." if len(found) > 4 else "")
        raise Refused(f"run {shown(given)}: expected the beginning of one run, got that of several ({names}); "
                      "write more of it")  # fmt: skip
    return await app.handle((exact or found)[0].header.run)
