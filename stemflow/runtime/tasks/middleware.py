"""Middleware: wraps submissions, deliveries, calls of handlers and their errors, and may change them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stemflow.errors import OptionError
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.submission import Submission

HOOKS = ("on_enqueue", "on_consume", "on_execute", "on_error")


class Middleware:
    """Base class of middlewares: override the hooks that you need, and go on with `await call_next(...)`.

    The middleware that was added first is the outermost.

        class Timing(Middleware):
            async def on_execute(self, context, call_next):
                start = time.perf_counter()
                try:
                    return await call_next()
                finally:
                    context.logger.info("took %.3f s", time.perf_counter() - start)

        registry.use(Timing())
    """

    async def on_enqueue(
        self, submission: Submission, call_next: Callable[[Submission], Awaitable[RunHandle[Any]]]
    ) -> RunHandle[Any]:
        """Wraps a `submission`, before anything is stored. Pass a changed one to `call_next` (`structs.replace`).

        What it raises reaches the caller of `submit`, and nothing is stored. A hook that does not call `call_next` must
        return the handle of an existing run.
        """
        return await call_next(submission)

    async def on_consume(self, context: TaskContext, call_next: Callable[[], Awaitable[None]]) -> None:
        """Wraps a delivery: a worker has leased the task of `context`, and its arguments are not evaluated yet.

        If `call_next` is not called, the task is SKIPPED. Raise `HandBack` to give the task back without counting an
        attempt; any other exception fails the attempt as if the handler had raised it.
        """
        await call_next()

    async def on_execute(self, context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Wraps each call of the handler; what it returns is the result, and what it raises fails the attempt.

        `context.args` and `context.kwargs` are the arguments. A hook that does not call `call_next` replaces the call.
        """
        return await call_next()

    async def on_error(
        self, context: TaskContext, error: Exception, call_next: Callable[[Exception], Awaitable[Any]]
    ) -> Any:
        """Called when the handler has raised `error` in the attempt of `context`; `call_next` raises what it is given.

        A hook that returns without calling `call_next` gives the result, and the task succeeds. It is not called for
        requests of the handler (a retry, a replacement, Ignore, HandBack), cancellation and the hard time limit.
        """
        return await call_next(error)


class MiddlewareChain:
    """The middlewares of a registry by hook, in the order in which they were added."""

    def __init__(self) -> None:
        self.on_enqueue: tuple[Middleware, ...] = ()
        self.on_consume: tuple[Middleware, ...] = ()
        self.on_execute: tuple[Middleware, ...] = ()
        self.on_error: tuple[Middleware, ...] = ()

    def copy(self) -> MiddlewareChain:
        twin = MiddlewareChain()
        for hook in HOOKS:
            setattr(twin, hook, getattr(self, hook))
        return twin

    def join(self, other: MiddlewareChain) -> None:
        """Add the middlewares of another chain inside these, without those that are here already."""
        for hook in HOOKS:
            setattr(self, hook, tuple(dict.fromkeys((*getattr(self, hook), *getattr(other, hook)))))

    def add(self, middleware: Middleware) -> None:
        """Add a middleware inside the others. Raises OptionError unless it is a Middleware that overrides a hook."""
        if not isinstance(middleware, Middleware):
            raise OptionError(f"use: expected an instance of a Middleware, got {middleware!r}")
        kind = type(middleware)
        hooks = [hook for hook in HOOKS if getattr(kind, hook) is not getattr(Middleware, hook)]
        if not hooks:
            raise OptionError(f"use: expected {kind.__qualname__} to override one of {', '.join(HOOKS)}; it has none")
        for hook in hooks:
            setattr(self, hook, (*getattr(self, hook), middleware))

    async def enqueue(
        self, submission: Submission, inmost: Callable[[Submission], Awaitable[RunHandle[Any]]]
    ) -> RunHandle[Any]:
        """Call the hooks `on_enqueue` around `inmost`, which stores the run."""
        call_next = inmost
        for one in reversed(self.on_enqueue):
            call_next = _enqueue_step(one, call_next)
        return await call_next(submission)

    async def consume(self, context: TaskContext) -> bool:
        """Call the hooks `on_consume`; return whether all of them let the delivery through."""
        through = False

        async def inmost() -> None:
            nonlocal through
            through = True

        call_next = inmost
        for one in reversed(self.on_consume):
            call_next = _step(one.on_consume, context, call_next)
        await call_next()
        return through

    async def execute(self, context: TaskContext, inmost: Callable[[], Awaitable[Any]]) -> Any:
        """Call the hooks `on_execute` around `inmost`, which calls the handler."""
        call_next = inmost
        for one in reversed(self.on_execute):
            call_next = _step(one.on_execute, context, call_next)
        return await call_next()

    async def answer(self, context: TaskContext, error: Exception) -> Any:
        """Call the hooks `on_error`: return the result that one gives instead, or raise the error that they leave."""

        async def inmost(last: Exception) -> Any:
            raise last

        call_next = inmost
        for one in reversed(self.on_error):
            call_next = _error_step(one, context, call_next)
        return await call_next(error)


def _step(hook: Callable[..., Awaitable[Any]], context: TaskContext, call_next: Any) -> Any:
    return lambda: hook(context, call_next)


def _enqueue_step(one: Middleware, call_next: Any) -> Any:
    return lambda submission: one.on_enqueue(submission, call_next)


def _error_step(one: Middleware, context: TaskContext, call_next: Any) -> Any:
    return lambda error: one.on_error(context, error, call_next)
