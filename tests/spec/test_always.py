"""A step with `run_on: always` also runs when its graph is stopped: by a failure, by its time limit, by a cancel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import indent

import pytest

from stemflow import Stemflow, TaskRegistry, load_workflow
from stemflow.runtime.runs.handle import RunHandle

CLEAN = """
  work: {task: work}
  clean:
    {needs: [work], run_on: always, timeout: 30s, task: note, args: {name: clean, state: "${{ steps.work.state }}"}}
  done: {needs: [work], run_on: done, task: note, args: {name: done}}
  after: {needs: [clean], task: note, args: {name: after}}
  last: {needs: [after, clean], run_on: always, task: note, args: {name: last, state: "${{ steps.after.state }}"}}
"""


ONE_STORE = pytest.mark.parametrize("url", ["memory:"])


@pytest.fixture
def seen(registry: TaskRegistry) -> list[str]:
    """What was called: `work` takes an hour, `note` a second, `bad` fails after a second."""
    called: list[str] = []

    @registry.task("work")
    async def work() -> None:
        called.append("work")
        await asyncio.sleep(3_600)

    @registry.task("note")
    async def note(name: str, state: str = "") -> None:
        called.append(f"{name} {state}".strip())
        await asyncio.sleep(1)

    @registry.task("bad")
    async def bad() -> None:
        await asyncio.sleep(1)
        raise ValueError("no")

    return called


async def submit(app: Stemflow, tmp_path: Path, text: str) -> RunHandle[object]:
    file = tmp_path / "flow.yaml"
    file.write_text(f'stemflow: "1"\nname: x\n{text}')
    return await app.submit(load_workflow(file))


STOPPED = ["work", "clean cancelled", "last cancelled"]


async def test_it_runs_when_the_time_of_its_graph_is_over(app: Stemflow, seen: list[str], tmp_path: Path) -> None:
    handle = await submit(app, tmp_path, f"timeout: 5s\nsteps:{CLEAN}")
    result = await handle.wait(timeout=600)
    assert (result.status, seen) == ("failed", STOPPED)
    assert result.error is not None and result.error.type == "TaskTimeout"


async def test_it_runs_when_its_run_is_cancelled_once_however_often(
    app: Stemflow, seen: list[str], tmp_path: Path
) -> None:
    handle = await submit(app, tmp_path, f"steps:{CLEAN}")
    await asyncio.sleep(5)
    await handle.cancel()
    await asyncio.sleep(0.5)
    assert seen[-1] == "clean cancelled"
    await handle.cancel()
    assert (await handle.wait(timeout=600)).status == "cancelled"
    assert seen == STOPPED


@ONE_STORE
async def test_a_cancel_does_not_interrupt_it_but_a_forced_one_does(
    app: Stemflow, seen: list[str], tmp_path: Path
) -> None:
    text = "steps:\n  a: {task: note, args: {name: a}}\n  clean: {needs: [a], run_on: always, task: work}\n"
    handle = await submit(app, tmp_path, text)
    await asyncio.sleep(5)
    await handle.cancel()
    await asyncio.sleep(10)
    assert {node.path: node.state for node in await handle.nodes()}["clean"] == "running"
    await handle.cancel(force=True)
    assert (await handle.wait(timeout=600)).status == "cancelled"


@ONE_STORE
async def test_it_does_not_begin_after_a_forced_cancel(app: Stemflow, seen: list[str], tmp_path: Path) -> None:
    handle = await submit(app, tmp_path, f"steps:{CLEAN}")
    await asyncio.sleep(5)
    await handle.cancel(force=True)
    await asyncio.sleep(10)
    assert seen == ["work"]


@ONE_STORE
@pytest.mark.parametrize(
    "text",
    [
        f"fail_fast: true\nsteps:\n  x: {{task: bad}}{CLEAN.replace('task: work', 'wait: {for: 2s}')}",
        "group:\n  x: {task: bad}\n  y:\n    steps:" + indent(CLEAN.replace("task: work", "wait: {for: 1h}"), "    "),
    ],
    ids=["fail_fast", "a failure around its graph"],
)
async def test_it_runs_when_a_failure_stops_its_graph(
    app: Stemflow, seen: list[str], tmp_path: Path, text: str
) -> None:
    result = await (await submit(app, tmp_path, text)).wait(timeout=600)
    assert (result.status, seen) == ("failed", STOPPED[1:])
