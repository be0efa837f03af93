"""The skip rule: whether a step may run, given how its predecessors ended."""

from __future__ import annotations

from collections.abc import Sequence

from stemflow.model.plan import EdgeKind
from stemflow.model.signature import OnError, RunOn

Source = tuple[EdgeKind, str | None, OnError]
"""(kind of the edge, how the source ended, the source's `on_error`)."""


def admitted(run_on: RunOn, sources: Sequence[Source], failed_before: bool = False) -> str | None:
    """None if the step runs, else the cause with which it is skipped: `skipped` (by condition) or `upstream`.

    A failed step with `on_error: continue` counts as done. A step skipped by its own condition counts as done along
    `order` and `optional` edges, and causes a skip along `data` edges. `failed_before`: a step further up, without
    `on_error: continue`, has failed.
    """
    ends = [(edge, "ok" if how == "failed" and on_error == "continue" else how) for edge, how, on_error in sources]
    bad = any(how in ("failed", "upstream", "cancelled") for _, how in ends)
    if run_on == "always" or run_on == "done":
        return None if run_on == "always" or not any(how == "cancelled" for _, how in ends) else "upstream"
    if run_on == "failure":
        return None if failed_before or any(how == "failed" for _, how, _ in sources) else "skipped"
    if run_on == "any_success":
        return None if any(how == "ok" for _, how in ends) else "upstream" if bad else "skipped"
    if bad:
        return "upstream"
    if any(how == "skipped" and edge == "data" for edge, how in ends):
        return "skipped"
    return None
