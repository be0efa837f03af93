"""A whole workflow, as a file or a program describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from stemflow.model.exported import Exported
from stemflow.model.policy import Concurrency, UniqueMode
from stemflow.model.secret_source import SecretSource
from stemflow.model.signature import AnySig


class Workflow(Struct, Exported, frozen=True, kw_only=True, omit_defaults=True):
    """A whole workflow: its body as a signature, and the settings of the run."""

    name: str
    body: AnySig
    version: str | None = None
    description: str | None = None
    labels: Mapping[str, str] = {}
    inputs: Mapping[str, Any] = {}
    """Input name -> its JSON Schema."""
    schedules: Mapping[str, Any] = {}
    """Name of a schedule -> what the file says of it, under `on.schedule`."""
    vars: Mapping[str, Any] = {}
    secrets: Mapping[str, SecretSource] = {}
    task_defaults: Mapping[str, Any] = {}
    outputs: Mapping[str, Any] | None = None
    unique_key: str | None = None
    unique_for_ms: int | None = None
    unique_mode: UniqueMode = "return_existing"
    concurrency: Concurrency | None = None
    """How many runs may be active at the same time, by key."""
    timeout_ms: int | None = None
    compensate_on: tuple[Literal["failed", "cancelled"], ...] = ()
