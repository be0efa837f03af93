"""validate, graph and schema: commands that read files and touch no store."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from stemflow.cli.graph import GraphNode, _mermaid
from tests.cli.test_run import follows_schema
from tests.cli.world import Cli

WRONG = 'stemflow: "1"\nname: wrong\nsteps:\n  a: {needs: [b], task: say}\n'
SHAPES = """\
stemflow: "1"
name: shapes
steps:
  first: {task: say, args: {word: "a \\"quoted\\" word"}}
  both:
    chord:
      group: {x: {task: say, args: {word: "${{ steps.first.output }}"}}, y: {task: each, args: {n: 1}}}
      then: {task: say, args: {word: "${{ results[0] }}"}}
  last: {needs: [both], chain: [{task: say, args: {word: one}}]}
"""


def test_a_folder_means_the_workflow_files_in_it(project: Path, cli: Cli) -> None:
    # Given a folder with a right and a wrong file, and one that is hidden
    (project / "more").mkdir()
    (project / "more" / "wrong.yml").write_text(WRONG)
    (project / ".hidden.yaml").write_text("no workflow")
    # When the folder is checked
    ran = cli("validate", ".")
    # Then all files are, and the finding has its place
    assert ran.code == 2
    assert re.match(r"\./more/wrong\.yml:4:\d+: error SF101: needs: there is no step `b`\n", ran.out)
    assert ran.err == "3 files: 1 error\n"


def test_validate_as_json(project: Path, cli: Cli) -> None:
    (project / "wrong.yaml").write_text(WRONG)
    ran = cli("validate", "wrong.yaml", "--format", "json")
    (found,) = follows_schema("validate", ran.out)["diagnostics"]
    assert (found["file"], found["line"], found["code"]) == ("wrong.yaml", 4, "SF101")


def test_validate_as_annotations_of_github(project: Path, cli: Cli) -> None:
    (project / "wrong.yaml").write_text(WRONG)
    ran = cli("validate", "wrong.yaml", "--format", "github")
    place = r"file=wrong\.yaml,line=4,col=\d+,endColumn=\d+"
    assert re.match(rf"::error {place},title=SF101::needs: there is no step `b`", ran.out)


def test_validate_imports_no_tasks_unless_they_are_named(project: Path, cli: Cli) -> None:
    # Given tasks that cannot be imported, and a task name that is known to none
    (project / "tasks.py").write_text("raise RuntimeError\n")
    (project / "wrong.yaml").write_text(WRONG.replace("{needs: [b], task: say}", "{task: sya}"))
    # Then the file alone is fine
    assert cli("validate", "wrong.yaml").code == 0
    # And with tasks that can, the name is not
    (project / "jobs.py").write_text("from stemflow import TaskRegistry\n\nmine = TaskRegistry()\n")
    assert "SF401" in cli("validate", "wrong.yaml", "--tasks", "jobs:mine").out


TYPED = """\
from __future__ import annotations
import dataclasses, datetime as dt
from stemflow import TaskMetadata, TaskRegistry
registry = TaskRegistry()
@dataclasses.dataclass
class Line:
    sku: str
    qty: int = 1
    size: tuple[int, int] | None = None
@registry.task("book", metadata=TaskMetadata(description="Books it."))
def book(day: dt.date, lines: list[Line], note: str = "") -> None: ...
@registry.task("stop")
def stop() -> None: ...
"""
CALL = {"day": "2026-11-24", "lines": [{"sku": "a", "qty": 2, "size": [1, 2]}]}


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"note": "x"}, True),
        ({"day": "${{ inputs.day }}", "lines": "${{ inputs.lines }}"}, True),
        ({"lines": [{"sku": "a", "qty": "${{ item }}"}, "${{ item }}"]}, True),
        ({"lines": [{"sku": "a", "qty": "two"}]}, False),
        ({"lines": [{"sku": "a", "size": [1, "x"]}]}, False),
        ({"lines": [{"sku": "a", "size": [1, 2, 3]}]}, False),
        ({"lines": [{"qty": 1}]}, False),
        ({"day": 3}, False),
        ({"hour": 3}, False),
    ],
)
def test_the_schema_with_tasks_knows_their_names_and_arguments(
    change: dict[str, Any], fits: bool, project: Path, cli: Cli
) -> None:
    # Given the schema of a project's own workflow files
    (project / "typed_tasks.py").write_text(TYPED)
    schema = json.loads(cli("schema", "--tasks", "typed_tasks").out)
    judge = Draft7Validator(schema)
    Draft7Validator.check_schema(schema)

    def accepts(**step: Any) -> bool:
        return judge.is_valid({"stemflow": "1", "name": "x", "steps": {"a": step}})

    # Then it accepts the calls that fit, with expressions in any place, and refuses the others
    assert accepts(task="book", args=CALL | change) is fits
    assert accepts(task="stop", compensate={"task": "book", "args": CALL | change}) is fits
    assert accepts(task="stop", args={}) and accepts(task="stop")
    assert not accepts(task="book") and not accepts(task="stop", args={"now": True}) and not accepts(task="sto")
    assert schema["definitions"]["args_of_book"]["description"] == "Books it."


def test_the_schema_is_printed_as_it_is_shipped(cli: Cli) -> None:
    shipped = Path(__file__).parents[2] / "schemas" / "workflow.v1.schema.json"
    assert cli("schema").out == shipped.read_text("utf-8")


def test_graph_as_json_has_every_edge(project: Path, cli: Cli) -> None:
    (project / "shapes.yaml").write_text(SHAPES)
    graph = json.loads(cli("graph", "shapes.yaml", "--format", "json").out)
    assert [node["path"] for node in graph["nodes"]][:3] == ["", "first", "both"]
    assert {(edge["from"], edge["to"], *edge["kinds"]) for edge in graph["edges"]} == {
        ("first", "both", "data"),
        ("both", "last", "order"),
        ("both.x", "both.then", "data"),
        ("both.y", "both.then", "data"),
    }


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        (
            "mermaid",
            ["flowchart LR", '    n1["first: say"]', '    subgraph n2["both (chord)"]', "  n2 -.-> n6", "  n1 --> n2"],
        ),
        (
            "dot",
            [
                "digraph workflow {",
                '  "first" -> "both.x" [lhead="cluster both"];',
                '    "first" [label="first: say"];',
            ],
        ),
    ],
)
def test_graph_draws_frames_and_edges(form: str, lines: list[str], project: Path, cli: Cli) -> None:
    (project / "shapes.yaml").write_text(SHAPES)
    drawn = cli("graph", "shapes.yaml", "--format", form).out.splitlines()
    assert [line for line in lines if line not in drawn] == []


@pytest.mark.parametrize(
    "words", [("runn",), ("run",), ("run", "x.yaml", "--concurrency", "0"), ("validate", "--format", "xml", ".")]
)
def test_wrong_usage_exits_with_three(words: tuple[str, ...], cli: Cli) -> None:
    ran = cli(*words)
    assert ran.code == 3
    assert ran.err.splitlines()[-1].startswith("help: `stemflow")


def test_the_version_is_printed(cli: Cli) -> None:
    ran = cli("--version")
    assert ran.code == 0
    assert ran.out.startswith("stemflow ")


def test_names_that_are_not_text_are_shown_and_refused_with_a_sentence(project: Path, cli: Cli) -> None:
    # Given a file whose name is not UTF-8
    name = os.fsdecode(b"caf\xe9.yaml")
    (project / name).write_text((project / "hello.yaml").read_text())
    # Then it is checked, and shown with an escape
    assert cli("validate", name).code == 0
    assert "caf\\udce9.yaml" in cli("run", name).err
    # And an id that is not text is refused
    ran = cli("show", os.fsdecode(b"\xff"))
    assert (ran.code, "not UTF-8" in ran.err) == (3, True)


def test_a_command_that_is_suggested_cannot_steer_the_terminal(project: Path, cli: Cli) -> None:
    # Given a file with an escape in its name, and a run of it that has its unique key
    name = "a\x1b[2J.yaml"
    (project / name).write_text((project / "flaky.yaml").read_text())
    # Then no output holds the escape in the raw
    for words in (("run", name), ("validate", name), ("submit", name), ("graph", name), ("runs",)):
        ran = cli(*words)
        assert "\x1b" not in ran.out + ran.err, words


def test_labels_of_a_graph_are_escaped_for_mermaid() -> None:
    # Given a label with all that means something to Mermaid
    label = 'a"#<b>&`'
    root = GraphNode("", "task", label, ())
    # Then each character is written as an entity
    assert list(_mermaid({"": root}, [], {})) == ["flowchart LR", '  n0["a#quot;#35;#lt;b#gt;#amp;#96;"]']
