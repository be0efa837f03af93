"""The engine of a command that reads or changes records: with the keys and encoders that the operator names."""

from __future__ import annotations

from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.pauses import user
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.registry import TaskRegistry


def operator_engine(arguments: Arguments) -> Stemflow:
    """An engine without a worker. `--tasks` names the registry whose signing keys and encoders it uses; without it,
    what is signed or encrypted cannot be changed or shown, and everything else can. Raises TasksNotFound."""
    return Stemflow(arguments.store, _registry(arguments.tasks), worker=False)


def operator(arguments: Arguments) -> str:
    """By whom it is done, for the audit."""
    return arguments.by or user()


def _registry(named: list[str]) -> TaskRegistry:
    if not named:
        return TaskRegistry()
    from stemflow.runtime.tasks.discovery import load_named

    return load_named(named, Path.cwd(), "--tasks")
