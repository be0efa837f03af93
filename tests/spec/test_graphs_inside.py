"""A graph of steps inside a step: in a map, a chain, a group, a case and another graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, Stemflow, TaskRegistry, load_workflow
from stemflow.compile.freeze import compile_plan
from stemflow.dsl.parse import parse_workflow
from stemflow.model.plan import ScopePlan
from stemflow.model.policy import Options
from stemflow.runtime.tasks.context import Reject


@pytest.fixture
def calls(registry: TaskRegistry) -> list[Any]:
    seen: list[Any] = []

    @registry.task("give")
    async def give(value: Any) -> Any:
        seen.append(value)
        return value

    @registry.task("fail")
    async def fail(value: Any = None) -> None:
        seen.append("fail")
        raise Reject("no")

    return seen


def loaded(folder: Path, body: str) -> Any:
    path = folder / "graph.yaml"
    path.write_text(f'stemflow: "1"\nname: graphs\n{body}', "utf-8")
    return load_workflow(path)


MAP = """\
steps:
  base: {task: give, args: {value: 100}}
  each:
    map:
      items: "[1, 2, 3]"
      as: n
      do:
        steps:
          double: {task: give, args: {value: "${{ n * 2 }}"}}
          add: {task: give, args: {value: "${{ steps.double.output + steps.base.output }}"}}
        outputs: {sum: "${{ steps.add.output }}", n: "${{ n }}"}
outputs:
  all: ${{ steps.each.output }}
"""


async def test_a_map_runs_a_graph_for_each_item_that_reads_steps_outside(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    found = await app.run(loaded(tmp_path, MAP))
    assert found == {"all": [{"sum": 102, "n": 1}, {"sum": 104, "n": 2}, {"sum": 106, "n": 3}]}
    assert calls[0] == 100  # the map waits for what its graphs read


CHAIN = """\
chain:
  - {task: give, args: {value: 7}}
  - steps:
      a: {task: give, args: {value: "${{ prev + 1 }}"}}
      b: {task: give, args: {value: "${{ steps.a.output * 10 }}"}}
    outputs: {b: "${{ steps.b.output }}", before: "${{ prev }}"}
  - {task: give, args: {value: "${{ prev.b + prev.before }}"}}
"""


async def test_a_graph_is_a_link_of_a_chain(app: Stemflow, calls: list[Any], tmp_path: Path) -> None:
    assert await app.run(loaded(tmp_path, CHAIN)) == 87


NESTED = """\
steps:
  x: {task: give, args: {value: outer}}
  inner:
    steps:
      x: {task: give, args: {value: inner}}
      y: {task: give, args: {value: "${{ steps.x.output }}"}}
      z:
        steps:
          w: {task: give, args: {value: "${{ steps.x.output }}-${{ steps.y.output }}"}}
        outputs: {w: "${{ steps.w.output }}"}
    outputs: {y: "${{ steps.y.output }}", z: "${{ steps.z.output.w }}"}
  after: {task: give, args: {value: "${{ steps.x.output }}"}}
outputs: {inner: "${{ steps.inner.output }}", after: "${{ steps.after.output }}"}
"""


async def test_a_name_is_looked_up_in_the_innermost_graph_first(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    found = await app.run(loaded(tmp_path, NESTED))
    assert found == {"inner": {"y": "inner", "z": "inner-inner"}, "after": "outer"}


def test_a_name_that_hides_an_outer_one_is_a_warning() -> None:
    parsed = parse_workflow(f'stemflow: "1"\nname: graphs\n{NESTED}', "graph.yaml")
    (found,) = (one for one in parsed.check(None, lambda _: ()) if one.code == "SF110")
    assert (found.severity, found.line) == ("warning", 7)


FAILING = """\
steps:
  inner:
    on_error: continue
    steps:
      bad: {task: fail}
      good: {task: give, args: {value: 1}}
      undone: {needs: [bad], task: give, args: {value: 2}}
  after: {task: give, args: {value: "${{ get(steps.inner.output, 'none') }}"}, needs: [inner]}
outputs: {after: "${{ steps.after.output }}", inner: "${{ steps.inner.state }}"}
"""


async def test_a_failing_step_fails_its_graph_once_the_others_have_ended(
    app: Stemflow, calls: list[Any], tmp_path: Path
) -> None:
    assert await app.run(loaded(tmp_path, FAILING)) == {"after": "none", "inner": "failed"}
    assert calls == ["fail", 1, "none"] or calls == [1, "fail", "none"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (MAP.replace("steps.double.output", "steps.duoble.output"), "SF104"),
        (MAP.replace("add: {task", "add: {needs: [base], task"), "SF101"),
        (MAP.replace("steps.add.output", "steps.ad.output"), "SF104"),
        (MAP.replace("value: 100", "value: '${{ steps.each.output }}'"), "SF102"),
        (MAP.replace("steps.base.output", "steps.each.output"), "SF103"),
        (NESTED.replace("value: inner", "value: '${{ steps.z.output }}'"), "SF102"),
        (CHAIN.replace("      a: ", "      '1a': "), "SF012"),
    ],
)
def test_a_mistake_in_a_graph_inside_is_a_finding(tmp_path: Path, body: str, code: str) -> None:
    with pytest.raises(InvalidWorkflow) as refused:
        loaded(tmp_path, body)
    assert code in [one.code for one in refused.value.diagnostics]


WITH_THE_ITEM = """\
steps:
  each:
    map:
      items: "[1, 2]"
      as: n
      index: place
      do:
        steps:
          slow: {task: give, args: {value: "${{ n }}"}}
          args: {task: give, args: {value: "${{ steps.slow.output }}", more: "${{ place }}"}}
          when: {when: steps.slow.output < n, task: give, args: {value: 1}}
          within: {steps: {last: {task: give, args: {value: ["${{ steps.slow.output }}", "${{ n }}"]}}}}
"""


def test_a_step_waits_for_a_step_that_it_reads_together_with_the_item_of_a_map(tmp_path: Path) -> None:
    # Given a graph in a map, whose steps read names of the map and a step in one template or condition
    plan = compile_plan(loaded(tmp_path, WITH_THE_ITEM).body, lambda _: Options())

    # When it is compiled, then each of them has an edge from that step
    graph = next(one for one in plan.nodes if isinstance(one, ScopePlan) and one.names and "slow" in one.names)
    assert graph.names is not None
    waits = {name: [edge.source for edge in edges] for name, edges in zip(graph.names, graph.edges, strict=True)}
    first = graph.names.index("slow")
    assert waits == {"slow": [], "args": [first], "when": [first], "within": [first]}
