"""Spans of OpenTelemetry: one for a submission, one for each attempt, in one trace or linked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from stemflow import Canvas, OptionError, RetryPolicy, Stemflow, TaskContext, TaskRegistry, load_workflow
from stemflow.otel import instrument

SECRET = "hunter2-and-long"
FILE = """\
stemflow: "1"
name: secretive
secrets: {token: {env: TRACED_TOKEN}}
steps:
  use: {task: use, args: {token: "${{ secrets.token }}"}}
"""


class Traces:
    """What was exported, and a tracer for handlers."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def named(self, name: str) -> Sequence[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def traces() -> Traces:
    return Traces()


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_each_attempt_is_a_child_of_the_submission(traces: Traces) -> None:
    registry = TaskRegistry()
    instrument(registry, tracer_provider=traces.provider)

    at_once = RetryPolicy.of(backoff="fixed", initial="1ms", jitter=0)

    @registry.task("flaky", queue="fast", max_retries=2, retry=at_once)
    async def flaky(context: TaskContext) -> int:
        with traces.tracer.start_as_current_span("inside"):
            if context.attempt < 2:
                raise ValueError("not yet")
        return context.attempt

    async with Stemflow("memory:", registry) as app:
        handle = await app.submit(flaky.s())
        assert (await handle.wait()).value == 2
    sent, attempts, inside = traces.one("send flaky"), traces.named("process flaky"), traces.named("inside")
    assert (sent.kind, sent.attributes and sent.attributes["messaging.message.id"]) == (SpanKind.PRODUCER, handle.id)
    assert [span.attributes and span.attributes["stemflow.attempt"] for span in attempts] == [0, 1, 2]
    assert {parent_of(span) for span in attempts} == {sent.context.span_id}
    assert {span.context.trace_id for span in (*attempts, *inside)} == {sent.context.trace_id}
    assert [parent_of(span) for span in inside] == [span.context.span_id for span in attempts]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    first = attempts[0]
    assert first.attributes is not None and first.attributes["error.type"] == "ValueError"
    assert first.attributes["messaging.destination.name"] == "fast"
    assert [event.name for event in first.events] == ["exception"]


async def test_the_context_reaches_threads_and_runs_that_a_handler_starts(traces: Traces) -> None:
    registry = TaskRegistry()
    instrument(registry, tracer_provider=traces.provider)

    @registry.task("plain")
    def plain() -> None:
        traces.tracer.start_span("in a thread").end()

    @registry.task("starts")
    async def starts(context: TaskContext) -> str:
        return await context.enqueue(plain.s())

    async with Stemflow("memory:", registry) as app:
        child = await app.run(starts.s())
        await app.wait_for_task(child)
    starting = traces.one("process starts")
    sent = traces.one("send plain")
    assert parent_of(sent) == starting.context.span_id
    assert parent_of(traces.one("process plain")) == sent.context.span_id
    assert parent_of(traces.one("in a thread")) == traces.one("process plain").context.span_id


async def test_with_a_trace_for_each_step_attempts_link_to_the_submission(traces: Traces) -> None:
    registry = TaskRegistry()
    instrument(registry, tracer_provider=traces.provider, mode="step")

    @registry.task("step")
    async def step() -> None: ...

    async with Stemflow("memory:", registry) as app:
        await app.run(Canvas.group([step.s(), step.s()]))
    (sent,) = (span for span in traces.named("send run"))
    attempts = traces.named("process step")
    assert len({span.context.trace_id for span in (sent, *attempts)}) == 3
    assert [[link.context.span_id for link in span.links] for span in attempts] == [[sent.context.span_id]] * 2
    assert [parent_of(span) for span in attempts] == [None, None]
    with pytest.raises(OptionError, match="expected run or step"):
        instrument(TaskRegistry(), mode="task")  # type: ignore[arg-type]


async def test_a_traceparent_that_is_given_is_continued(traces: Traces) -> None:
    registry = TaskRegistry()
    instrument(registry, tracer_provider=traces.provider)

    @registry.task("step")
    async def step() -> None: ...

    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with Stemflow("memory:", registry) as app:
        await (await app.submit(step.s(), headers={"traceparent": given})).wait()
        with traces.tracer.start_as_current_span("request") as request:
            await (await app.submit(step.s())).wait()
    first, second = traces.named("send step")
    assert (format(first.context.trace_id, "032x"), parent_of(first)) == (given[3:35], int(given[36:52], 16))
    assert parent_of(second) == request.get_span_context().span_id
    assert trace.get_current_span().get_span_context().is_valid is False


async def test_values_of_secrets_are_in_no_span(
    traces: Traces, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRACED_TOKEN", SECRET)
    registry = TaskRegistry(max_retries=0)
    instrument(registry, tracer_provider=traces.provider)

    @registry.task("use")
    async def use(token: str) -> None:
        raise ValueError(f"refused {token}")

    path = tmp_path / "secretive.yaml"
    path.write_text(FILE)
    async with Stemflow("memory:", registry) as app:
        assert (await (await app.submit(load_workflow(path))).wait()).status == "failed"
    span = traces.one("process use")
    assert SECRET not in span.to_json()
    (event,) = span.events
    assert event.attributes is not None and event.attributes["exception.message"] == "refused ***"
    assert traces.one("send secretive").context.trace_id == span.context.trace_id
