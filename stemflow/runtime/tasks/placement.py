"""Where a handler runs (event loop, thread or process), and which options fit its kind of function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from stemflow.errors import OptionError
from stemflow.model.policy import Options

ExecutionMode = Literal["loop", "thread", "process"]


def execution_mode(is_async: bool, options: Options) -> ExecutionMode:
    """The place where a handler of this kind runs under these options."""
    if options.isolation == "process":
        return "process"
    return "loop" if is_async else "thread"


def check_place(where: str, function: Callable[..., Any], options: Options) -> None:
    """Refuse options that this kind of function cannot have; `where` begins the sentence. Raises OptionError."""
    is_async = inspect.iscoroutinefunction(function)
    if options.isolation == "process" and "<" in (qualname := inspect.unwrap(function).__qualname__):
        raise OptionError(
            f"{where}: isolation: expected a function at the top of a module for process, which another process can "
            f"import, got {qualname}; move it there"
        )
    if is_async and options.isolation == "thread":
        raise OptionError(
            f"{where}: isolation: expected async or process for an `async def`, got thread; write a plain `def` for a "
            "thread, or use process"
        )
    if not is_async and options.isolation == "async":
        raise OptionError(
            f"{where}: isolation: expected thread or process for a plain `def`, got async; it would block the event "
            "loop: write an `async def`"
        )
    if not is_async and options.soft_raises:
        raise OptionError(
            f"{where}: soft_raises: expected an `async def`, got a plain `def`, which never awaits; let it look at "
            "`context.soft_timeout`"
        )
