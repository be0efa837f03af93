"""What kind of callable a handler is: asynchronous or plain, behind partials, objects and wrappers; and its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stemflow.errors import OptionError

_MAIN = ("__main__", "__mp_main__")
"""Names of the main module: in the program itself, and in a process that has imported it to find a task."""


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine: an `async def`, an object with an async `__call__`, or a partial of one."""
    function = _without_partial(function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def wraps_async(function: Callable[..., Any]) -> bool:
    """Whether it is a plain function around an async one, by `functools.wraps`."""
    return not is_async(function) and any(is_async(one) for one in _layers(function))


def check_callable(where: str, function: Any) -> None:
    """Refuse what cannot be a handler; `where` begins the sentence. Raises OptionError."""
    if not callable(function):
        raise OptionError(f"{where}: expected a function to decorate, got {function!r}")
    for layer in _layers(function):
        for one in (layer, getattr(layer, "__call__", None)):  # noqa: B004
            if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
                raise OptionError(
                    f"{where}: expected a function that returns its result, got a generator, which would yield many; "
                    "return a list, or report with `context.progress`"
                )


def qualname_of(function: Callable[..., Any]) -> str:
    """The qualified name of what is called in the end; of an object, that of its class."""
    *_, inmost = _layers(function)
    return str(getattr(inmost, "__qualname__", type(inmost).__qualname__))


def derived_name(function: Callable[..., Any]) -> str:
    """The task name of a function that was given none: `module.function`.

    In the main module it is the name under which other processes import it: `tasks.add` for `python tasks.py` and for
    `python -m tasks`. Raises OptionError if there is no such name.
    """
    *_, inmost = _layers(function)
    qualname, module = getattr(inmost, "__qualname__", None), getattr(inmost, "__module__", None)
    if qualname is None or module is None:
        raise OptionError(
            f'registry.task: expected a name for {function!r}, which has none of its own; write @registry.task("name")'
        )
    if module in _MAIN:
        module = _main_module(getattr(inmost, "__globals__", {}))
        if module is None:
            raise OptionError(
                f"registry.task: expected a name for {qualname}, since other processes cannot import __main__ by the "
                f'name that it has here; write @registry.task("{qualname}"), or move it to a module'
            )
    return f"{module}.{qualname}"


def _main_module(names: dict[str, Any]) -> str | None:
    """The name under which the main module with these globals can be imported; None if it has none for certain."""
    spec, file = names.get("__spec__"), names.get("__file__")
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    if file is None:
        return None
    path = Path(file)
    importable = path.suffix == ".py" and path.stem.isidentifier() and path.stem != "__main__"
    # The file of a package is imported under a name that depends on where the search path begins.
    return path.stem if importable and not (path.parent / "__init__.py").exists() else None


def _without_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _layers(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The callable, and what it wraps, from the outside in, without partials."""
    seen = set()
    while id(function) not in seen:
        seen.add(id(function))
        function = _without_partial(function)
        yield function
        function = getattr(function, "__wrapped__", function)
