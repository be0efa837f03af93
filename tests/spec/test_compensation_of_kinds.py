"""A step of any kind may have a compensation of its own, which undoes it as a whole, before what is inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, Stemflow, TaskRegistry, load_workflow
from stemflow.runtime.tasks.context import Reject

Undone = list[Any]

KINDS = {
    "chain": ("chain: [{task: give, args: {value: 1}}, {task: give, args: {value: 2}}]", 2),
    "group": ("group: [{task: give, args: {value: 1}}, {task: give, args: {value: 2}}]", [1, 2]),
    "chord": ("chord: {group: [{set: {x: 1}}], then: {task: give, args: {value: '${{ results }}'}}}", [{"x": 1}]),
    "steps": ("steps: {x: {task: give, args: {value: 3}}}\n    outputs: {y: '${{ steps.x.output }}'}", {"y": 3}),
    "switch": ("switch: {on: '1', cases: {'1': {task: give, args: {value: 4}}}}", 4),
    "map": ("map: {items: [5, 6], do: {task: give, args: {value: '${{ item }}'}}}", [5, 6]),
    "loop": ("loop: {max: 2, do: {task: give, args: {value: '${{ index }}'}}}", 1),
    "set": ("set: {z: 7}", {"z": 7}),
    "task": ("task: give\n    args: {value: 8}", 8),
}


@pytest.fixture
def undone(registry: TaskRegistry) -> Undone:
    found: Undone = []

    @registry.task("give")
    async def give(value: Any) -> Any:
        return value

    @registry.task("bad")
    async def bad() -> None:
        raise Reject("no")

    @registry.task("undo")
    async def undo(value: Any, what: str = "whole") -> None:
        found.append((what, value))

    return found


async def run(app: Stemflow, tmp_path: Path, steps: str) -> Any:
    file = tmp_path / "flow.yaml"
    file.write_text(f'stemflow: "1"\nname: saga\non_failure: {{compensate: true}}\nsteps:\n{steps}')
    return await (await app.submit(load_workflow(file))).wait(timeout=600)


@pytest.mark.parametrize("kind", [*KINDS])
async def test_a_step_that_succeeded_is_undone_as_a_whole(
    app: Stemflow, undone: Undone, tmp_path: Path, kind: str
) -> None:
    step, value = KINDS[kind]
    result = await run(app, tmp_path, f"""
  a:
    {step}
    compensate: {{task: undo, args: {{value: "${{{{ self.output }}}}"}}}}
  b: {{task: bad, needs: [a]}}
""")
    assert result.status == "failed" and result.failed_at == "b"
    assert undone == [("whole", value)]


async def test_the_whole_is_undone_before_what_is_inside_and_only_if_it_succeeded(
    app: Stemflow, undone: Undone, tmp_path: Path
) -> None:
    steps = """
  first:
    map:
      items: [1, 2]
      do:
        chain:
          - task: give
            args: {value: "${{ item }}"}
            compensate: {task: undo, args: {value: "${{ self.output }}", what: item}}
          - {task: give, args: {value: "got ${{ prev }}"}}
        compensate: {task: undo, args: {value: "${{ self.output }}", what: pair}}
      concurrency: 1
    compensate: {task: undo, args: {value: "${{ self.output }}", what: all}}
  second:
    needs: [first]
    chain:
      - {task: give, args: {value: 3}, compensate: {task: undo, args: {value: 3, what: half}}}
      - task: bad
    compensate: {task: undo, args: {value: never}}
"""
    result = await run(app, tmp_path, steps)
    assert result.status == "failed"
    assert undone == [
        ("half", 3), ("all", ["got 1", "got 2"]),
        ("pair", "got 2"), ("item", 2), ("pair", "got 1"), ("item", 1),
    ]  # fmt: skip


def test_what_undoes_a_composite_is_checked_like_any_task(tmp_path: Path, registry: TaskRegistry) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text('stemflow: "1"\nname: x\non_failure: {compensate: true}\n'
                    "steps: {a: {set: {b: 1}, compensate: {task: nobody}}}\n")  # fmt: skip
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file, known_tasks=["give"])
    assert [one.code for one in refused.value.diagnostics] == ["SF401"]
