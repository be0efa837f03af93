"""`templates` and `use`: steps with parameters, copied when the file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stemflow import InvalidWorkflow, load_workflow
from stemflow.dsl import parse_workflow
from stemflow.dsl.export import to_yaml
from stemflow.expr.substitute import CannotSubstitute, with_arguments
from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.dsl.checked import check, told

HEAD = 'stemflow: "1"\nname: x\n'
NOTIFY = """\
templates:
  notify:
    params:
      text: {type: string}
      to: {type: string, default: ops}
      tries: {type: integer, default: 2}
    do:
      task: mail
      args: {to: "${{ params.to }}", text: "[${{ params.to }}] ${{ params.text }}"}
      retry: {max: 3}
      when: params.tries > 1 and has(params.text)
"""


def steps(body: str, more: str = "") -> Any:
    parsed = parse_workflow(f"{HEAD}{NOTIFY}{more}steps:\n{body}", "x.yaml")
    assert parsed.workflow is not None, parsed.diagnostics
    return parsed.workflow.body.steps


def test_a_step_is_a_copy_of_its_template_with_its_arguments() -> None:
    a, b = steps("""\
  a: {task: load}
  b: {template: notify, args: {text: "got ${{ steps.a.output.n }}", tries: "${{ steps.a.output.n }}"}, labels: {x: y}}
""")
    assert a.name == "a" and (b.name, b.task, b.labels) == ("b", "mail", {"x": "y"})
    assert b.bind == {"to": "ops", "text": "[ops] got ${{ steps.a.output.n }}"}
    assert b.when == "steps.a.output.n > 1 and true"
    assert b.options["max_retries"] == 3


def test_keys_next_to_template_replace_those_of_the_template() -> None:
    (b,) = steps("  b: {template: notify, args: {text: hi}, retry: {max: 9}, when: 'true', on_error: continue}\n")
    assert (b.options["max_retries"], b.when, b.on_error) == (9, "true", "continue")


def test_a_reference_in_an_argument_is_an_edge_and_a_template_may_be_anywhere_a_step_may() -> None:
    parsed = parse_workflow(f"""{HEAD}{NOTIFY}steps:
  first: {{task: load}}
  each:
    map:
      items: [1, 2]
      do: {{template: notify, args: {{text: "${{{{ item }}}} ${{{{ steps.first.output }}}}"}}}}
""", "x.yaml")  # fmt: skip
    assert parsed.workflow is not None, parsed.diagnostics
    assert parsed.view is not None
    assert ("first", "each") in {(edge.source, edge.target) for edge in parsed.view.edges}
    assert parsed.workflow.body.steps[1].do.bind["text"] == "[ops] ${{ item }} ${{ steps.first.output }}"


def test_templates_contain_graphs_and_other_templates() -> None:
    flow = parse_workflow(f"""{HEAD}{NOTIFY}  outer:
    params: {{who: {{type: string}}}}
    do:
      steps:
        load: {{task: load, args: {{who: "${{{{ params.who }}}}"}}}}
        tell: {{template: notify, args: {{text: "${{{{ steps.load.output }}}} for ${{{{ params.who }}}}", to: x}}}}
      outputs: {{n: "${{{{ steps.load.output }}}}"}}
steps:
  a: {{template: outer, args: {{who: ann}}}}
outputs: {{n: "${{{{ steps.a.output.n }}}}"}}
""", "x.yaml").workflow  # fmt: skip
    assert flow is not None
    tell = flow.body.steps[0].steps[1]
    assert tell.bind == {"to": "x", "text": "[x] ${{ steps.load.output }} for ann"}
    assert "template" not in to_yaml(flow)


@pytest.mark.parametrize(
    ("step", "code", "mark"),
    [
        ("{template: notfy, args: {text: a}}", "SF113", "notfy"),
        ("{template: notify}", "SF314", "notify"),
        ("{template: notify, args: {text: 3}}", "SF314", "3"),
        ("{template: notify, args: {text: a, txt: b}}", "SF314", "txt"),
        ("{template: notify, args: {text: a, tries: '${{ steps.a.state }}'}}", "SF314", "'${{ steps.a.state }}'"),
        ("{template: notify, args: {text: '${{ steps.c.output }}'}}", "SF104", "steps.c.output"),
        ("{template: notify, args: {text: '${{ nope }}'}}", "SF204", "nope"),
        ("{template: notify, args: {text: a}, race: true}", "SF014", "race"),
        ("{template: notify, args: {text: a}, retyr: {max: 1}}", "SF010", "retyr"),
        ("{template: notify, task: mail, args: {text: a}}", "SF013", "task"),
    ],
)
def test_a_fault_in_a_use_is_found_on_its_part(step: str, code: str, mark: str) -> None:
    checked = check(f"{NOTIFY}steps:\n  a: {{task: do}}\n  ok: {{template: notify, args: {{text: a}}}}\n  b: {step}\n")
    assert told(checked) == [(code, mark)], checked.found


@pytest.mark.parametrize(
    ("do", "code", "mark"),
    [
        ("{task: do, args: {what: '${{ params.textt }}'}}", "SF205", "params.textt"),
        ("{task: do, args: {what: '${{ inputs.x }}'}}", "SF204", "inputs"),
        ("{task: do, args: {what: '${{ steps.b.output }}'}}", "SF204", "steps"),
        ("{steps: {i: {task: do, args: {what: '${{ steps.b.output }}'}}}}", "SF104", "steps.b.output"),
        ("{task: do, when: params.text}", "SF208", "params.text"),
        ("{template: t}", "SF315", "t"),
    ],
)
def test_a_template_is_checked_in_its_own_place(do: str, code: str, mark: str) -> None:
    before = f"templates:\n  t:\n    params: {{text: {{type: string, default: a}}}}\n    do: {do}\n"
    checked = check(f"{before}steps:\n  b: {{template: t}}\n")
    assert (code, mark) in told(checked)
    assert {one.line for one in checked.found if one.code == code} <= {4, 6}, "not at its use, too"


def test_an_argument_that_means_something_else_inside_is_refused() -> None:
    text = """\
templates:
  all:
    params: {value: {}}
    do: {map: {items: [1], do: {task: do, args: {what: "${{ params.value }}", count: "${{ item }}"}}}}
steps:
  a: {map: {items: [2], do: {template: all, args: {value: "${{ item }}"}}}}
"""
    checked = check(text)
    assert told(checked) == [("SF314", '"${{ item }}"')]
    assert "`item` means something of its own" in checked.found[0].message


def test_an_error_in_a_copy_is_reported_once_at_its_use_and_a_warning_at_the_template() -> None:
    text = "templates:\n  t: {params: {n: {}}, do: {task: do, args: {count: '${{ params.n }}'}, when: 'true'}}\n"
    checked = check(f"{text}steps:\n  a: {{template: t, args: {{n: x}}}}\n", tasks=True)
    assert [(one.code, one.line) for one in checked.found] == [("SF209", 4), ("SF304", 6)]


def test_a_step_that_names_a_broken_template_is_not_reported_as_well() -> None:
    checked = check("templates:\n  t: {step: {task: mail}}\nsteps:\n  a: {template: t, args: {}}\n")
    assert {one.code for one in checked.found} == {"SF010", "SF015"}


def test_a_template_that_no_step_uses_is_a_warning() -> None:
    assert told(check("templates:\n  t: {do: {task: do}}\nsteps:\n  a: {task: do}\n")) == [("SF711", "t")]


@pytest.mark.parametrize(
    ("text", "bare", "given", "found"),
    [
        ("params.a ** 2", True, {"a": -2}, "(-2) ** 2"),
        ("params.a.b[0]", True, {"a": "${{ x or y }}"}, "(x or y).b[0]"),
        ("get(params.a.c, params.d)", True, {"a": {"b": 1}, "d": "z"}, "'z'"),
        ("has(params.a.b) and not has(params.a.c)", True, {"a": {"b": False}}, "true and (not false)"),
        ("has(params.a) and get(params.b, 1) == 2", True, {"a": "${{ x.y }}", "b": "${{ x + y }}"},
         "has(x.y) and (x + y if x + y != null else 1) == 2"),
        ("has(params.a)", True, {"a": "b ${{ x }}"}, "true"),
        ("keys(params)", True, {"a": [None, True]}, "keys({'a': [null, true]})"),
        ("a ${{ params.a }} b ${{ params.d * 2 }}", False, {"a": "x ${{ y }}", "d": 1.5},
         "a x ${{ y }} b ${{ 1.5 * 2 }}"),
    ],
)
def test_arguments_take_the_place_of_parameters_in_the_tree(text: str, bare: bool, given: Any, found: str) -> None:
    assert with_arguments(text, bare, "params", given) == found


@pytest.mark.parametrize(
    ("text", "given"),
    [("[x + params.a for x in y]", {"a": "${{ x }}"}), ("params.a + 'b'", {"a": "c ${{ d }}"})],
)
def test_an_argument_that_cannot_take_the_place_is_refused(text: str, given: Any) -> None:
    with pytest.raises(CannotSubstitute):
        with_arguments(text, True, "params", given)


# -- other files


LIBRARY = HEAD.replace("x", "lib") + """\
types: {Order: {type: object, properties: {id: {type: string}}}}
templates:
  send: {params: {order: {type: Order}}, do: {template: raw, args: {id: "${{ params.order.id }}"}}}
  raw: {params: {id: {type: string}}, do: {task: send, args: {id: "${{ params.id }}"}}}
"""
USER = HEAD + """\
use: {lib: lib/common.yaml}
inputs: {order: {type: lib.Order}}
steps:
  a: {template: lib.send, args: {order: "${{ inputs.order }}"}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "lib").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    (folder / "lib" / "common.yaml").write_text(LIBRARY)
    (folder / "user.yaml").write_text(USER)
    return folder


def codes(path: Path) -> list[tuple[str, str]]:
    found = WorkflowFile.of(path.read_text(), str(path)).checked(None).found
    return [(one.code, one.message) for one in found]


def test_templates_and_types_of_another_file_are_used_by_its_alias(project: Path) -> None:
    flow = load_workflow(project / "user.yaml")
    assert flow.inputs["order"] == {"type": "object", "properties": {"id": {"type": "string"}}}
    assert flow.body.steps[0].bind == {"id": "${{ inputs.order.id }}"}
    assert codes(project / "user.yaml") == codes(project / "lib" / "common.yaml") == []


def test_a_file_of_templates_cannot_be_run(project: Path) -> None:
    with pytest.raises(InvalidWorkflow, match="expected a body to run"):
        load_workflow(project / "lib" / "common.yaml")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../outside.yaml", "expected a file inside the project"),
        ("lib/link.yaml", "expected a file inside the project"),
        ("/etc/hosts.yaml", "expected a path relative to this file"),
        ("~/x.yaml", "expected a path relative to this file"),
        ("https://a/x.yaml", "expected a path relative to this file"),
        ("lib/none.yaml", "found none"),
        ("lib", "expected a file that ends in .yaml"),
        ("user.yaml", "expected files that do not use each other"),
        ("lib/broken.yaml", "has an error in line 3"),
        ("lib/back.yaml", "expected files that do not use each other"),
    ],
)
def test_only_sound_files_of_the_project_are_used(project: Path, path: str, said: str) -> None:
    (project.parent / "outside.yaml").write_text(LIBRARY)
    (project / "lib" / "link.yaml").symlink_to(project.parent / "outside.yaml")
    (project / "lib" / "broken.yaml").write_text(HEAD + "steps: 3\n")
    (project / "lib" / "back.yaml").write_text(HEAD + "use: {up: ../user.yaml}\ntypes: {A: {type: object}}\n")
    file = project / "user.yaml"
    file.write_text(f"{HEAD}use: {{lib: {path}}}\nsteps:\n  a: {{task: b}}\n")
    ((code, message),) = codes(file)
    assert code == "SF006" and said in message


def test_a_text_without_a_folder_uses_no_files() -> None:
    (found,) = parse_workflow(HEAD + "use: {lib: a.yaml}\nsteps:\n  a: {task: b}\n", "x").diagnostics
    assert found.code == "SF006"
