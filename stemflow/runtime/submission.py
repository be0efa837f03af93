"""What is asked of the engine when a run is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from stemflow.model.records import Key
from stemflow.model.signature import Signature, Workflow


class Submission(Struct, frozen=True, kw_only=True):
    """One call of `submit`; `parent` and `root` are set when a running task asks."""

    what: Signature[Any, Any] | Workflow
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    inputs: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}
    meta: Mapping[str, Any] = {}
    run_id: str | None = None
    file: str | None = None
    tasks: tuple[str, ...] = ()
    again: bool = False
    parent: Key | None = None
    root: str | None = None
