"""`stemflow fmt` and `stemflow validate --fix`: files change where it is certain, and nothing else does."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from stemflow.dsl.fixes import apply, suggestion
from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.cli.world import HELLO, Cli


def test_check_and_diff_write_nothing(project: Path, cli: Cli) -> None:
    wide = HELLO.replace("  greet: {task", "  greet:   { task")
    (project / "wide.yaml").write_text(wide)
    assert cli("fmt", "wide.yaml", "--check").code == 1
    ran = cli("fmt", "wide.yaml", "--diff")
    assert ran.code == 1
    assert "-  greet:   { task" in ran.out
    assert (project / "wide.yaml").read_text() == wide
    # When it is written, it is the standard layout
    assert cli("fmt", "wide.yaml").code == 0
    assert (project / "wide.yaml").read_text() == HELLO
    assert cli("fmt", ".", "--check").code == 0


def test_a_file_that_cannot_be_read_hides_no_other(project: Path, cli: Cli) -> None:
    (project / "broken.yaml").write_text("stemflow: [\n")
    (project / "wide.yaml").write_text(HELLO.replace("name: ", "name:   "))
    ran = cli("fmt", "broken.yaml", "wide.yaml")
    assert ran.code == 2
    assert "broken.yaml: expected a file that can be read" in ran.err
    assert (project / "wide.yaml").read_text() == HELLO


def test_standard_input_is_written_to_standard_output(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a:   1  # x\n"))
    assert cli("fmt", "-").out == "a: 1  # x\n"


HEAD = 'stemflow: "1"\nname: f\ninputs: {ok: {type: boolean, default: true}}\nsteps:\n  a: {task: t.a}\n'


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("  b: {when: '${{ inputs.ok }}', task: t.b}  # why", "  b: {when: inputs.ok, task: t.b}  # why"),
        ("  b: {when: inputs.ok == true, task: t.b}", "  b: {when: inputs.ok, task: t.b}"),
        ("  b: {when: inputs.ok != true, task: t.b}", "  b: {when: not inputs.ok, task: t.b}"),
        ("  b: {task: t.b, retry: {max: 1, retry_on: ['m:E']}}", "  b: {task: t.b, retry: {max: 1, retry_on: [m.E]}}"),
        ("  b: {task: t.b, with: {x: 1}}", "  b: {task: t.b, args: {x: 1}}"),
        ("  b: {task: t.b, continue-on-error: true}", "  b: {task: t.b, on_error: continue}"),
        ("  b: {task: t.b, queue: 7}", '  b: {task: t.b, queue: "7"}'),
        ("  b: {task: t.b}  # stemflow: ignore=SF703 no", "  b: {task: t.b}"),
        (
            "  b: {task: t.b, needs: [a], args: {x: '${{ steps.a.output }}'}}",
            "  b: {task: t.b, args: {x: '${{ steps.a.output }}'}}",
        ),
        (
            "  c: {task: t.c}\n  b:\n    task: t.b\n    needs: [c, a]\n    args: {x: '${{ steps.a.output }}'}",
            "  c: {task: t.c}\n  b:\n    task: t.b\n    needs: [c]\n    args: {x: '${{ steps.a.output }}'}",
        ),
        (
            "  b:\n    needs: [a]\n    task: t.b\n    args: {x: '${{ steps.a.output }}'}",
            "  b:\n    task: t.b\n    args: {x: '${{ steps.a.output }}'}",
        ),
    ],
)
def test_a_certain_fix_is_written(project: Path, cli: Cli, wrong: str, right: str) -> None:
    use = "outputs: {ok: '${{ inputs.ok }}'}\n"
    (project / "f.yaml").write_text(f"{HEAD}{wrong}\n{use}")
    ran = cli("validate", "f.yaml", "--fix")
    assert (project / "f.yaml").read_text() == f"{HEAD}{right}\n{use}"
    assert "f.yaml: fixed 1 finding" in ran.err
    assert ran.code == 0


def test_what_is_not_certain_stays(project: Path, cli: Cli) -> None:
    text = HEAD + "  b: {task: t.b, needs: [aa], if: x, args: {x: '${{ inputs.no }}'}}\n"
    (project / "f.yaml").write_text(text)
    assert cli("validate", "f.yaml", "--fix").code == 2
    assert (project / "f.yaml").read_text() == text


def test_a_fix_of_an_ignored_code_is_not_made(project: Path, cli: Cli) -> None:
    text = HEAD + "  b: {when: '${{ inputs.ok }}', task: t.b}\n"
    (project / "f.yaml").write_text(text)
    cli("validate", "f.yaml", "--fix", "--ignore", "SF7")
    assert (project / "f.yaml").read_text() == text


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("needs: [aa]", "needs: [a]"),
        ("args: {x: '${{ inputs.okk }}'}", "args: {x: '${{ inputs.ok }}'}"),
        ("neds: [a]", "needs: [a]"),
    ],
)
def test_a_hint_can_be_taken(wrong: str, right: str) -> None:
    text = HEAD + f"  b: {{task: t.b, {wrong}}}\n"
    found = [one for one in WorkflowFile.of(text, "f").checked(None).found if "did you mean" in (one.hint or "")]
    edit: Any = suggestion(found[0], text)
    assert edit is not None
    assert apply(text, [edit]) == HEAD + f"  b: {{task: t.b, {right}}}\n"
