"""Middleware: what stands around a submission, a delivery, a call of a handler and its error, and may change them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stemflow.errors import OptionError
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.submission import Submission

HOOKS = ("on_enqueue", "on_consume", "on_execute", "on_error")


class Middleware:
    """Override what you need; each hook does its part and goes on with `await call_next(...)`.

    Those that were added first stand outermost: they come first on the way in and last on the way out.
    """

    async def on_enqueue(
        self, submission: Submission, call_next: Callable[[Submission], Awaitable[RunHandle[Any]]]
    ) -> RunHandle[Any]:
        """Around a submission, before anything is stored. Pass another one on to alter it (`msgspec.structs.replace`).

        What it raises reaches the caller of `submit`, and nothing is stored. Without `call_next` the answer must be
        the handle of a run that is there.
        """
        return await call_next(submission)

    async def on_consume(self, context: TaskContext, call_next: Callable[[], Awaitable[None]]) -> None:
        """When a worker has leased a task, before its arguments are made. Without `call_next` the task is SKIPPED.

        Raise `HandBack` to give it back, uncharged. Anything else that it raises counts as raised by the handler.
        """
        await call_next()

    async def on_execute(self, context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Around each call of the handler (`context.args`, `context.kwargs`); what it returns is the result.

        Without `call_next` it answers for the handler. What it raises counts as raised by the handler.
        """
        return await call_next()

    async def on_error(
        self, context: TaskContext, error: Exception, call_next: Callable[[Exception], Awaitable[Any]]
    ) -> Any:
        """When a call of the handler has raised. `call_next` with another error turns it; it always raises.

        Without `call_next` what is returned is the result, and the task succeeds. Not called for what a handler asks
        for (a retry, a replacement, Ignore, HandBack), for cancellation and for the hard time limit.
        """
        return await call_next(error)


class MiddlewareChain:
    """The middlewares of a registry in the order of adding; a hook that nobody overrides costs nothing."""

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
        """Put those of another chain inside these; one that is in both stands where it is."""
        for hook in HOOKS:
            setattr(self, hook, tuple(dict.fromkeys((*getattr(self, hook), *getattr(other, hook)))))

    def add(self, middleware: Middleware) -> None:
        """Put it inside those that are there; raises OptionError unless it is a Middleware that overrides a hook."""
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
        call_next = inmost
        for one in reversed(self.on_enqueue):
            call_next = _enqueue_step(one, call_next)
        return await call_next(submission)

    async def consume(self, context: TaskContext) -> bool:
        """Whether the delivery was let through."""
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
        call_next = inmost
        for one in reversed(self.on_execute):
            call_next = _step(one.on_execute, context, call_next)
        return await call_next()

    async def answer(self, context: TaskContext, error: Exception) -> Any:
        """What takes the place of a result after `error`; raises it, or what it was turned into."""

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
