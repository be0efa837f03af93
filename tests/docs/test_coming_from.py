"""The pages for users of other engines: every example in them is a file, a step, a key or a command that is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stemflow.cli.main import main
from stemflow.runtime.client.workflow_files import WorkflowFile

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "coming-from"
ENGINES = ("airflow", "argo", "celery", "conductor", "github-actions", "kestra", "step-functions", "tekton")
INPUTS = """\
inputs:
  items: {type: array, default: [{id: 1}]}
  on: {type: boolean, default: true}
  n: {type: integer, default: 1}
  name: {type: string, default: x}
"""


def rows(engine: str) -> list[tuple[str, str]]:
    """(their word, example) of each row of the tables of a page."""
    page = (FOLDER / f"{engine}.md").read_text("utf-8")
    lines = re.findall(r"^\|.*\|$", page, re.MULTILINE)
    cells = [[one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [(cell[0], cell[2].strip("`")) for cell in cells[2:]]


EXAMPLES = [(engine, word, text) for engine in ENGINES for word, text in rows(engine)]
FILES = [
    (engine, text)
    for engine in ENGINES
    for text in re.findall(r"```yaml\n(.*?)```", (FOLDER / f"{engine}.md").read_text("utf-8"), re.DOTALL)
]


def errors(text: str, folder: Path) -> list[str]:
    """What the checker says of a file next to which there is `other.yaml`."""
    for name in ("other", "series"):
        other = 'stemflow: "1"\nname: other\ninputs: {parts: {default: null}}\nsteps: {a: {task: do}}\n'
        (folder / f"{name}.yaml").write_text(other)
    found = WorkflowFile.of(text, str(folder / "x.yaml")).checked(None).found
    return [f"{one.line}: {one.code}: {one.message}" for one in found if one.severity == "error"]


@pytest.mark.parametrize(("engine", "text"), FILES, ids=[engine for engine, _ in FILES])
def test_a_file_on_a_page_is_right(engine: str, text: str, tmp_path: Path) -> None:
    assert errors(text, tmp_path) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_each_word_has_an_example_that_is_right(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {}
    for word, example in rows(engine):
        if example.startswith("stemflow "):
            found = [] if main([*example.split()[1:], "--help"]) == 0 else ["there is no such command"]
        elif example.startswith("app: "):
            found = []  # Python, which the program on the page shows
        elif example.startswith("{"):
            steps = f"steps:\n  a: {{task: do}}\n  b: {{task: do}}\n  c: {example}\n"
            found = errors(f'stemflow: "1"\nname: demo\n{INPUTS}{steps}', tmp_path)
        else:
            inputs = "" if example.startswith("inputs:") else INPUTS
            found = errors(f'stemflow: "1"\nname: demo\n{inputs}steps: {{a: {{task: do}}}}\n{example}\n', tmp_path)
        if found:
            wrong[word] = (example, found)
    capsys.readouterr()
    assert wrong == {}


def test_each_engine_has_a_page_that_says_what_is_not_here() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == {*ENGINES, "README"}
    for engine in ENGINES:
        page = (FOLDER / f"{engine}.md").read_text("utf-8")
        assert len(page.partition("## What is not here\n")[2].split("\n* ")) >= 4, engine
        assert len(rows(engine)) >= 25, engine
        assert f"({engine}.md)" in (FOLDER / "README.md").read_text("utf-8")
