"""`RunHandle.nodes`: the nodes of a run as public records."""

from __future__ import annotations

import msgspec
import pytest

from stemflow import Canvas, RunNode, Stemflow, TaskRegistry


@pytest.mark.parametrize("url", ["memory"], indirect=True)
async def test_each_node_of_a_run_is_a_public_record(app: Stemflow, registry: TaskRegistry) -> None:
    # Given
    @registry.task("load", queue="slow", priority=4)
    async def load(name: str) -> str:
        return name

    @registry.task("break", max_retries=1)
    async def fail(name: str) -> str:
        raise ValueError(name)

    # When
    flow = Canvas.chain(load.s("a"), Canvas.wait("1s"), Canvas.group(load.si("b"), fail.si("c")), load.s())
    handle = await app.submit(flow)
    await handle.wait()
    nodes = {node.path: node for node in await handle.nodes()}

    # Then
    assert {path: (one.kind, one.state, one.task) for path, one in nodes.items()} == {
        "": ("chain", "failed", None),
        "[0]": ("task", "succeeded", "load"),
        "[1]": ("wait", "succeeded", None),
        "[2]": ("group", "failed", None),
        "[2][0]": ("task", "succeeded", "load"),
        "[2][1]": ("task", "failed", "break"),
    }
    first, broken = nodes["[0]"], nodes["[2][1]"]
    assert (first.queue, first.priority, nodes[""].queue, nodes[""].priority) == ("slow", 4, None, None)
    assert (broken.attempt, broken.error and broken.error.type, nodes[""].failed_at) == (1, "ValueError", "[2][1]")
    assert first.opened_at_ms and first.ended_at_ms and first.opened_at_ms <= first.ended_at_ms
    assert msgspec.convert(msgspec.to_builtins(broken), RunNode) == broken


def test_no_field_of_a_public_node_is_lost() -> None:
    assert RunNode.__struct_fields__[:14] == (
        "path", "kind", "state", "task", "queue", "priority", "attempt", "losses", "cause", "error", "failed_at",
        "opened_at_ms", "started_at_ms", "ended_at_ms",
    )  # fmt: skip
