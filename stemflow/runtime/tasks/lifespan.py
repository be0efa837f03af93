"""What a program sets up before its tasks run and takes down afterwards: for workers, pool processes and threads."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, TypeVar

from stemflow.errors import OptionError

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("stemflow.service")


class Lifespans:
    """The lifespans and thread clean-ups of a registry, or of several that were merged."""

    def __init__(self) -> None:
        self._of_workers: list[Callable[[], AbstractAsyncContextManager[Any]]] = []
        self._of_processes: list[Callable[[], AbstractContextManager[Any]]] = []
        self._clean_ups: list[Callable[[], object]] = []

    def add(self, function: Callable[..., Any]) -> None:
        """Add a lifespan: an async one for workers, or a plain one for pool processes. Raises OptionError."""
        inner = inspect.unwrap(function)
        if inspect.isasyncgenfunction(function):
            self._add(self._of_workers, asynccontextmanager(function), "workers", "async")
        elif inspect.isgeneratorfunction(function):
            self._add(self._of_processes, contextmanager(function), "pool processes", "plain")
        elif inspect.isasyncgenfunction(inner) or hasattr(inner, "__aenter__"):
            self._add(self._of_workers, function, "workers", "async")
        elif inspect.isgeneratorfunction(inner) or hasattr(inner, "__enter__"):
            self._add(self._of_processes, function, "pool processes", "plain")
        else:
            raise OptionError(
                f"registry.lifespan: expected a function with one `yield` (`async def` for workers, `def` for pool "
                f"processes) or a class of context managers, got {function!r}"
            )

    def _add(self, among: list[Any], made: Any, where: str, kind: str) -> None:
        if among:
            raise OptionError(
                f"registry.lifespan: expected one {kind} lifespan for {where}, got a second one; enter both in one "
                "function"
            )
        among.append(made)

    def add_clean_up(self, function: Callable[[], object]) -> None:
        """Add a function that is called in the thread of a plain function when that has ended. Raises OptionError."""
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise OptionError(f"registry.thread_cleanup: expected a plain function, got {function!r}")
        self._clean_ups.append(function)

    @property
    def in_processes(self) -> bool:
        """Whether anything is set up in processes of the pool."""
        return bool(self._of_processes)

    def join(self, other: Lifespans) -> None:
        """Add those of another registry."""
        self._of_workers += other._of_workers
        self._of_processes += other._of_processes
        self._clean_ups += other._clean_ups

    @asynccontextmanager
    async def of_worker(self) -> AsyncIterator[Any]:
        """The state that the handlers of a worker share; raises what a lifespan raises."""
        async with AsyncExitStack() as stack:
            yield _merged([await stack.enter_async_context(enter()) for enter in self._of_workers])

    @contextmanager
    def of_process(self) -> Iterator[Any]:
        """The state of the handlers in a process of the pool; raises what a lifespan raises."""
        with ExitStack() as stack:
            yield _merged([stack.enter_context(enter()) for enter in self._of_processes])

    def clean_up(self) -> None:
        """Call the clean-ups of a thread; what one raises is logged."""
        for function in self._clean_ups:
            try:
                function()
            except Exception:
                log.exception("the thread clean-up %r raised", function)


def _merged(states: Sequence[Any]) -> Any:
    """The one state; of several, which must be mappings, the union. Raises OptionError."""
    if len(states) <= 1:
        return states[0] if states else None
    merged: dict[str, Any] = {}
    for state in states:
        if state is not None and not isinstance(state, Mapping):
            raise OptionError(
                f"registry.lifespan: expected a mapping from each of several registries, got {type(state).__name__}; "
                "let each yield a dict"
            )
        both = merged.keys() & (state or {}).keys()
        if both:
            raise OptionError(f"registry.lifespan: expected different names, got {', '.join(sorted(both))} twice")
        merged.update(state or {})
    return merged
