"""The words of the file: kinds of steps, what belongs to tasks alone, and what this version of stemflow lacks."""

from __future__ import annotations

from collections.abc import Mapping

KINDS = ("task", "steps", "chain", "group", "chord", "map", "switch", "loop", "set", "fail", "event", "emit",
         "approval", "workflow", "wait")
BODIES = ("steps", "chain", "group", "chord")

VALUE_OF: Mapping[str, str] = {"chain": "prev", "group": "results", "chord": "prev"}
"""Body of a file -> the name by which `outputs` reads its value; `steps` has names for each of them instead."""

MEMBER_POLICY = frozenset({"group", "chord", "map"})
"""Kinds that take `on_member_error`."""

COMPLETION = frozenset({"group", "map"})
"""Kinds that take `race`, `quorum` and `tolerate`."""

TASK_ONLY = frozenset({
    "args", "env", "retry", "cache", "rate_limit", "group_rate_limit", "group_rate_key",
    "group_rate_key_header", "group_rate_limiter_failure_mode", "unique", "expires",
})  # fmt: skip
"""Modifiers of a task that have no meaning yet on a composite."""

NAMES = frozenset({
    "inputs", "vars", "steps", "prev", "results", "run", "error", "self", "args", "headers", "env", "secrets", "carry",
    "params",
})  # fmt: skip
"""Names that mean something in expressions, so that a map's item cannot be called so."""

STEP_STATES = ("succeeded", "failed", "skipped", "cancelled")
"""What `steps.NAME.state` may be."""
