"""A matrix gives a map all combinations, a batch lists of items; numbers and timeouts may come from expressions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, Stemflow, TaskRegistry, load_workflow

Calls = list[Any]


@pytest.fixture
def calls(registry: TaskRegistry) -> Calls:
    """What was given to `note`, which takes a second and gives it back."""
    found: Calls = []
    open_now: list[int] = []

    @registry.task("note")
    async def note(value: Any) -> Any:
        found.append(value)
        open_now.append(1)
        await asyncio.sleep(1)
        open_now.pop()
        return value

    @registry.task("most")
    async def most(value: Any) -> int:
        open_now.append(1)
        await asyncio.sleep(1)
        count = len(open_now)
        await asyncio.sleep(1)
        open_now.pop()
        return count

    return found


async def run(app: Stemflow, tmp_path: Path, steps: str, **inputs: Any) -> Any:
    file = tmp_path / "flow.yaml"
    head = 'stemflow: "1"\nname: maps\ninputs: {n: {type: integer, default: 2}, xs: {type: array, default: []}}\n'
    file.write_text(f"{head}{steps}\noutputs: {{a: '${{{{ steps.a.output }}}}'}}\n")
    result = await (await app.submit(load_workflow(file), inputs=inputs)).wait(timeout=1_000)
    if result.status == "failed":
        return result.error
    return result.value["a"]


@pytest.mark.parametrize("sizes", ["[1, 2]", '"${{ inputs.xs }}"'])
async def test_a_matrix_gives_each_combination_in_order(
    app: Stemflow, calls: Calls, tmp_path: Path, sizes: str
) -> None:
    steps = f"""
steps:
  a:
    map:
      matrix: {{os: [linux, mac], size: {sizes}}}
      as: one
      concurrency: 1
      do: {{task: note, args: {{value: "${{{{ one.os }}}} ${{{{ one.size }}}} ${{{{ index }}}}"}}}}
"""
    assert await run(app, tmp_path, steps, xs=[1, 2]) == ["linux 1 0", "linux 2 1", "mac 1 2", "mac 2 3"]


@pytest.mark.parametrize("items", ["[1, 2, 3, 4, 5]", "inputs.xs"])
async def test_a_batch_is_a_list_of_items(app: Stemflow, calls: Calls, tmp_path: Path, items: str) -> None:
    steps = f"""
steps:
  a:
    map: {{items: {items}, batch: 2, do: {{task: note, args: {{value: "${{{{ item }}}}"}}}}}}
"""
    assert await run(app, tmp_path, steps, xs=[1, 2, 3, 4, 5]) == [[1, 2], [3, 4], [5]]


async def test_a_batch_of_a_computed_size_and_of_a_matrix(app: Stemflow, calls: Calls, tmp_path: Path) -> None:
    steps = """
steps:
  a:
    map:
      matrix: {x: "${{ inputs.xs }}", y: [0]}
      batch: ${{ inputs.n + 1 }}
      do: {task: note, args: {value: "${{ [one.x for one in item] }}"}}
"""
    assert await run(app, tmp_path, steps, xs=[1, 2, 3, 4]) == [[1, 2, 3], [4]]


@pytest.mark.parametrize("items", ["[1, 2, 3, 4, 5]", "inputs.xs"])
async def test_the_window_of_a_map_is_computed(app: Stemflow, calls: Calls, tmp_path: Path, items: str) -> None:
    steps = """
steps:
  a:
    map: {items: ITEMS, concurrency: "${{ inputs.n }}", do: {task: most, args: {value: 1}}}
""".replace("ITEMS", items)
    assert max(await run(app, tmp_path, steps, xs=[1, 2, 3, 4, 5, 6])) == 2


async def test_the_limit_of_a_loop_is_computed(app: Stemflow, calls: Calls, tmp_path: Path) -> None:
    steps = """
steps:
  a:
    loop: {max: "${{ inputs.n }}", carry: 0, do: {set: {n: "${{ index }}"}}}
"""
    assert await run(app, tmp_path, steps, n=4) == {"n": 3}
    error = await run(app, tmp_path, steps.replace("carry: 0", "while: 'true'"), n=3)
    assert error.type == "LoopLimit" and "within 3 iterations" in error.message


async def test_the_timeout_of_a_composite_is_computed(app: Stemflow, calls: Calls, tmp_path: Path) -> None:
    steps = """
steps:
  a:
    timeout: ${{ inputs.n }}s
    chain: [{wait: {for: 1h}}, {task: note, args: {value: 1}}]
"""
    begun = asyncio.get_running_loop().time()
    error = await run(app, tmp_path, steps, n=7)
    assert error.type == "TaskTimeout"
    assert 7 <= asyncio.get_running_loop().time() - begun < 30


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("map: {matrix: {x: '${{ inputs.n }}'}, do: NOTE}", "matrix.x: expected a list"),
        ("map: {items: inputs.xs, batch: '${{ inputs.n - 2 }}', do: NOTE}", "batch: expected a whole number"),
        ("map: {items: inputs.xs, concurrency: '${{ 0 * inputs.n }}', do: NOTE}", "concurrency: expected a"),
        ("loop: {max: '${{ inputs.n * 10000 }}', do: NOTE}", "max: expected a whole number from 1 to 10,000"),
        ("timeout: '${{ inputs.n - 2 }}'\n    chain: [NOTE, NOTE]", "timeout: expected a timeout above"),
    ],
)
async def test_a_number_that_cannot_be_fails_the_step(
    app: Stemflow, calls: Calls, tmp_path: Path, step: str, message: str
) -> None:
    step = step.replace("NOTE", "{task: note, args: {value: 1}}")
    error = await run(app, tmp_path, f"steps:\n  a:\n    {step}\n", xs=[1])
    assert message in error.message and calls == []


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ("map: {matrix: {x: [1]}, items: [1], do: {task: t}}", "SF013"),
        ("map: {do: {task: t}}", "SF015"),
        ("map: {matrix: {x: 3}, do: {task: t}}", "SF011"),
        ("map: {items: [1], batch: 0, do: {task: t}}", "SF011"),
        ("map: {items: [1], batch: two, do: {task: t}}", "SF011"),
        ("map: {items: [1], batch: '${{ 2 }}', do: {task: t}}", "SF203"),
        ("map: {matrix: {x: [1]}, do: {task: t, args: {v: '${{ item.y }}'}}}", "SF207"),
        ("matrix: {x: [1]}, task: t", "SF019"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, step: str, code: str) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(f'stemflow: "1"\nname: refused\nsteps: {{a: {{{step}}}}}\n')
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert code in [one.code for one in refused.value.diagnostics], refused.value
