"""What the commands receive: the options and arguments of one call, by their parameter names."""

from __future__ import annotations

from types import SimpleNamespace

DEFAULT_STORE = "sqlite:"
STORE_VARIABLE = "STEMFLOW_STORE"
"""The environment variable that names the store where `--store` is not given."""

TASKS_VARIABLE = "STEMFLOW_TASKS"
"""The environment variable that names modules of tasks, separated by spaces, where `--tasks` is not given."""


class Arguments(SimpleNamespace):
    """One call of a command. `--from STEP` is `from_step`, `--dry-run` is `dry_run`, and so on."""
