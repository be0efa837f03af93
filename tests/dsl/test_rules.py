"""The rules of the checker: each kind of fault has its code on the exact part of the file; what is right has none."""

from __future__ import annotations

import pytest

from stemflow.compile.edges import dependencies
from stemflow.dsl import check_inputs
from tests.dsl.checked import arg, check, step, told

ORDER = "inputs:\n  order_id: {type: string, default: a}\n  n: {type: integer, default: 1}\n"
ORDER += "  on: {type: boolean, default: true}\n  names: {type: array, items: {type: string}, default: []}\n"
ORDER += "  box: {type: object, additionalProperties: false, properties: {size: {type: number}}, default: {}}\n"
ORDER += "  open: {type: object, properties: {size: {type: number}}, default: {}}\n"
ORDER += "  mode: {enum: [fast, slow], default: fast}\n  any: {default: 1}\n"
ORDER += "vars: {region: eu, deep: {a: {b: 1}}, list: [1, 2]}\n"
USE = "outputs: {all: '${{ [inputs, vars] }}'}\n"
"""Reads everything, so that nothing is unused."""


@pytest.mark.parametrize(
    ("expression", "code", "mark"),
    [
        # closed names: inputs, vars, run, steps, at any depth, in has() and get() too
        ("inputs.ordr_id", "SF205", "inputs.ordr_id"),
        ("inputs['ordr_id']", "SF205", "inputs['ordr_id']"),
        ("has(inputs.ordr_id)", "SF205", "inputs.ordr_id"),
        ("get(inputs.ordr_id, 1)", "SF205", "inputs.ordr_id"),
        ("inputs.box.sise", "SF205", "inputs.box.sise"),
        ("[x for x in inputs.nmaes]", "SF205", "inputs.nmaes"),
        ("f'{inputs.ordr_id}'", "SF205", "inputs.ordr_id"),
        ("vars.regoin", "SF206", "vars.regoin"),
        ("vars.deep.a.c", "SF206", None),
        ("run.started_at", "SF207", "run.started_at"),
        ("steps.a.outputs", "SF105", "steps.a.outputs"),
        ("steps.a.outputs.x", "SF105", "steps.a.outputs"),
        ("has(steps.a.outputs)", "SF105", "steps.a.outputs"),
        ("steps['a'].result", "SF105", "steps['a'].result"),
        ("steps.nope.output", "SF104", "steps.nope.output"),
        ("steps.b.output", "SF103", "steps.b.output"),
        # types that never fit
        ("inputs.n == 'one'", "SF210", "inputs.n == 'one'"),
        ("inputs.mode == 'fats'", "SF210", "inputs.mode == 'fats'"),
        ("steps.a.state == 'success'", "SF210", "steps.a.state == 'success'"),
        ("inputs.order_id > 3", "SF216", "inputs.order_id > 3"),
        ("inputs.order_id + inputs.n", "SF216", "inputs.order_id + inputs.n"),
        ("-inputs.order_id", "SF216", "-inputs.order_id"),
        ("1 in inputs.n", "SF216", "inputs.n"),
        ("[x for x in inputs.n]", "SF216", "inputs.n"),
        ("len(inputs.n)", "SF220", "inputs.n"),
        ("upper(inputs.names)", "SF220", "inputs.names"),
        ("inputs.names.first", "SF212", "inputs.names.first"),
        ("inputs.order_id.size", "SF212", "inputs.order_id.size"),
        ("inputs.names[0].size", "SF212", "inputs.names[0].size"),
        ("[x.size for x in inputs.names]", "SF212", "x.size"),
        ("inputs.names['a']", "SF212", None),
        ("vars.list[2]", "SF213", "2"),
        ("matches(inputs.order_id, '(?=a)')", "SF219", None),
        ("1 // 0", "SF218", "1 // 0"),
        # words of other languages
        ("needs.a.result", "SF202", "needs"),
        ("github.sha", "SF202", "github"),
        ("always()", "SF202", "always"),
        ("toJSON(inputs)", "SF202", "toJSON"),
    ],
)  # fmt: skip
def test_a_fault_in_an_expression_is_found_on_its_part(expression: str, code: str, mark: str | None) -> None:
    found = told(check(arg(expression, ORDER) + USE))
    assert [one for one, _ in found] == [code]
    if mark is not None:
        assert found == [(code, mark)]


@pytest.mark.parametrize(
    "expression",
    [
        "inputs.open.anything",
        "inputs.any.thing[0]",
        "inputs.box.size",
        "vars.deep.a.b",
        "steps.a.output.x.y[0]",
        "steps.a.state == 'failed'",
        "has(steps.a.output.x)",
        "get(inputs.open.x, 0) + 1",
        "[x.size for x in steps.a.output]",
        "[i for i, x in enumerate(inputs.names)]",
        "inputs.n == 1.0",
        "inputs.on == 1",
        "inputs.mode == 'fast' or inputs.mode != 'slow'",
        "inputs.order_id == null",
        "inputs.names + ['x']",
        "inputs.order_id * 3",
        "inputs.n if inputs.on else 'none'",
        "inputs.order_id[0]",
        "vars.list[-1]",
        "merge(inputs.open, {'x': 1}).x",
        "{'a': {'b': 1}}.a.b",
        "sorted(inputs.names)[0]",
        "matches(inputs.order_id, '^a+$')",
        "inputs['order_id']",
        "run.id + run.name",
        "len([x for x in inputs.names if x != 'a'])",
    ],
)
def test_what_may_be_right_is_not_reported(expression: str) -> None:
    assert told(check(arg(expression, ORDER) + USE)) == []


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("inputs.order_id", "SF208"),
        ("inputs.n", "SF208"),
        ("inputs.names", "SF208"),
        ("\"'false'\"", "SF208"),
        ("inputs.order_id if inputs.on else 'x'", "SF208"),
        ("len(inputs.names)", "SF208"),
        ("1 < 2", "SF209"),
        ("not true", "SF209"),
        ('"${{ inputs.on }}"', "SF704"),
        ("inputs.on == true", "SF705"),
    ],
)
def test_a_condition_is_true_or_false(condition: str, code: str) -> None:
    assert [one for one, _ in told(check(step(f"{{task: do, when: {condition}}}", ORDER) + USE))] == [code]


@pytest.mark.parametrize(
    "condition",
    [
        "inputs.on",
        "inputs.any",
        "steps.a.output.ok",
        "true",
        "false",
        "inputs.n > 1",
        "has(steps.a.output)",
        "inputs.on and steps.a.output.ok",
        "inputs.any or inputs.on",
    ],
)
def test_a_condition_that_may_be_a_boolean_is_right(condition: str) -> None:
    assert told(check(step(f"{{task: do, when: {condition}}}", ORDER) + USE)) == []


@pytest.mark.parametrize(
    ("text", "code", "mark"),
    [
        ("{task: do, retry: {when: error.code == 503}}", "SF207", "error.code"),
        ("{task: do, retry: {when: has(error.status)}}", "SF207", "error.status"),
        ("{task: do, timeout: 0}", "SF505", "0"),
        ("{task: do, timeout: {soft: 0, hard: 3s}}", "SF505", "0"),
        ("{task: do, expires: 0s}", "SF505", "0s"),
        ("{task: do, retry: {budget: 0}}", "SF505", "0"),
        ("{task: 'do it'}", "SF403", "'do it'"),
        ("{task: do, retry: {retry_on: ['a:B']}}", "SF404", "'a:B'"),
        ("{task: do, run_on: failure}", "SF107", "failure"),
        ("{group: {x: {task: do, run_on: done}}}", "SF106", "run_on"),
        ("{chain: [{task: do}, {task: do, run_on: failure}]}", "SF106", "run_on"),
        ("{map: {items: [1], do: {task: do, run_on: always}}}", "SF106", "run_on"),
        ("{map: {items: \"{'x': 1}\", do: {task: do}}}", "SF211", "\"{'x': 1}\""),
        ("{map: {items: 1 + 1, do: {task: do}}}", "SF211", "1 + 1"),
        ("{map: {items: 'null', do: {task: do}}}", "SF211", "'null'"),
        ("{map: {items: [], do: {task: do}}}", "SF224", "[]"),
        ("{map: {items: [1], as: 'true', do: {task: do}}}", "SF012", "'true'"),
        ("{map: {items: [1], as: class, do: {task: do}}}", "SF012", "class"),
        ("{map: {items: [1], as: x, index: x, do: {task: do}}}", "SF012", "x"),
        ("{map: {items: [1], as: index, do: {task: do}}}", "SF012", "index"),
        ("{map: {items: [{k: 1}], do: {task: do, args: {what: '${{ item.j }}'}}}}", "SF207", "item.j"),
        ("{task: do, on_member_error: collect}", "SF014", "on_member_error"),
        ("{map: {items: [1], do: {task: do, on_member_error: ignore}}}", "SF014", "on_member_error"),
        ("{task: do, with: {what: 1}}", "SF019", "with"),
        ("{task: do, continue-on-error: true}", "SF019", "continue-on-error"),
        ("{task: do, depends: [a]}", "SF019", "depends"),
        ("{task: do, if: true}", "SF019", "if"),
        ("{task: do, runs-on: ubuntu}", "SF019", "runs-on"),
        ("{uses: actions/checkout}", "SF019", "uses"),
        ("{task: do, args: {what: steps.a.output.x}}", "SF222", "steps.a.output.x"),
        ("{task: do, args: {what: '{{ inputs.x }}'}}", "SF223", "'{{ inputs.x }}'"),
        ("{task: do, args: {what: 'x $inputs.y'}}", "SF223", "'x $inputs.y'"),
        ("{task: do, needs: [a], args: {what: '${{ steps.a.output }}'}}", "SF703", "a"),
    ],
)  # fmt: skip
def test_a_fault_of_a_step_is_found_on_its_part(text: str, code: str, mark: str) -> None:
    assert told(check(step(text))) == [(code, mark)]


@pytest.mark.parametrize(
    ("tasks", "use", "code"),
    [
        ("g: {group: {x: {task: do}, y: {task: do}}}", "steps.g.output.x", "SF212"),
        ("g: {group: {x: {task: do}, y: {task: do}}}", "steps.g.output[2]", "SF213"),
        ("g: {group: {x: {task: do}, y: {task: do}}}", "steps.x.output", "SF109"),
        ("g: {map: {items: [1], do: {task: do}}}", "steps.g.output.what", "SF212"),
        ("g: {chain: [{task: do}, {map: {items: [1], do: {task: do}}}]}", "steps.g.output.what", "SF212"),
        ("g: {chord: {group: [{task: do}], then: {map: {items: [1], do: {task: do}}}}}", "steps.g.output.x", "SF212"),
        ("g: {task: do, on_error: continue}", "steps.g.output.url", "SF214"),
        ("g: {chain: [{task: do}, {task: do}], on_error: continue}", "steps.g.output.url", "SF214"),
        ("g: {task: pack}", "steps.g.output.sise", "SF307"),
        ("g: {task: pack}", "steps.g.output.size.x", "SF212"),
        ("g: {task: pack}", "[one.x for one in steps.g.output.labels]", "SF212"),
    ],
)
def test_types_flow_from_step_to_step(tasks: str, use: str, code: str) -> None:
    body = "steps:\n  " + tasks + '\n  b: {task: do, args: {what: "${{ ' + use + ' }}"}}\n'
    assert [one for one, _ in told(check(body, tasks=True))] == [code]


def test_the_result_of_a_task_is_not_known_without_tasks() -> None:
    body = 'steps:\n  g: {task: pack}\n  b: {task: do, args: {what: "${{ steps.g.output.sise }}"}}\n'
    assert told(check(body)) == []


@pytest.mark.parametrize(
    ("value", "code"),
    [("count: '${{ inputs.order_id }}'", "SF306"), ("names: '${{ inputs.n }}'", "SF306"),
     ("names: '${{ [inputs.n] }}'", "SF306"), ("big: '${{ inputs.n }}'", "SF306"),
     ("count: '${{ inputs.n }}'", None), ("names: '${{ inputs.names }}'", None), ("big: '${{ inputs.on }}'", None),
     ("count: '${{ steps.a.output }}'", None), ("names: '${{ [inputs.order_id] }}'", None)],
)  # fmt: skip
def test_an_expression_fits_the_parameter_that_it_is_for(value: str, code: str | None) -> None:
    found = told(check(step(f"{{task: do, args: {{{value}}}}}", ORDER) + USE, tasks=True))
    assert [one for one, _ in found] == ([] if code is None else [code])


@pytest.mark.parametrize("guard", ["get(steps.a.output.url, 'x')", "steps.a.output.url if has(steps.a.output) else 'x'",
                                   "has(steps.a.output.url) and steps.a.output.url == 'x'", "steps.a.output",
                                   "steps.a.output.url if steps.a.output != null else 'x'"])  # fmt: skip
def test_a_guard_against_null_is_seen(guard: str) -> None:
    body = 'steps:\n  a: {task: do, on_error: continue}\n  b: {task: do, args: {what: "${{ ' + guard + ' }}"}}\n'
    assert told(check(body)) == []


# -- all in one go


def test_faults_of_every_family_are_reported_together_and_in_order() -> None:
    # Given a file with a fault of shape, graph, syntax, needs, task and name on lines of their own
    body = """\
steps:
  a: {task: do, args: {what: a}, tiemout: 3s}
  b: {task: do, args: {what: "${{ steps.nope.output }}"}}
  c: {task: do, args: {what: "${{ 1 + }}"}}
  d: {task: do, needs: [zzz]}
  e: {task: no.such}
  f: {task: do, args: {what: "${{ nope }}"}}
"""
    # When it is checked with its tasks
    found = check(body, tasks=True).found
    # Then each is there, in the order of the file
    assert [(one.line, one.code) for one in found] == [
        (4, "SF010"), (5, "SF104"), (6, "SF201"), (7, "SF101"), (8, "SF401"), (9, "SF204"),
    ]  # fmt: skip


def test_a_broken_step_hides_only_itself() -> None:
    # Given a step that is no mapping, one without a kind, and steps that refer to both
    body = """\
steps:
  a: 7
  b: {args: {x: 1}}
  c: {task: do, args: {what: "${{ [steps.a.output.x, steps.b.output.y, steps.cc.output] }}"}}
  d: {task: do, needs: [a, b]}
"""
    # Then the references to them are right, and the wrong one is found
    assert [(one.line, one.code) for one in check(body).found] == [(4, "SF011"), (5, "SF013"), (6, "SF104")]


def test_each_item_of_needs_has_its_own_place() -> None:
    body = "steps:\n  a: {task: do}\n  b:\n    task: do\n    needs:\n      - a\n      - aa\n      - zz\n"
    assert [(one.line, one.column, one.code) for one in check(body).found] == [(9, 9, "SF101"), (10, 9, "SF101")]


def test_each_cycle_is_reported_once_as_it_is_written() -> None:
    body = """\
steps:
  a: {needs: [b], task: do}
  b: {needs: [c], task: do}
  c: {task: do, args: {what: "${{ steps.a.output }}"}}
  d: {needs: [e], task: do}
  e: {needs: [d, c], task: do}
"""
    found = check(body).found
    assert [(one.line, one.code) for one in found] == [(4, "SF102"), (7, "SF102")]
    assert found[0].message.endswith("a -> b -> c -> a")
    assert found[1].message.endswith("d -> e -> d")


def test_a_wrong_alias_is_reported_where_it_is_used() -> None:
    body = "vars: {l: &list [1, 2]}\nsteps:\n  a:\n    task: do\n    args: {what: '${{ vars.l }}'}\n    <<: *list\n"
    assert [(one.line, one.code) for one in check(body).found] == [(8, "SF004")]
    body = "vars: {no: &no 7}\nsteps:\n  a: {task: do, retry: *no, args: {what: '${{ vars.no }}'}}\n"
    assert [(one.line, one.code) for one in check(body).found] == [(5, "SF011")]


def test_a_compensation_reads_its_step_by_closed_names() -> None:
    undo = "{task: do, compensate: {task: do, args: {what: '${{ self.outputs.id }}'}}}"
    assert told(check(step(undo) + "on_failure: {compensate: true}\n")) == [("SF207", "self.outputs")]


# -- comments that ignore


def test_an_ignore_of_a_code_that_does_not_exist_is_an_error() -> None:
    found = check("steps:\n  a: {task: do}  # stemflow: ignore=SF999 because\n").found
    assert [(one.code, one.severity) for one in found] == [("SF016", "error")]


def test_an_ignore_of_nothing_is_a_warning() -> None:
    found = check("steps:\n  a: {task: do}  # stemflow: ignore=SF209 because\n").found
    assert [(one.code, one.severity) for one in found] == [("SF018", "warning")]
    # But what is found only when tasks are known is not called unused without them
    body = "steps:\n  a: {task: do}  # stemflow: ignore=SF401 because\n"
    assert told(check(body)) == []
    assert [one for one, _ in told(check(body, tasks=True))] == ["SF018"]


def test_a_finding_of_any_family_may_be_ignored() -> None:
    body = "steps:\n  # stemflow: ignore=SF209 for the moment\n  a: {task: do, when: 1 > 2}\n"
    assert told(check(body)) == []


# -- inputs


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ("{type: str, default: x}", "SF011"),
        ("{type: integer, minimum: '3', default: 3}", "SF011"),
        ("{type: array, items: {type: int}, default: [1]}", "SF011"),
        ("{type: integer, minimum: 3, maximum: 2}", "SF305"),
        ("{type: array, items: {type: string, minLength: 3, maxLength: 2}}", "SF305"),
        ("{type: string, enum: [a, 1]}", "SF305"),
        ("{type: string, minimum: 3}", "SF308"),
        ("{type: object, properties: {}, required: [x], additionalProperties: false}", "SF309"),
    ],
)
def test_a_schema_of_an_input_is_possible(schema: str, code: str) -> None:
    assert [one for one, _ in told(check(f"inputs: {{n: {schema}}}\n" + arg("inputs.n")))] == [code]


def test_an_integer_may_be_written_with_a_point() -> None:
    # Given inputs of integers, for which JSON Schema takes 3.0
    schemas = "{n: {type: integer, default: 3.0}, l: {type: array, items: {type: integer}}, x: {type: number},"
    schemas += " o: {type: object, properties: {k: {type: integer}}}}"
    workflow = check(f"inputs: {schemas}\n" + arg("inputs")).workflow
    assert workflow is not None
    # When a run is given such values
    values, wrong = check_inputs(workflow.inputs, {"l": [1.0, 2], "x": 2.0, "o": {"k": 4.0, "other": 5.0}})
    # Then its tasks get integers, and other numbers stay as they are
    assert wrong == []
    assert repr(values) == repr({"n": 3, "l": [1, 2], "x": 2.0, "o": {"k": 4, "other": 5.0}})


# -- graphs inside steps

INNER = """\
steps:
  out: {task: do}
  g:
    steps:
      x: {task: do, args: {what: "${{ steps.out.output }}"}}
      y: {task: do, run_on: failure, needs: [x]}
    outputs: {a: "${{ steps.x.output }}", b: "${{ steps.out.output }}"}
  after: {task: do, args: {what: "${{ steps.g.output.a }}"}}
"""


def test_a_graph_inside_a_step_reads_its_own_steps_and_those_outside() -> None:
    assert told(check(INNER)) == []


@pytest.mark.parametrize(
    ("before", "after", "code", "mark"),
    [
        ("steps.x.output }}\", b", "steps.z.output }}\", b", "SF104", "steps.z.output"),
        ("steps.g.output.a", "steps.g.output.c", "SF207", "steps.g.output.c"),
        ("steps.g.output.a", "steps.x.output", "SF109", "steps.x.output"),
        ("needs: [x]", "needs: [out]", "SF101", "out"),
        ("what: \"${{ steps.out.output", "what: \"${{ steps.g.output", "SF103", "steps.g.output"),
        ("what: \"${{ steps.out.output", "what: \"${{ steps.after.output", "SF102", "steps.after.output"),
    ],
)  # fmt: skip
def test_a_fault_in_a_graph_inside_a_step(before: str, after: str, code: str, mark: str) -> None:
    found = [one for one in told(check(INNER.replace(before, after))) if one[0] != "SF107"]
    assert (code, mark) in found


def test_a_path_that_the_expression_tests_is_an_optional_edge() -> None:
    # Given a plain read next to has() of the same step
    body = arg("steps.a.output.x if has(steps.a.output) else 1")
    workflow = check(body).workflow
    assert workflow is not None
    # Then the step does not depend on the output of the other being there
    (_, b) = workflow.body.steps  # type: ignore[union-attr]
    assert set(dependencies(b)) == {("a", "optional")}
