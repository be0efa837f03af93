"""`queue` and `priority` of a file and of composites, which their tasks have unless they say otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from stemflow import InvalidWorkflow, Stemflow, TaskContext, TaskRegistry, load_workflow, to_yaml

FILE = """
stemflow: "1"
name: placed
queue: whole
priority: 2
defaults: {task: {priority: 3}, tasks: {said: {queue: by_task}}}
steps:
  plain: {task: give}
  own: {task: give, queue: own}
  said: {task: said}
  group: {queue: group, priority: 7, group: [{task: give}, {task: give, priority: 8}]}
  graph:
    queue: graph
    steps:
      a: {task: give}
      b: {chain: [{task: give}, {task: give, queue: link}], queue: chain}
  each: {queue: each, map: {items: [1], do: {task: give}}}
  again: {queue: again, loop: {max: 1, do: {task: give}}}
  case: {queue: case, switch: {on: "'x'", cases: {x: {task: give}}}}
  both: {queue: both, chord: {group: [{task: give}], then: {task: give}}}
"""
EXPECTED = {
    "plain": ("whole", 3), "own": ("own", 3), "said": ("by_task", 3), "group[0]": ("group", 7),
    "group[1]": ("group", 8), "graph.a": ("graph", 3), "graph.b[0]": ("chain", 3), "graph.b[1]": ("link", 3),
    "each[0]": ("each", 3), "again[0]": ("again", 3), "case.x": ("case", 3), "both[0]": ("both", 3),
    "both.then": ("both", 3),
}  # fmt: skip


@pytest.fixture
def seen(registry: TaskRegistry) -> dict[str, str]:
    found: dict[str, str] = {}

    async def note(context: TaskContext) -> None:
        found[context.node] = context.queue

    registry.task("give")(note)
    registry.task("said")(note)
    return found


@pytest.mark.parametrize("url", ["memory:"], indirect=True)
@pytest.mark.parametrize("exported", [False, True])
async def test_tasks_have_the_queue_and_priority_of_what_is_nearest_around_them(
    app: Stemflow, seen: dict[str, str], tmp_path: Path, exported: bool
) -> None:
    file = tmp_path / "placed.yaml"
    file.write_text(FILE, "utf-8")
    if exported:
        file.write_text(to_yaml(load_workflow(file)), "utf-8")
    handle = await app.submit(load_workflow(file))
    assert (await handle.wait()).status == "succeeded"
    priorities = {node.path: node.priority for node in await handle.records() if node.path in seen}
    assert {path: (queue, priorities[path]) for path, queue in seen.items()} == EXPECTED


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("queue: '${{ inputs.a }}'\ninputs: {a: {}}\nsteps: {a: {task: t, args: {a: '${{ inputs.a }}'}}}", "SF203"),
        ("steps: {a: {wait: {for: 1s}, queue: x}}", "SF014"),
        ("steps: {a: {workflow: {ref: ./a.yaml}, priority: 3}}", "SF014"),
        ("priority: 10\nsteps: {a: {task: t}}", "SF011"),
    ],
)
def test_where_they_mean_nothing_they_are_refused(tmp_path: Path, body: str, code: str) -> None:
    file = tmp_path / "refused.yaml"
    file.write_text(f'stemflow: "1"\nname: refused\n{body}\n', "utf-8")
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert code in [one.code for one in refused.value.diagnostics]
