"""Tasks that are registered in other processes, as their workers have declared them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from stemflow.model.signature import TaskSig
from stemflow.runtime.catalog.published import Declaration, newest, options_layer, published
from stemflow.runtime.catalog.remote_parameters import declared_parameters
from stemflow.runtime.tasks.parameters import Parameters
from stemflow.runtime.tasks.registry import RemoteOptions, TaskRegistry
from stemflow.store.base import Store

FRESH_MS = 10_000
"""How long declarations that were read are taken for current by one who submits again and again."""


class RemoteTasks:
    """What a process that submits knows of tasks: of those in its registry, and of others what was declared last."""

    def __init__(self, store: Store, registry: TaskRegistry) -> None:
        self.store, self.registry = store, registry
        self.known: dict[str, Declaration] = {}
        self._parameters: dict[str, Parameters] = {}
        self._read_at_ms: int | None = None

    async def read(self) -> Mapping[str, Declaration]:
        """The declarations as they now are."""
        self.known = newest((await published(self.store)).values())
        self._parameters.clear()
        self._read_at_ms = self.store.now_ms()
        return self.known

    async def look(self, names: Set[str], allow_unknown: bool = False) -> RemoteOptions | None:
        """How `TaskRegistry.options_of` finds the options of those of `names` that are not registered here; None when
        all are."""
        missing = {name for name in names if name not in self.registry}
        if not missing:
            return None
        at_ms = self._read_at_ms
        if at_ms is None or self.store.now_ms() - at_ms >= FRESH_MS or not missing <= self.known.keys():
            await self.read()

        def options(name: str) -> Mapping[str, Any] | None:
            found = self.known.get(name)
            return options_layer(name, found) if found is not None else {} if allow_unknown else None

        return options

    def parameters(self, task: str) -> Parameters | None:
        """What a task may be called with; None for one that was unknown at the last look."""
        own = self.registry.get(task)
        if own is not None:
            return own.parameters
        found = self._parameters.get(task)
        if found is None and task in self.known:
            found = self._parameters[task] = declared_parameters(task, self.known[task])
        return found

    def args_encoder(self, sig: TaskSig[Any, Any] | None, default: str) -> str:
        """The id of the encoder of a call's arguments."""
        if sig is None:
            return default
        declared = self.known.get(sig.task) if sig.task not in self.registry else None
        return self.registry.args_encoder_of(sig, {} if declared is None else declared.options) or default
