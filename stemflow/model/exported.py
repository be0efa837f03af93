"""`to_yaml` of signatures and workflows: the text of a workflow file."""

from __future__ import annotations

from typing import Any, Protocol

from stemflow.lazy_import import LazyModule

_export: Any = LazyModule("stemflow.dsl.export")  # the layer above: imported by those programs that export


class KnownTasks(Protocol):
    """Where the parameters of tasks are known: a TaskRegistry."""

    def get(self, name: str) -> Any: ...


class Exported:
    """What can be written as a workflow file."""

    __slots__ = ()

    def to_yaml(self, registry: KnownTasks | None = None, *, name: str | None = None) -> str:
        """The text of a workflow file that has the same plan as this.

        Arguments by position and values of the step before get the names of the parameters of the task. A canvas that
        is no plain chain, group, chord or graph becomes a chain of one step.

        Args:
            registry: Has the tasks whose arguments are given by position or by the step before.
            name: Of the workflow; the default is its own name, or `workflow` for a canvas.

        Raises:
            CannotExport: A workflow file cannot hold a part of it, such as a hook of one step; the message says which.

        Example:
            `Path("order.yaml").write_text((load.si(7) | store.s()).to_yaml(registry, name="order"))`
        """
        return str(_export.to_yaml(self, registry, name=name))
