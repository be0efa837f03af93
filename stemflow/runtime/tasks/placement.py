"""Where a handler runs (event loop, thread or process), and which options fit its kind of function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from stemflow.errors import OptionError
from stemflow.model.policy import Options
from stemflow.runtime.tasks.callables import is_async, qualname_of, wraps_async

ExecutionMode = Literal["loop", "thread", "process"]


def execution_mode(is_async: bool, options: Options) -> ExecutionMode:
    """Where a handler runs under these options; `is_async`: calling it gives a coroutine."""
    if options.isolation == "process":
        return "process"
    return "loop" if is_async or options.isolation == "async" else "thread"


def runs_async(function: Callable[..., Any], takes_context: bool, isolation: object = None) -> bool:
    """Whether a handler is called on an event loop.

    A plain function around an async one may call it by `asyncio.run`, so it runs in a thread, and a coroutine that it
    returns is awaited. It is called on the loop if the async function takes a context, or `isolation` is `async`.
    """
    return is_async(function) or (wraps_async(function) and (takes_context or isolation == "async"))


def check_placement(where: str, function: Callable[..., Any], options: Options) -> None:
    """Refuse options that this kind of function cannot have; `where` begins the sentence. Raises OptionError."""
    may_await = is_async(function) or wraps_async(function)
    if options.isolation == "process" and "<" in (qualname := qualname_of(function)):
        raise OptionError(
            f"{where}: isolation: expected a function at the top of a module for process, which another process can "
            f"import, got {qualname}; move it there"
        )
    if is_async(function) and options.isolation == "thread":
        raise OptionError(
            f"{where}: isolation: expected async or process for an `async def`, got thread; write a plain `def` for a "
            "thread, or use process"
        )
    if not may_await and options.isolation == "async":
        raise OptionError(
            f"{where}: isolation: expected thread or process for a plain `def`, got async; it would block the event "
            "loop: write an `async def`"
        )
    if not may_await and options.soft_raises:
        raise OptionError(
            f"{where}: soft_raises: expected an `async def`, got a plain `def`, which never awaits; let it look at "
            "`context.soft_timeout`"
        )
