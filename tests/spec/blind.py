"""A pytest plugin that takes one thing away, named by the environment variable STEMFLOW_BLIND: the tests that are said
to be about it must fail then. `option.NAME`: nobody reads that option. `policy.NAME`: RetryPolicy.of does not.
`context.NAME`: that member of TaskContext says and does nothing.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

from stemflow import RetryPolicy, TaskContext
from stemflow.model import policy


def blind_to(what: str) -> None:
    kind, _, name = what.partition(".")
    {"option": _option, "policy": _policy, "context": _context}[kind](name)


def _option(name: str) -> None:
    if name == "cache":
        policy._cache = lambda given, where: {}
        return
    read = policy._READ[name]

    def blind(value: Any) -> tuple[str, Any]:
        field = read(value)[0]
        return field, getattr(policy.Options(), field)

    policy._READ[name] = blind


def _policy(name: str) -> None:
    made = RetryPolicy.of

    def of(**given: Any) -> RetryPolicy:
        return made(**{key: value for key, value in given.items() if key != name})

    RetryPolicy.of = of  # type: ignore[method-assign]


def _context(name: str) -> None:
    async def nothing(self: TaskContext, *args: Any, **kwargs: Any) -> None: ...

    is_call = inspect.isfunction(getattr(TaskContext, name))
    setattr(TaskContext, name, nothing if is_call else property(lambda _: None, lambda _, value: None))


if "STEMFLOW_BLIND" in os.environ:
    blind_to(os.environ["STEMFLOW_BLIND"])
