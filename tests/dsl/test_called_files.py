"""The workflows that a file calls are read with it: their inputs, the types of their outputs, circles, and paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stemflow.cli.main import main
from stemflow.runtime.client.workflow_files import Checked, WorkflowFile
from tests.dsl.checked import told

HEAD = 'stemflow: "1"\nname: demo\n'
CHILD = """\
inputs: {n: {type: integer}, note: {type: string, default: ""}}
steps: {a: {task: do}}
outputs: {sum: "${{ inputs.n + 1 }}", a: "${{ steps.a.output }}"}
"""


def write(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + body, "utf-8")
    return path


def check(path: Path) -> Checked:
    return WorkflowFile.of(path.read_text("utf-8"), str(path)).checked(None)


def call(folder: Path, inputs: str, more: str = "", ref: str = "./child.yaml") -> Checked:
    write(folder, "child.yaml", CHILD)
    body = f"steps:\n  sub: {{workflow: {{ref: {ref}, inputs: {inputs}}}}}\n{more}"
    return check(write(folder, "parent.yaml", body))


@pytest.mark.parametrize(
    ("inputs", "marked", "said"),
    [
        ("{n: 1}", None, ""),
        ("{n: 1, note: x}", None, ""),
        ("{n: 1, nte: x}", "nte", "has no input `nte`"),
        ("{note: x}", "./child.yaml", "needs the input `n`"),
        ("{n: many}", "many", "expected a whole number, got the text 'many'"),
        ("""{n: "${{ 'many' }}"}""", """"${{ 'many' }}\"""", "expects a whole number, and this gives a text"),
    ],
)
def test_inputs_are_checked_against_the_other_file(
    tmp_path: Path, inputs: str, marked: str | None, said: str
) -> None:
    checked = call(tmp_path, inputs)
    assert told(checked) == ([] if marked is None else [("SF312", marked)])
    assert marked is None or said in checked.found[0].message


@pytest.mark.parametrize(
    ("expression", "codes"),
    [("steps.sub.output.sum + 1", []), ("steps.sub.output.smu", ["SF207"]), ("steps.sub.output.sum.x", ["SF212"])],
)
def test_the_outputs_of_the_other_file_have_types(tmp_path: Path, expression: str, codes: list[str]) -> None:
    checked = call(tmp_path, "{n: 1}", f'outputs: {{x: "${{{{ {expression} }}}}"}}\n')
    assert [one.code for one in checked.found] == codes


def test_the_output_of_one_that_is_not_waited_for_is_its_run_id(tmp_path: Path) -> None:
    more = 'outputs: {x: "${{ steps.sub.output.run_id }}", y: "${{ steps.sub.output.sum }}"}\n'
    checked = call(tmp_path, "{n: 1}, wait: false", more)
    assert [(one.code, one.message) for one in checked.found] == [
        ("SF207", "there is no `sum` in the output of `sub`")
    ]


def test_a_file_is_found_from_the_folder_of_the_one_that_calls_it(tmp_path: Path) -> None:
    write(tmp_path, "shared/low.yaml", "steps: {a: {task: do}}\noutputs: {v: '1'}\n")
    write(tmp_path, "parts/mid.yaml", "steps: {a: {workflow: {ref: ../shared/low.yaml}}}\n")
    top = write(tmp_path, "flows/top.yaml", "steps: {a: {workflow: {ref: ../parts/mid.yaml}}}\n")
    # Given no project, the file may call only what is below its own folder
    assert "not below the folder of the project" in check(top).found[0].message
    # With one, all three are read
    (tmp_path / "pyproject.toml").touch()
    assert check(top).found == ()


def test_nothing_outside_of_the_project_is_read(tmp_path: Path) -> None:
    project = tmp_path / "project"
    outside = write(tmp_path, "outside.yaml", "steps: {a: {task: do}}\n")
    write(project, "x.yaml", "steps: {a: {task: do}}\n")
    os.symlink(outside, project / "link.yaml")
    os.symlink(tmp_path, project / "up")
    for ref in ("../outside.yaml", "./link.yaml", "up/outside.yaml", str(outside)):
        found = check(write(project, "parent.yaml", f"steps: {{a: {{workflow: {{ref: '{ref}'}}}}}}\n")).found
        assert [one.code for one in found] == ["SF111"], ref
        assert "/outside.yaml" not in found[0].message.replace(ref, "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file other.yaml"),
        ("steps: {a: {task: do, neds: [b]}}\n", "./other.yaml has an error in line 3: SF010"),
        ("inputs: {n: {type: string}}\nsteps: {a: {workflow: {ref: ./gone.yaml}}}\n", "SF111"),
    ],
)
def test_a_file_that_is_missing_or_wrong_is_one_finding_where_it_is_called(
    tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        write(tmp_path, "other.yaml", content)
    checked = check(write(tmp_path, "parent.yaml", "steps: {a: {workflow: {ref: ./other.yaml}}}\n"))
    assert told(checked) == [("SF111", "./other.yaml")]
    assert said in checked.found[0].message


def test_a_circle_is_found_in_each_of_its_files(tmp_path: Path) -> None:
    for name, target in (("a", "b"), ("b", "c"), ("c", "a")):
        write(tmp_path, f"{name}.yaml", f"steps: {{x: {{workflow: {{ref: ./{target}.yaml}}}}}}\n")
    into = write(tmp_path, "into.yaml", "steps: {x: {workflow: {ref: ./a.yaml}}}\n")
    checked = check(tmp_path / "b.yaml")
    assert told(checked) == [("SF112", "./c.yaml")]
    assert "b.yaml -> c.yaml -> a.yaml -> b.yaml" in checked.found[0].message
    # A file that leads into a circle without being in it names the error of the file that it calls
    assert [one.code for one in check(into).found] == ["SF111"]


def test_calls_that_multiply_are_refused_before_they_are_put_together(tmp_path: Path) -> None:
    write(tmp_path, "f0.yaml", "steps: {a: {task: do}}\n")
    for level in range(1, 8):
        calls = "".join(f"  s{i}: {{workflow: {{ref: ./f{level - 1}.yaml}}}}\n" for i in range(10))
        write(tmp_path, f"f{level}.yaml", f"steps:\n{calls}")
    found = check(tmp_path / "f7.yaml").found
    assert {one.code for one in found} == {"SF111"}


def test_changed_since_checks_the_files_that_call_a_changed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given that only the file that is called has changed
    call(tmp_path, "{n: 1}")
    write(tmp_path, "alone.yaml", "steps: {a: {task: do}}\n")
    grand = write(tmp_path, "grand.yaml", "steps: {a: {workflow: {ref: ./parent.yaml}}}\n")
    changed = frozenset({os.path.realpath(tmp_path / "child.yaml")})
    monkeypatch.setattr("stemflow.cli.validate.changed_since", lambda revision: changed)
    write(tmp_path, "child.yaml", CHILD.replace("n:", "number:").replace("inputs.n ", "inputs.number "))
    # When all files are validated
    assert main(["validate", str(tmp_path), "--changed-since", "HEAD"]) == 2
    # Then its callers are checked too, and nothing else
    said = capsys.readouterr()
    assert "parent.yaml:4" in said.out and str(grand) in said.out
    assert "3 files" in said.err


@pytest.mark.parametrize(
    ("case", "marked"),
    [
        ("mocks: {do: {}}, expect: {ran: [sub.body.a]}", None),
        ("mocks: {doo: {}}, expect: {state: succeeded}", "doo"),
        ("expect: {ran: [sub.body.b]}", "sub.body.b"),
    ],
)
def test_test_cases_may_name_what_is_in_the_other_file(tmp_path: Path, case: str, marked: str | None) -> None:
    checked = call(tmp_path, "{n: 1}", f"tests: {{x: {{{case}}}}}\n")
    assert told(checked) == ([] if marked is None else [("SF310", marked)])


def test_the_steps_of_a_run_of_its_own_are_not_those_of_the_case(tmp_path: Path) -> None:
    checked = call(tmp_path, "{n: 1}, wait: false", "tests: {x: {mocks: {do: {}}, expect: {state: succeeded}}}\n")
    assert told(checked) == [("SF310", "do")]


LIBRARY = """\
templates:
  twice:
    params: {n: {type: integer}}
    do: {set: {twice: "${{ params.n * 2 }}"}}
"""
USES = """\
use: {lib: ./lib.yaml}
inputs: {n: {type: integer}}
templates:
  more:
    params: {n: {type: integer}}
    do: {template: lib.twice, args: {n: "${{ params.n + 1 }}"}}
steps: {a: {template: more, args: {n: "${{ inputs.n }}"}}}
outputs: {twice: "${{ steps.a.output.twice }}"}
"""


@pytest.mark.parametrize(("field", "codes"), [("twice + 1", []), ("twcie", ["SF207"])])
def test_a_called_file_has_templates_and_uses_those_of_others(tmp_path: Path, field: str, codes: list[str]) -> None:
    write(tmp_path, "lib.yaml", LIBRARY)
    write(tmp_path, "child.yaml", USES)
    body = f"""steps:
  sub: {{workflow: {{ref: ./child.yaml, inputs: {{n: 1}}}}}}
outputs: {{n: "${{{{ steps.sub.output.{field} }}}}"}}
"""
    assert [code for code, _ in told(check(write(tmp_path, "parent.yaml", body)))] == codes
