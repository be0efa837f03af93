"""The tables of docs/rules.md about steps that wait, and about what a stop does, hold on every store."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from stemflow import RunHandle, Stemflow, TaskRegistry
from stemflow.dsl.vocabulary import KINDS
from stemflow.runtime.client.workflow_files import WorkflowFile
from stemflow.runtime.tasks.context import Reject
from tests.core.test_rules import PAGE, tables

WAITING, STOPS = tables(PAGE.read_text("utf-8"))[4:6]
SLOW = {"task": "slow"}
CALLED = 'stemflow: "1"\nname: called\ninputs: {n: {type: integer, default: 1}}\nsteps: {a: {task: slow}}\n'
FAILS = 'stemflow: "1"\nname: fails\nsteps: {a: {task: bad}}\n'


@pytest.fixture(autouse=True)
def tasks(registry: TaskRegistry) -> None:
    @registry.task("slow")
    async def slow() -> None:
        await asyncio.sleep(5)

    @registry.task("second")
    async def second() -> None:
        await asyncio.sleep(1)

    @registry.task("bad")
    async def bad() -> None:
        await asyncio.sleep(1)
        raise Reject("no")

    @registry.task("away")
    async def away() -> None:
        raise ConnectionError("away")

    for text in (CALLED, FAILS):
        called = WorkflowFile.of(text, "called.yaml").checked(registry).workflow
        assert called is not None
        registry.add_workflow(called)


async def submitted(app: Stemflow, registry: TaskRegistry, steps: dict[str, Any]) -> RunHandle[Any]:
    """A run of a file with these steps."""
    text = json.dumps({"stemflow": "1", "name": "rules", "inputs": {"n": {"default": 1}}, "steps": steps})
    checked = WorkflowFile.of(text, "rules.yaml").checked(registry)
    assert checked.workflow is not None and not checked.fails, checked.found
    return await app.submit(checked.workflow)


async def states(handle: RunHandle[Any], below: str = "") -> dict[str, str]:
    """How each step ended, in the words of the page; a step without a record was skipped by its condition."""
    return {
        node.path.removeprefix(below): " ".join([node.state.upper(), node.cause or ""]).strip()
        for node in await handle.records()
    }


# -- steps that wait, send, compute and call


def waiting_step(words: str, what: str) -> dict[str, Any]:
    """The step of a row: its kind, its further keys, and what happens to it."""
    kind, *more = (one.strip() for one in words.split(","))
    body: Any = {
        "wait": {"for": "1s"},
        "event": {"type": "came" if what == "the event comes" else "never"},
        "approval": {},
        "emit": {"type": "sent", "data": "${{ 1 // (inputs.n - 1) }}" if "cannot" in what else 1},
        "set": {"value": "${{ 1 // (inputs.n - 1) }}" if "cannot" in what else 1},
        "fail": {"message": "no"},
        "workflow": {"ref": "fails" if what == "the other one fails" else "called"},
    }[kind]
    if what == "its time is over" and kind != "wait":
        body["timeout"] = "2s"
    if what == "its inputs do not fit":
        body["inputs"] = {"n": "${{ from_json(json(inputs)) }}"}
    body |= dict(re.split(r": ", one) for one in more)
    return {kind: body} | ({"when": "inputs.n > 1"} if what == "its when is false" else {})


async def test_steps_that_wait_send_and_call_end_as_the_page_says(app: Stemflow, registry: TaskRegistry) -> None:
    # Given every row of the table as a step of one run
    rows = {f"r{number}": row for number, row in enumerate(WAITING[1:])}
    steps = {name: waiting_step(words, what) | {"on_error": "continue"} for name, (words, what, _) in rows.items()}
    handle = await submitted(app, registry, steps)

    # When what the rows name happens
    await asyncio.sleep(1)
    await app.send_event("came", {})
    for name, (_, what, _) in rows.items():
        if what == "it is approved":
            await app.approve(handle.id, name, by="ann")
        elif what == "it is rejected":
            await app.reject(handle.id, name, by="ann")
    assert (await handle.wait()).status == "succeeded"

    # Then each step has ended as its row says
    found = await states(handle)
    did = {f"{words}: {what}": found.get(name, "SKIPPED condition") for name, (words, what, _) in rows.items()}
    assert did == {f"{words}: {what}": said for words, what, said in rows.values()}


# -- what a stop does

LATER = {"max": 1, "backoff": {"kind": "fixed", "initial": "9s"}}
STOPPED: dict[str, dict[str, Any]] = {
    "task that runs": SLOW,
    "task that waits for its retry": {"task": "away", "retry": LATER},
    "wait": {"wait": {"until": "2100-01-01T00:00:00Z"}},
    "event": {"event": {"type": "never"}},
    "approval": {"approval": {}},
    "chain": {"chain": [SLOW, SLOW]},
    "group": {"group": [SLOW, SLOW]},
    "chord": {"chord": {"group": [SLOW], "then": SLOW}},
    "map": {"map": {"items": [1, 2], "do": SLOW}},
    "map of one at a time": {"map": {"items": [1, 2], "concurrency": 1, "do": SLOW}},
    "loop": {"loop": {"max": 2, "do": SLOW}},
    "switch": {"switch": {"on": "inputs.n", "cases": {"1": SLOW}, "default": SLOW}},
    "steps": {"steps": {"x": SLOW}},
    "workflow": {"workflow": {"ref": "called"}},
}
BY_STOP: dict[str, dict[str, Any]] = {
    "fail_fast": {"stopped": {"task": "bad"}},
    "race": {"stopped": {"task": "second"}},
    "timeout": {},
    "cancel": {},
    "cancel --force": {},
}


@pytest.mark.parametrize("stop", BY_STOP)
async def test_a_stop_ends_what_waits_and_runs_as_the_page_says(
    app: Stemflow, registry: TaskRegistry, stop: str
) -> None:
    # Given a group with a member of each kind, of which nothing has ended
    names = {f"m{number}": kind for number, kind in enumerate(STOPPED)}
    members = {name: STOPPED[kind] for name, kind in names.items()}
    group: dict[str, Any] = {"group": members | BY_STOP[stop], "on_error": "continue"}
    group |= {"timeout": {"timeout": "1500ms"}, "race": {"race": True}}.get(stop, {})
    handle = await submitted(app, registry, {"g": group})

    # When it is stopped
    if stop.startswith("cancel"):
        await asyncio.sleep(1.5)
        await handle.cancel(force=stop.endswith("--force"))
    await handle.wait()

    # Then each member has ended as the page says
    found = await states(handle, "g.")
    column = STOPS[0].index(stop)
    assert {kind: found[name] for name, kind in names.items()} == {row[0]: row[column] for row in STOPS[1:]}


def test_the_tables_have_every_kind() -> None:
    waiting = {row[0].split(",")[0] for row in WAITING[1:]}
    stopped = {row[0].split(" ")[0] for row in STOPS[1:]}
    assert waiting == {"wait", "event", "approval", "emit", "set", "fail", "workflow"}
    assert stopped == set(KINDS) - {"emit", "set", "fail"}, "what takes no time cannot be stopped"
    assert STOPS[0][1:] == list(BY_STOP)
