"""The declarations that workers publish, so that other processes can submit their tasks without importing them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, json, structs

from stemflow.errors import OptionError
from stemflow.model.policy import Options
from stemflow.runtime.payloads.signing import SigningError, Trust
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.store.base import Store
from stemflow.store.damaged import decoded_hints, log_once

TOPIC = "tasks"
KEPT_MS = 86_400_000
"""How long declarations are kept after a worker has published them last: a queue may have no workers over night."""

_TYPES = {field.name: field.type for field in structs.fields(Options)}


class Declaration(Struct, frozen=True, omit_defaults=True):
    """One task as a worker declares it. `options`: the fields of `Options` that it sets; `schema`: of its arguments.

    `local`: options that are functions, which only a process with the handler can call. `rest`: it has `*args`.
    `loose`: parameters that accept values which their schemas do not.
    """

    options: Mapping[str, Any] = {}
    local: tuple[str, ...] = ()
    schema: Mapping[str, Any] = {}
    rest: bool = False
    loose: tuple[str, ...] = ()


class Declarations(Struct, frozen=True):
    """The tasks of one registry. Workers of one release share them, since they are named by their digest."""

    at_ms: int
    tasks: Mapping[str, Declaration]


_decoder = json.Decoder(Declarations)


def declared_by(registry: TaskRegistry) -> dict[str, Declaration]:
    """The declarations of the tasks of a registry."""
    found = {}
    for name in sorted(registry):
        task = registry.get(name)
        assert task is not None
        own = {"params": task.params, "defaults": task.parameters.defaults}
        options = {**own, **registry.defaults, **task.options}
        local = tuple(sorted(option for option, value in options.items() if callable(value)))
        plain = {option: value for option, value in options.items() if option not in local}
        parameters = task.parameters
        found[name] = Declaration(plain, local, task.schema(), parameters.rest is not None, parameters.loose())
    return found


def digest_of(tasks: Mapping[str, Declaration]) -> str:
    return hashlib.sha256(json.encode(tasks, order="deterministic")).hexdigest()[:16]


async def publish(store: Store, digest: str, tasks: Mapping[str, Declaration], trust: Trust | None = None) -> None:
    """Store declarations, signed if `trust` has keys."""
    body = json.encode(Declarations(store.now_ms(), tasks))
    await store.put_hint(TOPIC, digest, body if trust is None else trust.wrap(body, _place(digest)), KEPT_MS)


async def published(store: Store, trust: Trust | None = None) -> dict[str, Declarations]:
    """Declarations by digest. With keys in `trust` those without a valid signature are passed over and logged."""
    trust = trust or Trust()
    found = {}
    for digest, body in (await store.hints(TOPIC)).items():
        try:
            found[digest] = trust.unwrap(body, _place(digest))
        except (SigningError, IndexError) as error:
            log_once(f"declarations of tasks are passed over: {error}")
    return decoded_hints("the declarations with digest", _decoder.decode, found)


def _place(digest: str) -> str:
    return f"declarations of tasks {digest}"


def newest(found: Iterable[Declarations]) -> dict[str, Declaration]:
    """The tasks of several declarations by name; of two declarations of a task, the later one counts."""
    tasks: dict[str, Declaration] = {}
    for one in sorted(found, key=lambda one: one.at_ms):
        tasks.update(one.tasks)
    return tasks


def options_layer(name: str, declaration: Declaration) -> dict[str, Any]:
    """The published options as a layer for `effective`; fields of another release that this one lacks are left out.

    Raises OptionError for a task with options that only a process with its handler can evaluate.
    """
    if declaration.local:
        raise OptionError(
            f"task {name}: {', '.join(declaration.local)}: expected an expression, got a function, which only a "
            "process that has registered the task can call; register it here too, or write an expression"
        )
    return {
        option: msgspec.convert(value, _TYPES[option])
        for option, value in declaration.options.items()
        if option in _TYPES
    }
