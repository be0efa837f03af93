"""A step may call another workflow: with inputs of its own, in the same run, or as a run that is not waited for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    Canvas,
    InvalidWorkflow,
    OptionError,
    RunFailed,
    Stemflow,
    TaskRegistry,
    load_workflow,
)
from stemflow.compile.freeze import compile_plan
from stemflow.dsl.parse import parse_workflow
from stemflow.model.policy import Options
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.start_task import run_id_of
from stemflow.runtime.tasks.context import Reject

one_store = pytest.mark.parametrize("url", ["memory:"], indirect=True)
"""What depends on no store."""

CHILD = """\
stemflow: "1"
name: child
inputs:
  n: {type: integer}
  by: {type: integer, default: 10}
vars: {base: 1000}
steps:
  times:
    task: give
    args: {value: "${{ inputs.n * inputs.by }}"}
    compensate: {task: undo, args: {value: "${{ inputs.n }}"}}
  plus: {task: give, args: {value: "${{ steps.times.output + vars.base }}"}}
outputs: {sum: "${{ steps.plus.output }}", run: "${{ run.name }}"}
"""


@pytest.fixture
def calls(registry: TaskRegistry) -> list[Any]:
    seen: list[Any] = []

    @registry.task("give")
    async def give(value: Any) -> Any:
        seen.append(value)
        return value

    @registry.task("undo")
    async def undo(value: Any) -> None:
        seen.append(f"undo {value}")

    @registry.task("bad")
    async def bad(value: Any = None) -> None:
        seen.append("bad")
        raise Reject("no")

    return seen


def loaded(folder: Path, body: str, child: str = CHILD, **known: Any) -> Workflow:
    (folder / "child.yaml").write_text(child, "utf-8")
    path = folder / "parent.yaml"
    path.write_text(f'stemflow: "1"\nname: parent\n{body}', "utf-8")
    return load_workflow(path, **known)


async def test_a_sub_workflow_has_inputs_variables_steps_and_outputs_of_its_own(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    flow = loaded(tmp_path, """\
inputs: {n: {type: integer, default: 3}}
vars: {base: 5}
steps:
  times: {task: give, args: {value: 2}}
  sub: {workflow: {ref: ./child.yaml, inputs: {n: "${{ steps.times.output }}"}}}
  last: {task: give, args: {value: "${{ steps.sub.output.sum + inputs.n + vars.base }}"}}
outputs: {all: "${{ steps.last.output }}", of: "${{ steps.sub.output }}"}
""")
    # Then names inside are those of the other file, and its defaults count
    assert await app.run(flow) == {"all": 1028, "of": {"sum": 1020, "run": "parent"}}
    assert calls == [2, 20, 1020, 1028]


async def test_a_map_calls_a_workflow_for_each_item(app: Stemflow, calls: list[Any], tmp_path: Path) -> None:
    flow = loaded(tmp_path, """\
steps:
  each: {map: {items: [1, 2], do: {workflow: {ref: ./child.yaml, inputs: {n: "${{ item }}", by: 1}}}}}
outputs: {sums: "${{ [one.sum for one in steps.each.output] }}"}
""")
    handle = await app.submit(flow)
    assert (await handle.wait()).value == {"sums": [1001, 1002]}
    paths = {node.path for node in await handle.records()}
    assert {"each[0]", "each[0].body", "each[0].body.times"} <= paths


@one_store
async def test_what_a_bare_body_gives_is_the_output_where_there_are_no_outputs(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    child = """\
stemflow: "1"
name: child
inputs: {n: {type: integer}}
chain:
  - {task: give, args: {value: "${{ inputs.n }}"}}
  - {task: give, args: {value: "${{ prev + inputs.n }}"}}
"""
    body = "chain:\n  - {task: give, args: {value: 4}}\n  - {workflow: {ref: child.yaml, inputs: {n: '${{ prev }}'}}}\n"
    assert await app.run(loaded(tmp_path, body, child)) == 8
    assert await app.run(loaded(tmp_path, body, f"{child}outputs: {{twice: '${{{{ prev * 2 }}}}'}}\n")) == {"twice": 16}


@one_store
async def test_inputs_that_do_not_fit_at_run_time_fail_the_step(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    flow = loaded(tmp_path, """\
steps:
  a: {task: give, args: {value: text}}
  sub:
    workflow: {ref: ./child.yaml, inputs: {n: "${{ steps.a.output }}"}}
    catch: {do: {task: give, args: {value: "${{ error.type + ': ' + error.message }}"}}}
outputs: {sub: "${{ steps.sub.output }}"}
""")
    found = await app.run(flow)
    assert found["sub"] == "InvalidInputs: inputs: inputs.n: expected a whole number, got the text 'text'"


FAILING = CHILD.replace("outputs:", "  bad: {task: bad, needs: [plus]}\noutputs:")
UNDOING = "on_failure: {compensate: true}\n"
PARENT = """\
steps:
  a: {task: give, args: {value: 1}, compensate: {task: undo, args: {value: a}}}
  sub: {workflow: {ref: ./child.yaml, inputs: {n: 7}}, needs: [a]}
"""


@pytest.mark.parametrize(
    ("parent", "child", "undone"),
    [("", "", []), (UNDOING, "", ["undo 7", "undo a"]), ("", UNDOING, ["undo 7"]),
     (UNDOING, UNDOING, ["undo 7", "undo a"])],
    ids=["neither", "the caller", "the called", "both"],
)  # fmt: skip
async def test_the_failure_of_a_sub_workflow_undoes_what_either_file_says_once(
    app: Stemflow, calls: list[Any], tmp_path: Path, parent: str, child: str, undone: list[str]
) -> None:
    with pytest.raises(RunFailed):
        await app.run(loaded(tmp_path, PARENT + parent, FAILING + child))
    assert [one for one in calls if "undo" in str(one)] == undone


async def test_a_later_failure_undoes_a_sub_workflow_with_its_own_inputs(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    body = PARENT + "  end: {task: bad, needs: [sub]}\n" + UNDOING
    with pytest.raises(RunFailed):
        await app.run(loaded(tmp_path, body, CHILD + UNDOING))
    assert calls == [1, 70, 1070, "bad", "undo 7", "undo a"]


@one_store
async def test_hooks_timeouts_and_defaults_of_the_called_file_hold_inside_it(
    app: Stemflow, registry: TaskRegistry, calls: list[Any], tmp_path: Path
) -> None:
    tries: list[int] = []

    @registry.task("flaky")
    async def flaky() -> None:
        tries.append(1)
        raise ValueError("not yet")

    child = """\
stemflow: "1"
name: child
inputs: {n: {type: integer}}
defaults: {task: {retry: {max: 2, backoff: {initial: 1s}}}}
steps: {one: {task: flaky}}
on_failure: {do: {task: give, args: {value: "${{ inputs.n }}"}}}
"""
    body = """\
defaults: {task: {retry: {max: 5, backoff: {initial: 1s}}}}
steps:
  sub: {workflow: {ref: ./child.yaml, inputs: {n: 9}}, on_error: continue}
"""
    await app.run(loaded(tmp_path, body, child))
    assert len(tries) == 3 and calls == [9]


async def test_a_run_that_is_not_waited_for_is_started_once_with_a_derived_id(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    flow = loaded(tmp_path, """\
steps:
  sub: {workflow: {ref: ./child.yaml, inputs: {n: 2}, wait: false}}
outputs: {run: "${{ steps.sub.output.run_id }}"}
""")
    handle = await app.submit(flow)
    found: Any = (await handle.wait()).value
    run_id = found["run"]
    assert run_id == run_id_of(handle.id, "sub")
    child = await app.handle(run_id)
    assert (await child.wait()).value == {"sum": 1020, "run": "child"}
    header = await app.library.header(run_id)
    assert header.parent == (handle.id, "sub.body") and header.root == handle.id


@one_store
async def test_inputs_that_do_not_fit_fail_the_step_that_does_not_wait(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    body = """\
steps:
  a: {task: give, args: {value: x}}
  sub: {workflow: {ref: ./child.yaml, wait: false, inputs: {n: "${{ steps.a.output }}"}}}
"""
    result = await (await app.submit(loaded(tmp_path, body))).wait()
    assert result.status == "failed" and result.error is not None and result.error.type == "InvalidInputs"


@one_store
async def test_canvas_calls_a_workflow_with_expressions_as_inputs(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    child = loaded(tmp_path, "steps: {x: {task: give, args: {value: 1}}}\n")  # only to write the child
    assert child.name == "parent"
    flow = load_workflow(tmp_path / "child.yaml")
    tree = Canvas.chain(Canvas.task("give", 5), Canvas.workflow(flow, {"n": "${{ prev }}"}))
    assert await app.run(tree) == {"sum": 1050, "run": "chain"}
    with pytest.raises(OptionError, match="load_workflow"):
        Canvas.workflow("child.yaml")  # type: ignore[arg-type]


@one_store
async def test_a_registered_workflow_is_called_by_its_name(
    app: Stemflow, registry: TaskRegistry, calls: list[Any], tmp_path: Path
) -> None:
    loaded(tmp_path, "steps: {x: {task: give, args: {value: 1}}}\n")
    registry.add_workflow(load_workflow(tmp_path / "child.yaml"))
    body = "steps: {sub: {workflow: {ref: child, inputs: {n: 1}}}}\noutputs: {sum: '${{ steps.sub.output.sum }}'}\n"
    assert await app.run(loaded(tmp_path, body, known_tasks=registry)) == {"sum": 1010}
    with pytest.raises(InvalidWorkflow, match="no workflow is registered as `chidl`"):
        loaded(tmp_path, body.replace("child", "chidl"), known_tasks=registry)
    with pytest.raises(OptionError, match="known_tasks=registry"):
        await app.run(loaded(tmp_path, body))


@one_store
async def test_a_run_goes_on_after_its_files_are_gone(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    flow = loaded(tmp_path, PARENT.replace("{task: give", "{wait: {for: 1h}}\n  b: {task: give"))
    handle = await app.submit(flow)
    for name in ("child.yaml", "parent.yaml"):
        os.remove(tmp_path / name)
    assert (await handle.wait()).status == "succeeded"


def test_a_workflow_that_was_not_looked_up_says_how(tmp_path: Path) -> None:
    parsed = parse_workflow('stemflow: "1"\nname: x\nsteps: {a: {workflow: {ref: ./b.yaml}}}\n', "x.yaml")
    assert parsed.workflow is not None
    with pytest.raises(OptionError, match="load_workflow"):
        compile_plan(parsed.workflow.body, lambda _: Options())


@one_store
async def test_a_called_workflow_runs_its_templates(app: Stemflow, tmp_path: Path) -> None:
    child = """\
stemflow: "1"
name: child
inputs: {n: {type: integer}}
templates: {twice: {params: {n: {type: integer}}, do: {set: {twice: "${{ params.n * 2 }}"}}}}
steps: {a: {template: twice, args: {n: "${{ inputs.n }}"}}}
outputs: {twice: "${{ steps.a.output.twice }}"}
"""
    body = "steps: {sub: {workflow: {ref: ./child.yaml, inputs: {n: 4}}}}\noutputs: {n: '${{ steps.sub.output }}'}"
    assert await app.run(loaded(tmp_path, body, child)) == {"n": {"twice": 8}}
