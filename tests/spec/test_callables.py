"""Handlers that are coroutine functions without looking so, and those that cannot be handlers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from stemflow import OptionError, Stemflow, SyncTaskContext, TaskContext, TaskRegistry
from stemflow.runtime.tasks.callables import derived_name


@pytest.fixture
def url() -> str:
    return "memory:"


class AsyncObject:
    async def __call__(self, x: int) -> int:
        await asyncio.sleep(0)
        return x + 1


class Traced:
    """As tracing libraries wrap functions."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


def run_to_the_end(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return asyncio.run(function(*args))

    return inner


async def plus_one(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


async def plus_one_in_context(context: TaskContext, x: int) -> int:
    assert not isinstance(context, SyncTaskContext)
    await context.heartbeat()
    return x + 1


def plus_one_later(x: int) -> Any:
    return plus_one(x)


@pytest.mark.parametrize(
    "function",
    [
        AsyncObject(), functools.partial(AsyncObject()), AsyncObject().__call__, functools.partial(plus_one),
        wrapped(plus_one), functools.partial(wrapped(plus_one)), Traced(plus_one), wrapped(plus_one_in_context),
        plus_one_later,
    ],
    ids=["object", "partial of an object", "bound call", "partial", "wrapper", "partial of a wrapper",
         "wrapping object", "wrapper with a context", "plain function that returns a coroutine"],
)  # fmt: skip
async def test_what_gives_a_coroutine_is_awaited(app: Stemflow, registry: TaskRegistry, function: Any) -> None:
    task = registry.task("shape")(function)
    assert await app.run(task.s(4)) == 5


async def test_a_wrapper_may_run_an_async_function_to_its_end(app: Stemflow, registry: TaskRegistry) -> None:
    task = registry.task("run")(run_to_the_end(plus_one))
    assert await app.run(task.s(4)) == 5


async def test_a_wrapper_of_an_async_function_runs_on_the_loop_where_the_options_say_so(
    app: Stemflow, registry: TaskRegistry
) -> None:
    loops = []

    def on_loop(*args: Any) -> Any:
        loops.append(asyncio.get_running_loop())
        return plus_one(*args)

    task = registry.task("loop", isolation="async")(functools.wraps(plus_one)(on_loop))
    assert await app.run(task.s(4)) == 5
    assert loops == [asyncio.get_running_loop()]


def many(x: int) -> Iterator[int]:
    yield x


async def many_async(x: int) -> AsyncIterator[int]:
    yield x


class Many:
    def __call__(self, x: int) -> Iterator[int]:
        yield x


@pytest.mark.parametrize(
    "function", [many, many_async, Many(), functools.partial(many), wrapped(many_async)],
    ids=["plain", "async", "object", "partial", "wrapper"],
)  # fmt: skip
def test_a_generator_is_refused_when_it_is_registered(registry: TaskRegistry, function: Any) -> None:
    with pytest.raises(OptionError, match=r"^task many: expected a function that returns its result, got a generator"):
        registry.task("many")(function)
    assert "many" not in registry


def test_what_has_no_name_of_its_own_needs_one(registry: TaskRegistry) -> None:
    with pytest.raises(OptionError, match=r"expected a name for .*AsyncObject object.*write @registry.task\("):
        registry.task()(AsyncObject())
    assert derived_name(functools.partial(plus_one)) == f"{__name__}.plus_one"


# -- the main module


def in_main(**names: Any) -> Callable[..., Any]:
    """A function of a main module with these globals."""
    names = {"__name__": "__main__", "__spec__": None, **names}
    exec("def add(): ...", names)
    found: Callable[..., Any] = names["add"]
    return found


def test_a_task_of_a_script_has_the_name_under_which_workers_import_it(tmp_path: Path) -> None:
    script = tmp_path / "shop.py"
    assert derived_name(in_main(__file__=str(script))) == "shop.add"
    assert derived_name(in_main(__name__="__mp_main__", __file__=str(script))) == "shop.add"
    assert derived_name(in_main(__spec__=ModuleSpec("shop.tasks", None), __file__=str(script))) == "shop.tasks.add"
    assert derived_name(in_main(__spec__=ModuleSpec("shop.__main__", None), __file__=str(script))) == "shop.add"


def test_a_task_of_a_main_module_that_others_cannot_import_needs_a_name(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    for names in ({}, {"__file__": str(tmp_path / "in_package.py")}, {"__file__": str(tmp_path / "my-script.py")}):
        with pytest.raises(OptionError, match=r'cannot import __main__ by the name .*write @registry.task\("add"\)'):
            derived_name(in_main(**names))
