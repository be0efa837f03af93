"""Values against the JSON Schema that a step declares for its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemflow.errors import ResultMismatch


def refuse_misfit(schema: Mapping[str, Any], value: Any, what: str) -> None:
    """Raise ResultMismatch if the schema refuses the value."""
    from stemflow.dsl.inputs import misfits  # noqa: PLC0415  jsonschema is imported where a step has `returns`

    found = misfits(schema, value, what)
    if found:
        raise ResultMismatch("; ".join(found[:5]))
