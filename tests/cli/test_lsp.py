"""The language server: what an editor is shown while a file is typed, and the protocol around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stemflow.cli.lsp.analysis import Document
from stemflow.cli.lsp.server import function_place
from stemflow.dsl.fixes import apply
from stemflow.runtime.catalog.lock import LockedTasks, decode, encode, locked_by
from stemflow.runtime.tasks.discovery import load_named
from tests.cli.language_client import Client
from tests.cli.world import Cli

TEXT = """\
stemflow: "1"
name: typed
inputs: {amount: {type: integer, default: 1}, who: {type: string, default: x}}
vars: {region: eu}
steps:
  greet: {task: say, args: {word: "${{ inputs.who }}"}}
  make:
    needs: [greet]
    set: {total: "${{ inputs.amount }}", where: "${{ vars.region }}"}
  each:
    map:
      items: "[1, 2]"
      do:
        task: each
        args: {n: "${{ item }}"}
  last:
    needs: [make, each]
    when: steps.make.output.total > 0
    task: say
    args:
      word: "${{ steps.greet.output }} ${{ steps.greet.state }}"
"""


@pytest.fixture
def tasks(project: Path) -> LockedTasks:
    return LockedTasks(decode(encode(locked_by(load_named(["tasks"], project, "t"))), "lock"))


def typed(text: str, tasks: Any, last: Document | None = None) -> tuple[Document, int, int]:
    """The document and the place of the mark `|` in its text."""
    before = text.partition("|")[0]
    document = Document(text.replace("|", "", 1), "typed.yaml", tasks, last or Document(TEXT, "typed.yaml", tasks))
    return document, before.count("\n"), len(before) - before.rfind("\n") - 1


@pytest.mark.parametrize(
    ("old", "new", "has", "has_not"),
    [
        ("inputs.amount }}", "inputs.| }}", {"amount", "who"}, {"region"}),
        ("vars.region", "vars.|", {"region"}, {"amount"}),
        ("steps.greet.output", "steps.|", {"greet", "make", "each", "last"}, {"amount"}),
        ("steps.greet.output }} ", "steps.greet.| }} ", {"output", "state", "error", "members"}, set()),
        ("steps.make.output.total > 0", "steps.make.output.| > 0", {"total", "where"}, set()),
        ("when: steps.make.output.total > 0", "when: |", {"inputs", "steps", "len", "has"}, {"say"}),
        ("    task: say\n    args:", "    task: |\n    args:", {"say", "each", "flaky"}, set()),
        ("{task: say, args", "{task: |, args", {"say", "each"}, set()),
        ("needs: [make, each]", "needs: [|]", {"greet", "make", "each"}, {"last"}),
        ("    task: say\n    args:", "    on_error: |\n    task: say\n    args:", {"fail", "continue"}, set()),
        ("    task: say\n    args:", "    |\n    task: say\n    args:", {"retry", "compensate"}, {"map", "items"}),
        ("      items:", "      |\n      items:", {"as", "concurrency", "index"}, {"retry", "items"}),
        ('args: {n: "${{ item }}"}', "args: {|}", {"n"}, {"word"}),
        ("name: typed\n", "name: typed\n|\n", {"timeout", "outputs", "tests"}, {"steps", "task"}),
        ("{type: integer, default: 1}", "{type: integer, |}", {"minimum", "description"}, {"type"}),
        ("  last:\n", "  fresh: {|}\n  last:\n", {"task", "map", "when", "chain"}, set()),
    ],
)
def test_completion(tasks: LockedTasks, old: str, new: str, has: set[str], has_not: set[str]) -> None:
    assert old in TEXT
    document, line, column = typed(TEXT.replace(old, new, 1), tasks)
    labels = {one.label for one in document.completions(line, column)}
    assert has <= labels, labels
    assert not has_not & labels


def at(text: str) -> tuple[int, int]:
    """The place of the first occurrence of a text."""
    before = TEXT[: TEXT.index(text)]
    return before.count("\n"), len(before) - before.rfind("\n") - 1


def test_hover_shows_tasks_and_types(tasks: LockedTasks) -> None:
    document = Document(TEXT, "typed.yaml", tasks)
    line, column = at("task: say")
    assert document.hover(line, column + 7) == "```\nsay(word: string)\n```"
    line, column = at("inputs.amount")
    assert document.hover(line, column + 9) == "`inputs.amount`: a whole number"
    line, column = at("steps.greet.output")
    assert document.hover(line, column + 14) == "`steps.greet.output`: a text"
    assert document.hover(0, 0) is None


def test_definitions_are_keys_of_the_file(tasks: LockedTasks) -> None:
    document = Document(TEXT, "typed.yaml", tasks)
    for text, offset, target in (("steps.make", 8, "  make:"), ("inputs.who", 8, "who:"), ("[greet]", 2, "  greet:")):
        line, column = at(text)
        span = document.definition(line, column + offset)
        wanted = at(target)
        assert span is not None
        assert (span.line, span.start) == (wanted[0], wanted[1] + len(target) - len(target.lstrip()))


def test_the_function_of_a_task_is_found_without_an_import(project: Path, tasks: LockedTasks) -> None:
    place = function_place("each", tasks, project / "deep")
    assert place is not None
    assert place[0] == project / "tasks.py"
    assert "async def each" in (project / "tasks.py").read_text().split("\n")[place[1]]
    assert function_place("unknown", tasks, project) is None


def test_a_renamed_step_is_renamed_everywhere(tasks: LockedTasks) -> None:
    document = Document(TEXT, "typed.yaml", tasks)
    for text, offset in (("  greet:", 3), ("steps.greet.state", 8), ("[greet]", 1)):
        line, column = at(text)
        edits = document.rename(line, column + offset, "hello")
        assert edits is not None
        lines = TEXT.split("\n")
        for span, new in sorted(edits, key=lambda one: (-one[0].line, -one[0].start)):
            lines[span.line] = lines[span.line][: span.start] + new + lines[span.line][span.end :]
        renamed = "\n".join(lines)
        assert renamed == TEXT.replace("greet", "hello")
        assert Document(renamed, "typed.yaml", tasks).findings() == document.findings()
    line, column = at("  greet:")
    assert document.rename(line, column + 3, "make") is None
    assert document.rename(line, column + 3, "not a name") is None
    assert document.rename(*at("name: typed"), "x") is None


def test_symbols_are_a_tree(tasks: LockedTasks) -> None:
    found = Document(TEXT, "typed.yaml", tasks).symbols()
    assert [one.name for one in found] == ["amount", "who", "greet", "make", "each", "last"]
    each = next(one for one in found if one.name == "each")
    assert [(one.name, one.detail) for one in each.children] == [("[*]", "task each")]
    assert each.last_line >= each.span.line + 5


def test_actions_are_fixes_and_suggestions(tasks: LockedTasks) -> None:
    text = TEXT.replace("inputs.who", "inputs.hwo").replace("when: steps.make", "when: true == true or steps.make")
    document = Document(text, "typed.yaml", tasks)
    line = text[: text.index("inputs.hwo")].count("\n")
    (title, edit), *_ = document.actions(line)
    assert title == "Write `who`"
    assert "inputs.who" in apply(text, [edit])


@pytest.mark.parametrize("cut", range(0, len(TEXT), 37))
def test_a_text_that_is_being_typed_never_fails(tasks: LockedTasks, cut: int) -> None:
    last = Document(TEXT, "typed.yaml", tasks)
    document = Document(TEXT[:cut], "typed.yaml", tasks, last)
    line, column = TEXT[:cut].count("\n"), cut - TEXT[:cut].rfind("\n") - 1
    document.completions(line, column)
    document.hover(line, column)
    document.definition(line, column)
    document.symbols()
    assert isinstance(document.findings(), tuple)


# -- over the protocol


def test_a_session_over_the_protocol(project: Path, cli: Cli) -> None:
    # Given a lock file, and a text with an error behind a character of two UTF-16 units
    assert cli("tasks", "lock", "--tasks", "tasks").code == 0
    uri = (project / "typed.yaml").as_uri()
    text = TEXT.replace('word: "${{ inputs.who }}"', 'word: "\U0001f600 ${{ inputs.hwo }}"')
    command = [sys.executable, "-m", "stemflow.cli.main", "lsp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        client = Client(process)
        try:
            answer = client.ask("initialize", {"processId": None, "rootUri": project.as_uri(), "capabilities": {}})
            offered = answer["capabilities"]
            assert {"renameProvider", "hoverProvider", "definitionProvider", "documentSymbolProvider",
                    "codeActionProvider", "completionProvider"} <= offered.keys()  # fmt: skip
            client.send(method="initialized", params={})
            item = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
            # When it is opened, its findings come
            client.send(method="textDocument/didOpen", params={"textDocument": item})
            shown = client.read(lambda message: message.get("method") == "textDocument/publishDiagnostics")["params"]
            (found,) = [one for one in shown["diagnostics"] if one["severity"] == 1]
            line = text.split("\n")[5]
            units = len(line[: line.index("inputs.hwo")].encode("utf-16-le")) // 2
            assert (found["code"], found["range"]["start"]) == ("SF205", {"line": 5, "character": units})
            # When it is corrected, they go
            client.send(method="textDocument/didChange", params={
                "textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"text": TEXT}],
            })  # fmt: skip
            shown = client.read(lambda message: message.get("method") == "textDocument/publishDiagnostics")["params"]
            assert [one for one in shown["diagnostics"] if one["severity"] == 1] == []
            place = {"textDocument": {"uri": uri}, "position": {"line": 5, "character": 19}}
            assert "say(word: string)" in client.ask("textDocument/hover", place)["contents"]["value"]
            assert client.ask("textDocument/definition", place)["uri"] == (project / "tasks.py").as_uri()
            assert {one["label"] for one in client.ask("textDocument/completion", place)} >= {"say", "each"}
            names = [one["name"] for one in client.ask("textDocument/documentSymbol", {"textDocument": {"uri": uri}})]
            assert "greet" in names
            step = {"textDocument": {"uri": uri}, "position": {"line": 5, "character": 3}, "newName": "hello"}
            assert len(client.ask("textDocument/rename", step)["changes"][uri]) == 4
            wide = {"textDocument": {"uri": uri}, "options": {"tabSize": 2, "insertSpaces": True}}
            assert client.ask("textDocument/formatting", wide) == []
            client.ask("shutdown", None)
            client.send(method="exit")
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_the_inputs_of_a_called_workflow_are_completed(tasks: LockedTasks, tmp_path: Path) -> None:
    (tmp_path / "refund.yaml").write_text(
        'stemflow: "1"\nname: refund\ninputs: {order: {type: string}, note: {type: string, default: x}}\n'
        "steps: {a: {task: say, args: {word: x}}}\n"
    )
    text = 'stemflow: "1"\nname: x\nsteps:\n  a: {workflow: {ref: ./refund.yaml, inputs: {}}}\n'
    before = text[: text.index("{}") + 1]
    document = Document(text, "x.yaml", tasks, path=tmp_path / "x.yaml")
    line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
    offered = {one.label: one.detail for one in document.completions(line, column)}
    assert offered == {"order": "string (required)", "note": "string"}


def test_templates_and_their_parameters_are_completed(tasks: LockedTasks) -> None:
    text = (
        'stemflow: "1"\nname: x\ntemplates:\n  tell: {params: {who: {type: string}}, do: {task: say}}\n'
        "steps:\n  a: {template: |}\n  b: {template: tell, args: {~}}\n"
    )
    for mark, label in (("|", "tell"), ("~", "who")):
        before = text[: text.index(mark)]
        document = Document(text.replace("|", "tell").replace("~", ""), "x.yaml", tasks)
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        assert label in {one.label for one in document.completions(line, column)}
