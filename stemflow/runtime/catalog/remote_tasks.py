"""Looking up tasks: in the registry of this process, and in the declarations of workers."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from msgspec import structs

from stemflow.model.signature import TaskSig
from stemflow.runtime.catalog.published import Declaration, newest, options_layer, published
from stemflow.runtime.catalog.remote_parameters import declared_parameters
from stemflow.runtime.payloads.signing import Trust
from stemflow.runtime.tasks.parameters import Parameters
from stemflow.runtime.tasks.registry import RemoteOptions, TaskRegistry
from stemflow.runtime.values.library import Library
from stemflow.store.base import Store

FRESH_MS = 10_000
"""How long declarations that were read are used before they are read again, in milliseconds."""


class RemoteTasks:
    """The tasks that a process can submit: those of its registry, and those that workers have declared."""

    def __init__(self, store: Store, registry: TaskRegistry, library: Library | None = None) -> None:
        self.store, self.registry = store, registry
        self._trust = Trust() if library is None else library.trust
        self._encoders = registry.encoders if library is None else library.encoders
        self.known: dict[str, Declaration] = {}
        self._parameters: dict[str, Parameters] = {}
        self._read_at_ms: int | None = None

    async def read(self) -> Mapping[str, Declaration]:
        """Read the declarations from the store. Raises StoreError."""
        found = newest((await published(self.store, self._trust)).values())
        self.known = {name: self._protected(one) for name, one in found.items()}
        self._parameters.clear()
        self._read_at_ms = self.store.now_ms()
        return self.known

    async def look(self, names: Set[str], allow_unknown: bool = False) -> RemoteOptions | None:
        """The function that gives the options of those of `names` that are not registered here; None if all are.

        `allow_unknown`: a task that nobody has declared has no options, instead of being refused. Raises StoreError.
        """
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

    def _protected(self, declaration: Declaration) -> Declaration:
        """The declaration without encoders that protect less than the defaults here."""
        options, encoders = dict(declaration.options), self._encoders
        for option, default in (("args_encoder", encoders.args), ("result_encoder", encoders.results)):
            if encoders.protects(default) and not encoders.protects(str(options.get(option) or default)):
                del options[option]
        return structs.replace(declaration, options=options)

    def parameters(self, task: str) -> Parameters | None:
        """The parameters of a task; None if it is neither registered nor in the declarations that were read last."""
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
