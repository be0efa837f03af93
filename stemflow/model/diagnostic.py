"""A finding about a workflow file: where it is, what it is, and what to do."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Diagnostic(Struct, frozen=True, omit_defaults=True):
    """One finding. `line` and `column` count from 1; `end_column` is exclusive; 0 means that the place is unknown."""

    code: str
    message: str
    line: int = 0
    column: int = 0
    end_column: int = 0
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"
    file: str = ""
