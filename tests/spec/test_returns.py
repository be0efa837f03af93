"""`returns` of composites: what their value must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, Stemflow, TaskRegistry, load_workflow, to_yaml

HEAD = 'stemflow: "1"\nname: typed\n'
GIVES = {
    "graph": "steps: {a: {set: {n: 1}}}\n    outputs: {n: '${{ steps.a.output.n }}'}",
    "chain": "chain: [{task: give, args: {value: 1}}, {task: give, args: {value: {n: 1}}}]",
    "chord": "chord: {group: [{task: give}], then: {task: give, args: {value: {n: 1}}}}",
    "switch": "switch: {on: \"'x'\", cases: {x: {task: give, args: {value: {n: 1}}}}}",
    "loop": "loop: {max: 2, do: {task: give, args: {value: {n: 1}}}}",
    "race": "race: true\n    group: [{task: give, args: {value: {n: 1}}}]",
    "called": "workflow: {ref: ./inner.yaml}",
    "group": "group: [{task: give, args: {value: {n: 1}}}]",
    "map": "map: {items: [1, 2], do: {task: give, args: {value: {n: '${{ item }}'}}}}",
    "undone": "map: {items: [1, 2], do: {task: give, args: {value: {n: '${{ item }}'}}}}\n    compensate: {task: give}",
}
LISTS = ("group", "map", "undone")
OBJECT = "{type: object, required: [%s], properties: {n: {type: integer}}}"


@pytest.fixture(autouse=True)
def tasks(registry: TaskRegistry) -> None:
    @registry.task("give")
    async def give(value: Any = None) -> Any:
        return value


def flow(folder: Path, field: str) -> Any:
    """A file with each kind of composite, whose outputs must have this field."""
    (folder / "inner.yaml").write_text(
        'stemflow: "1"\nname: inner\nsteps: {a: {set: {n: 1}}}\noutputs: {n: "${{ steps.a.output.n }}"}\n', "utf-8"
    )
    steps = []
    for name, gives in GIVES.items():
        schema = OBJECT % field
        schema = f"{{type: array, items: {schema}}}" if name in LISTS else schema
        steps.append(f"  {name}:\n    {gives}\n    on_error: continue\n    returns: {schema}\n")
    outputs = "".join(f"  {name}: '${{{{ steps.{name}.output }}}}'\n" for name in GIVES)
    file = folder / "typed.yaml"
    file.write_text(f"{HEAD}steps:\n{''.join(steps)}outputs:\n{outputs}", "utf-8")
    return load_workflow(file)


async def test_a_composite_whose_value_fits_succeeds_with_it(app: Stemflow, tmp_path: Path) -> None:
    found = await app.run(flow(tmp_path, "n"))
    several = [{"n": 1}, {"n": 2}]
    lists = {"group": [{"n": 1}], "map": several, "undone": several}
    assert found == {name: lists.get(name, {"n": 1}) for name in GIVES}


async def test_a_composite_whose_value_does_not_fit_fails(app: Stemflow, tmp_path: Path) -> None:
    handle = await app.submit(flow(tmp_path, "n, m"))
    assert (await handle.wait()).value == dict.fromkeys(GIVES)
    nodes = {node.path: node for node in await handle.records()}
    assert {name: nodes[name].state for name in GIVES} == dict.fromkeys(GIVES, "failed")
    found = {name: nodes[nodes[name].failed_at or ""].error for name in GIVES}
    assert {name: one and one.type for name, one in found.items()} == dict.fromkeys(GIVES, "ResultMismatch")
    assert found["map"] is not None and found["map"].message.startswith("returns: output[0]: expected the key `m`")


async def test_a_value_that_does_not_fit_is_caught_as_any_failure(app: Stemflow, tmp_path: Path) -> None:
    file = tmp_path / "caught.yaml"
    file.write_text(HEAD + """\
steps:
  both:
    chain: [{task: give}, {task: give, args: {value: text}}]
    returns: {type: integer}
    catch: {on: [ResultMismatch], do: {task: give, args: {value: 7}}}
outputs: {both: "${{ steps.both.output }}"}
""")
    assert await app.run(load_workflow(file)) == {"both": 7}


def test_expressions_are_checked_against_it(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(HEAD + """\
steps:
  quotes:
    map: {items: [1, 2], do: {task: give}}
    returns: {type: array, items: {type: object, properties: {price: {type: number}}}}
  total: {set: {sum: "${{ sum(one.prize for one in steps.quotes.output) }}"}}
""")
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    (found,) = refused.value.diagnostics
    assert (found.code, found.line) == ("SF307", 7)


@pytest.mark.parametrize("kind", ["wait: {for: 1s}", "set: {a: 1}", "fail: no", "emit: {type: a.b}"])
def test_what_has_no_value_of_its_own_declares_none(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"{HEAD}steps: {{a: {{{kind}, returns: {{type: object}}}}}}\n")
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert [one.code for one in refused.value.diagnostics] == ["SF014"]


def test_it_is_exported(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(f"{HEAD}steps: {{a: {{chain: [{{task: give}}], returns: {{type: integer}}}}}}\n")
    once = load_workflow(file)
    file.write_text(to_yaml(once), "utf-8")
    assert load_workflow(file).body.steps[0].returns == once.body.steps[0].returns == {"type": "integer"}
