"""Following a run to its end: what `run`, `resume` and `rerun` share once the run exists."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stemflow.cli.arguments import DEFAULT_STORE, STORE_VARIABLE, Arguments
from stemflow.cli.exits import FINE, INTERRUPTED, RUN_FAILED
from stemflow.cli.interrupt import interrupts
from stemflow.cli.live import Watch, choose_watch, prints_aside, tree_rows
from stemflow.cli.render import counts_text, error_text
from stemflow.cli.text import json_text, short_duration, shown
from stemflow.cli.tree import Row, count_states
from stemflow.model.records import FAILED, FINAL, ErrorInfo, Node, parent_path
from stemflow.runtime.client.run_list import public_state
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.runs.handle import RunHandle, TaskResult
from stemflow.runtime.values.resolver import Values

ASKED = "returning running tasks to the queue; press Ctrl-C again to exit at once"
MOST_NAMED = 10
"""Failed steps that a summary names."""


def command(arguments: Arguments, *words: str) -> str:
    """A command to type next, on the same store and with the same tasks; `--store` is repeated as it was given, which
    may be `@FILE`."""
    implied = os.environ.get(STORE_VARIABLE, DEFAULT_STORE)
    given = getattr(arguments.store, "given", arguments.store)
    store = ("--store", given) if given != implied else ()
    if words[0] in ("resume", "rerun"):
        words += tuple(part for one in getattr(arguments, "tasks", ()) for part in ("--tasks", one))
    return f"`{shown(shlex.join(('stemflow', *words, *store)))}`"


async def follow(app: Stemflow, handle: RunHandle[Any], arguments: Arguments) -> int:
    """Show the run until it ends, then print outputs and a summary. Ctrl-C returns running tasks to the queue."""
    watch = choose_watch(sys.stderr)
    try:
        with interrupts(lambda: watch.say_at_once(ASKED), lambda: watch.say_at_once("left at once")) as asked:
            with prints_aside(watch), _failures_shown_once():
                result = await _watched(app, handle, watch, asked)
                if result is None:
                    await app.hand_back()
            watch.close()
            if result is None:
                return await _interrupted(handle, watch, arguments)
    finally:
        watch.close()
    print_result(result, arguments.json)
    rows = await tree_rows(app, handle, await handle.records(), collapse=True)
    for line in await summary(app, rows, result, arguments):
        print(line, file=sys.stderr)
    return FINE if public_state(result.status) == "succeeded" else RUN_FAILED


@contextmanager
def _failures_shown_once() -> Iterator[None]:
    """The tree and the summary show what failed, so the log does not."""
    logger = logging.getLogger("stemflow.failures")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


async def _watched(app: Stemflow, handle: RunHandle[Any], watch: Watch, asked: asyncio.Event) -> TaskResult[Any] | None:
    """How the run ended, or None when the user asked to stop first."""
    showing = asyncio.ensure_future(watch.follow(app, handle))
    ending = asyncio.ensure_future(handle.wait())
    asking = asyncio.ensure_future(asked.wait())
    try:
        waiting: set[asyncio.Future[Any]] = {showing, ending, asking}
        while not asking.done() and not (showing.done() and ending.done()):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        return ending.result() if ending.done() else None
    finally:
        for one in (showing, ending, asking):
            one.cancel()
        await asyncio.gather(showing, ending, asking, return_exceptions=True)


async def _interrupted(handle: RunHandle[Any], watch: Watch, arguments: Arguments) -> int:
    root = await handle.root()
    if root.state in FINAL:
        show = command(arguments, "show", handle.id)
        watch.say(f"run {handle.id} has ended ({public_state(root.state)}); {show} shows the details")
    elif arguments.store.startswith("memory:"):
        watch.say(f"run {handle.id} is gone: the store {arguments.store} ends with this process")
    else:
        watch.say(f"run {handle.id} stays active; {command(arguments, 'resume', handle.id)} continues it")
    if arguments.json:
        print(json_text(_result_data(handle.id, public_state(root.state), None, None)))
    return INTERRUPTED


def print_result(result: TaskResult[Any], as_json: bool) -> None:
    """The outputs on standard output: a line each, or the one object of `--json`."""
    if as_json:
        error = None if result.error is None else error_data(result.error, result.failed_at, result.attempt)
        print(json_text(_result_data(result.task_id, public_state(result.status), result.raw, error)))
    elif isinstance(result.raw, dict):
        for name, value in result.raw.items():
            print(f"{shown(name)}: {json_text(value)}")
    elif result.raw is not None:
        print(json_text(result.raw))


def _result_data(run: str, state: str, outputs: Any, error: dict[str, Any] | None) -> dict[str, Any]:
    return {"run_id": run, "state": state, "outputs": outputs, "error": error}


def error_data(error: ErrorInfo, path: str | None, attempt: int) -> dict[str, Any]:
    """An error as `--json` shows it; `attempt` counts from 1."""
    step = path or None
    return {"type": error.type, "message": error.message, "step": step, "attempt": attempt + 1, "data": error.data}


async def summary(app: Stemflow, rows: Sequence[Row], result: TaskResult[Any], arguments: Arguments) -> list[str]:
    """How the run ended, which steps failed and how, and what to type next."""
    root, state = rows[0], public_state(result.status)
    lasted = short_duration(root.lasted_ms(app.store.now_ms()) or 0)
    counts = counts_text(count_states(rows[1:] or rows))
    said = [f"{shown(root.name)} {result.task_id}: {state} after {lasted}{': ' if counts else ''}{counts}"]
    nodes = await app.store.nodes(result.task_id)
    failed = _failed_by_themselves(nodes)
    said += [f"  {await _failure(app, node)}" for node in failed[:MOST_NAMED]]
    if len(failed) > MOST_NAMED:
        said.append(f"  and {len(failed) - MOST_NAMED:,} more")
    if result.error is not None and not (failed and result.failed_at):
        said.append(f"  {shown(result.failed_at or root.name)}: {error_text(result.error)}")
    if state != "succeeded" and not app.store.url.startswith("memory:"):
        said.append(f"next: {command(arguments, 'rerun', result.task_id, '--failed')} runs again what did not succeed, "
                    f"{command(arguments, 'show', result.task_id)} shows the details")  # fmt: skip
    return said


def _failed_by_themselves(nodes: Sequence[Node]) -> list[Node]:
    """Tasks that failed, and scopes below the run that did though nothing in them failed, such as a map without a
    list."""
    failed = [node for node in nodes if node.state == FAILED and node.path]
    around = {above for node in failed for above in _above(node.path)}
    return [node for node in failed if node.path not in around]


def _above(path: str) -> Iterator[str]:
    while path := parent_path(path):
        yield path


async def _failure(app: Stemflow, node: Node) -> str:
    error = await Values(app.library).error_of(node)
    attempt = f" in attempt {node.attempt + 1}" if node.attempt else ""
    return f"{shown(node.path or 'the task')} failed{attempt}: {error_text(error)}"
