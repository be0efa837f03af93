"""Tracing with OpenTelemetry: a span for each submission and each attempt. It needs the extra `otel`.

Nothing else in the package imports this module: without it, no work is done for traces.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from msgspec import structs
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TracerProvider

from stemflow.errors import OptionError
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.context import HandBack, Ignore, ReplaceRequested, RetryRequested, TaskContext
from stemflow.runtime.tasks.middleware import Middleware
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.retry_decision import describe
from stemflow.runtime.tasks.secrets import Redaction
from stemflow.runtime.tasks.submission import Submission
from stemflow.version import __version__

Mode = Literal["run", "step"]
_NO_FAILURES = (HandBack, Ignore, ReplaceRequested, RetryRequested)
"""What handlers raise to ask the worker for something."""


def instrument(
    registry: TaskRegistry, *, tracer_provider: TracerProvider | None = None, mode: Mode = "run"
) -> Middleware:
    """Trace the submissions and attempts of every engine that uses a registry.

    Args:
        registry: The registry. What was added to it before stays outside of the spans.
        tracer_provider: Where spans go; None: the global one of OpenTelemetry.
        mode: `run`: a run is one trace, and each attempt a child of its submission. `step`: each attempt begins a trace
            of its own, with a link to the submission.

    Returns:
        The middleware that was added.

    Raises:
        OptionError: `mode` is another one.

    Example:
        `instrument(registry, tracer_provider=provider)`
    """
    if mode not in ("run", "step"):
        raise OptionError(f"instrument: mode: expected run or step, got {mode!r:.40}")
    tracing = _Tracing(trace.get_tracer("stemflow", __version__, tracer_provider), mode)
    registry.use(tracing)
    return tracing


class _Tracing(Middleware):
    """`send NAME` (producer) around a submission, `process TASK` (consumer) around each call of a handler."""

    def __init__(self, tracer: trace.Tracer, mode: Mode) -> None:
        self._tracer, self._mode = tracer, mode

    async def on_enqueue(
        self, submission: Submission, call_next: Callable[[Submission], Awaitable[RunHandle[Any]]]
    ) -> RunHandle[Any]:
        given = dict(submission.headers)
        # A handler that submits is inside of its own span; elsewhere the headers that were given name the parent.
        parent = None if trace.get_current_span().get_span_context().is_valid else propagate.extract(given)
        name = getattr(submission.what, "name", None) or getattr(submission.what, "task", None) or "run"
        with self._tracer.start_as_current_span(
            f"send {name}", context=parent, kind=SpanKind.PRODUCER, record_exception=False,
            set_status_on_exception=False,
            attributes={"messaging.system": "stemflow", "messaging.operation.type": "send", "stemflow.workflow": name},
        ) as span:  # fmt: skip
            propagate.inject(given)
            try:
                handle = await call_next(structs.replace(submission, headers=given))
            except Exception as error:
                _fail(span, error, ())
                raise
            span.set_attribute("messaging.message.id", handle.id)
            return handle

    async def on_execute(self, context: TaskContext, call_next: Callable[[], Awaitable[Any]]) -> Any:
        sent = propagate.extract(dict(context.headers), context=Context())
        origin = trace.get_current_span(sent).get_span_context()
        alone = self._mode == "step"
        with self._tracer.start_as_current_span(
            f"process {context.name}", context=Context() if alone else sent, kind=SpanKind.CONSUMER,
            links=[Link(origin)] if alone and origin.is_valid else None, record_exception=False,
            set_status_on_exception=False, attributes=_attributes(context),
        ) as span:  # fmt: skip
            try:
                return await call_next()
            except _NO_FAILURES:
                raise
            except Exception as error:
                _fail(span, error, context.hidden)
                raise


def _attributes(context: TaskContext) -> dict[str, str | int]:
    return {
        "messaging.system": "stemflow",
        "messaging.operation.type": "process",
        "messaging.destination.name": context.queue,
        "messaging.message.id": context.id,
        "stemflow.run": context.run_id,
        "stemflow.node": context.node,
        "stemflow.attempt": context.attempt,
    }


def _fail(span: trace.Span, error: Exception, hidden: tuple[str, ...]) -> None:
    """The span failed with this error, which is its event as it would be stored: without values of secrets."""
    info = Redaction(hidden).error(describe(error))
    span.add_event(
        "exception",
        {"exception.type": info.type, "exception.message": info.message, "exception.stacktrace": info.traceback},
    )
    span.set_attribute("error.type", info.type)
    span.set_status(Status(StatusCode.ERROR, info.type))
