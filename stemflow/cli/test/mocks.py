"""Mocks: functions that are called instead of the handlers of tasks."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stemflow.dsl.cases import MOCK_NAMES, Mock, MockError
from stemflow.expr import STEPS, ExpressionError, parse_template
from stemflow.model.subworkflow import START_RUN
from stemflow.runtime.tasks.context import Reject


class Mocked:
    """The mocks of one case; `unmocked` are the tasks that were called and have none."""

    def __init__(self, mocks: Mapping[str, tuple[Mock, ...]]) -> None:
        self._mocks = mocks
        self.unmocked: list[str] = []

    def stubs(self, tasks: set[str], real: bool) -> dict[str, Callable[..., Awaitable[Any]]]:
        """A stub for each task; with `real`, those without a mock keep their handlers."""
        names = {*self._mocks} if real else {*self._mocks, *tasks}
        stubs = {name: self._stub(name) for name in names}
        return {**stubs, START_RUN: _not_started} if START_RUN in tasks else stubs

    def _stub(self, task: str) -> Callable[..., Awaitable[Any]]:
        mocks = self._mocks.get(task, ())
        calls: list[None] = []

        async def stub(*args: Any, **kwargs: Any) -> Any:
            if not mocks:
                self.unmocked.append(task)
                raise Reject(f"the case has no mock of the task {task}")
            calls.append(None)
            number = len(calls)
            mock = mocks[min(number, len(mocks)) - 1]
            if mock.delay_ms:
                await asyncio.sleep(mock.delay_ms / 1_000)
            if mock.error is not None:
                raise made_error(mock.error)
            return value_of(mock.value, {"args": kwargs, "call": number}, task)

        return stub


async def _not_started(*args: Any, **kwargs: Any) -> dict[str, str]:
    """What a step with `wait: false` gives in a case: the case is about one run, so the other one is not started."""
    return {"run_id": "not-started-in-a-case"}


def value_of(value: Any, names: Mapping[str, Any], task: str) -> Any:
    """The value of a mock, its expressions evaluated."""
    try:
        return parse_template(value, MOCK_NAMES)(names, STEPS)
    except ExpressionError as error:
        raise Reject(f"the value of the mock of {task}: {error.message}") from None


def made_error(error: MockError) -> BaseException:
    """An exception of the named type: stemflow's Reject, a built-in one, or a class made for it."""
    if error.type == "Reject":
        return Reject(error.message)
    known = getattr(builtins, error.type, None)
    if isinstance(known, type) and issubclass(known, Exception) and not error.bases and error.data is None:
        return known(error.message)
    base: tuple[type, ...] = tuple(_class(name, (Exception,)) for name in error.bases) or (Exception,)
    raised: BaseException = _class(error.type, base)(error.message)
    raised.data = error.data  # type: ignore[attr-defined]
    return raised


def _class(name: str, bases: tuple[type, ...]) -> type:
    found = getattr(builtins, name, None)
    if isinstance(found, type) and issubclass(found, Exception) and bases == (Exception,):
        return found
    module, _, simple = name.rpartition(".")
    return type(simple, bases, {"__module__": module or "mocks"})
