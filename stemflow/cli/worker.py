"""`stemflow worker`: serve the queues of a store until a signal stops it, in this process or in several."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TextIO

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, RUN_FAILED, Refused
from stemflow.cli.fleet import PARENT, serve_many
from stemflow.cli.metrics_server import serve_metrics
from stemflow.cli.stopping import Stopping
from stemflow.cli.text import short_duration, shown
from stemflow.errors import StemflowError
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.discovery import find_tasks
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.worker.reconnect_backoff import ReconnectBackoff
from stemflow.runtime.worker.service import Service
from stemflow.runtime.worker.slots import Slots
from stemflow.store.base import StoreUnavailable

log = logging.getLogger("stemflow.cli.worker")

LOOK_FOR_PARENT_S: Final = 1.0
EXHAUSTED_S: Final = 10.0
"""After all slots have been taken by disowned handlers for so long, the worker ends."""
NAMED: Final = 8
"""Tasks and queues that the first line names."""


def main(arguments: Arguments) -> int:
    """Serve until a signal; the exit code is FINE after a signal, RUN_FAILED if the worker could not go on."""
    with _log_to_stderr(arguments):
        if arguments.processes > 1:
            return serve_many(arguments)
        registry = find_tasks(arguments.tasks, None)
        if not len(registry):
            log.warning("no task is registered: this worker can run nothing")
        return asyncio.run(_serve(arguments, registry))


async def _serve(arguments: Arguments, registry: TaskRegistry) -> int:
    app = Stemflow(
        arguments.store, registry, concurrency=arguments.concurrency, queues=arguments.queues, name=arguments.name,
        unroutable_after=arguments.unroutable_after / 1_000,
    )  # fmt: skip
    with Stopping(arguments.grace) as stopping:
        orphan = asyncio.create_task(_orphaned(stopping.warm))
        try:
            if not await _open(app, stopping.warm):
                return FINE
            async with app:
                log.info(_first_line(arguments, app))
                async with _metrics(arguments, app):
                    code = await _serve_until_stopped(app, stopping, arguments.grace)
        finally:
            orphan.cancel()
    if app.service is not None and any(not work.done() for work in app.service.slots.leaked):
        _end_process(code)
    return code


@asynccontextmanager
async def _metrics(arguments: Arguments, app: Stemflow) -> AsyncIterator[None]:
    """Serve the metrics of the store meanwhile, if that is asked for."""
    if arguments.metrics_port is None:
        yield
        return
    try:
        server = await serve_metrics(app.metrics, arguments.metrics_bind, arguments.metrics_port)
    except OSError as error:
        where = f"{arguments.metrics_bind}:{arguments.metrics_port}"
        raise Refused(f"--metrics-port: cannot listen on {where}: {error.strerror}") from error
    host, port = server.sockets[0].getsockname()[:2]
    log.info("metrics at http://%s:%d/metrics", host, port)
    try:
        yield
    finally:
        server.close()


def _end_process(code: int) -> None:
    """End at once: the event loop would wait for the end of handlers that do not end."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _open(app: Stemflow, stop: asyncio.Event) -> bool:
    """Connect, with retries while the store does not answer; False if the worker is stopped before."""
    backoff = ReconnectBackoff(app.ids.run_id(), 0.2, 10.0)
    while not stop.is_set():
        try:
            await app.store.open()
            return True
        except StoreUnavailable as error:
            pause = backoff.next_s()
            log.warning("%s; trying again in %.1f s", error, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
    return False


async def _serve_until_stopped(app: Stemflow, stopping: Stopping, grace_ms: int) -> int:
    assert app.service is not None
    ended = asyncio.create_task(_cannot_go_on(app.service))
    warm, soft = asyncio.create_task(stopping.warm.wait()), asyncio.create_task(stopping.soft.wait())
    await asyncio.wait((ended, warm), return_when=asyncio.FIRST_COMPLETED)
    if not warm.done():
        log.critical("the worker cannot go on (%s); its tasks are returned to the queue, or leased again when their "
                     "leases expire", ended.exception())  # fmt: skip
        soft.cancel()
        return RUN_FAILED
    draining = asyncio.create_task(app.service.stop(grace_ms))
    await asyncio.wait((draining, soft), return_when=asyncio.FIRST_COMPLETED)
    if soft.done():
        await app.service.stop(0)
    await draining
    soft.cancel()
    await asyncio.wait((ended,))
    log.info("stopped; nothing is leased here any more")
    return FINE if ended.exception() is None else RUN_FAILED


async def _cannot_go_on(service: Service) -> None:
    """Return when the worker has stopped; raise the error that ended it, or that it has lost all its slots."""
    ended, exhausted = asyncio.create_task(service.ended()), asyncio.create_task(_exhausted(service.slots))
    try:
        await asyncio.wait((ended, exhausted), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        else:
            exhausted.result()
    finally:
        ended.cancel()
        exhausted.cancel()


async def _exhausted(slots: Slots, after_s: float = EXHAUSTED_S) -> None:
    """Raise StemflowError once handlers that were disowned have taken all slots for `after_s` seconds."""
    loop = asyncio.get_running_loop()
    since = None
    while since is None or loop.time() - since < after_s:
        await asyncio.sleep(after_s / 10)
        if len(slots.leaked) < slots.concurrency:
            since = None
        elif since is None:
            since = loop.time()
    names = sorted({one.context.name for one in slots.leaked.values() if one.context is not None})
    raise StemflowError(
        f"all {slots.concurrency} slots are taken by handlers that do not end ({', '.join(names)}); "
        "give such tasks isolation='process'"
    )


async def _orphaned(stop: asyncio.Event) -> None:
    """Stop the worker when the fleet process that started it has died."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    while os.getppid() == int(parent):  # noqa: ASYNC110  a process is not notified when its parent dies
        await asyncio.sleep(LOOK_FOR_PARENT_S)
    log.warning("the parent process has gone; stopping as after SIGTERM")
    stop.set()


def _first_line(arguments: Arguments, app: Stemflow) -> str:
    assert app.service is not None
    tasks = sorted(app.registry)
    names = ", ".join(tasks[:NAMED]) + (", ..." if len(tasks) > NAMED else "")
    queues = f"queues {shown(', '.join(arguments.queues))}" if arguments.queues else "every queue"
    return (
        f"worker {shown(app.service.presence.name)} serves {shown(app.store.url)}; {queues}; "
        f"{len(tasks)} task{'s' if len(tasks) != 1 else ''} ({shown(names)}); {arguments.concurrency} at once. "
        f"Ctrl-C lets running tasks continue for {short_duration(arguments.grace)}, twice returns them to the queue"
    )


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error unless the program has configured logging itself: each line is printed once."""

    def emit(self, record: logging.LogRecord) -> None:
        others = (*logging.getLogger("stemflow").handlers, *logging.getLogger().handlers)
        if all(other is self or isinstance(other, logging.NullHandler) for other in others):
            super().emit(record)


class _Shown(logging.Formatter):
    """`12:00:01.123 worker: text`; whatever a task's text holds cannot steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        clock = f"{self.formatTime(record, '%H:%M:%S')}.{int(record.msecs):03d}"
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = f"{clock} {os.getpid()} {level}{shown(record.getMessage())}"
        trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        return "\n".join([text, *(shown(line) for line in trace.rstrip().split("\n"))]) if trace else text


@contextmanager
def _log_to_stderr(arguments: Arguments) -> Iterator[None]:
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Shown())
    root = logging.getLogger("stemflow")
    root.addHandler(handler)
    before = root.level
    root.setLevel(logging.DEBUG if arguments.verbose else logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
