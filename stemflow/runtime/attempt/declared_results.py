"""Results of tasks against the `returns` of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemflow.errors import ResultMismatch
from stemflow.model.facts import Failed, Ok
from stemflow.runtime.payloads.encoders import Write
from stemflow.runtime.payloads.json_data import plain
from stemflow.runtime.tasks.retry_decision import describe
from stemflow.runtime.values.misfits import refuse_misfit


def checked(write: Write, schema: Mapping[str, Any]) -> Write:
    """`write` that raises ResultMismatch for a result that the schema refuses."""

    def write_checked(value: Any, what: str) -> bytes:
        data = plain(value, what)
        refuse_misfit(schema, data, what)
        return write(data, what)

    return write_checked


def missing_result(schema: Mapping[str, Any] | None, outcome: Ok) -> Failed | None:
    """The failure of a task that gave nothing, if its `returns` refuses that."""
    if schema is None or outcome.result is not None:
        return None
    try:
        refuse_misfit(schema, None, "result")
    except ResultMismatch as error:
        return Failed(describe(error), "final")
    return None
