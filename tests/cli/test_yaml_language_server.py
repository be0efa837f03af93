"""Workflow files in editors that know YAML and the JSON Schema alone, by the server that most of them use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.language_client import Client

ROOT = Path(__file__).parents[2]
SCHEMA = (ROOT / "schemas" / "workflow.v1.schema.json").as_uri()
SERVER = os.environ.get("YAML_LANGUAGE_SERVER", "")
"""Its program, as `npm install yaml-language-server` puts it into node_modules/yaml-language-server/bin."""

pytestmark = pytest.mark.skipif(
    not (Path(SERVER).is_file() and shutil.which("node")),
    reason="needs node, and YAML_LANGUAGE_SERVER with the path of the server",
)


class Editor:
    """Opens texts as files of their own, each of which names the schema in its first line."""

    def __init__(self, client: Client) -> None:
        self.client = client
        client.ask("initialize", {"processId": None, "rootUri": ROOT.as_uri(), "capabilities": {}})
        client.send(method="initialized", params={})
        # Without this it asks a site for the names of all public schemas.
        settings = {"yaml": {"schemaStore": {"enable": False}}}
        client.send(method="workspace/didChangeConfiguration", params={"settings": settings})

    def open(self, texts: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        """What the server says of each of them, by its name; lines are counted as in the text given."""
        for name, text in texts.items():
            item = {"languageId": "yaml", "version": 1, "uri": f"file:///files/{name}"}
            text = f"# yaml-language-server: $schema={SCHEMA}\n{text}"
            self.client.send(method="textDocument/didOpen", params={"textDocument": {**item, "text": text}})
        found: dict[str, list[dict[str, Any]]] = {}
        while found.keys() != texts.keys():
            told = self.client.read(lambda message: message.get("method") == "textDocument/publishDiagnostics")
            name = told["params"]["uri"].removeprefix("file:///files/")
            found[name] = told["params"]["diagnostics"]
        return found

    def offered(self, name: str, text: str) -> set[str]:
        """The completions at the end of the text."""
        self.open({name: text})
        lines = text.split("\n")
        place = {"line": len(lines), "character": len(lines[-1])}
        asked = {"textDocument": {"uri": f"file:///files/{name}"}, "position": place}
        return {one["label"] for one in self.client.ask("textDocument/completion", asked)["items"]}


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    command = ["node", SERVER, "--stdio"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield Editor(Client(process))
        finally:
            process.kill()


def test_it_has_nothing_to_say_of_any_example(editor: Editor) -> None:
    found = [file for file in (ROOT / "workflows").rglob("*.yaml") if not file.name.endswith(".test.yaml")]
    files = {file.name: file.read_text("utf-8") for file in found}
    assert len(files) > 30
    assert {name: said for name, said in editor.open(files).items() if said} == {}


def test_it_marks_a_key_that_does_not_exist_and_a_value_of_another_type(editor: Editor) -> None:
    text = 'stemflow: "1"\nname: x\nsteps:\n  a: {task: t, retires: 3}\n  b:\n    task: 7\n'
    said = editor.open({"wrong.yaml": text})["wrong.yaml"]
    starts = {one["message"]: one["range"]["start"] for one in said}
    assert starts == {
        "Property retires is not allowed.": {"line": 4, "character": 15},
        'Incorrect type. Expected "string".': {"line": 6, "character": 10},
    }


def test_it_offers_the_keys_of_a_kind_of_step_and_no_others(editor: Editor) -> None:
    head = 'stemflow: "1"\nname: x\nsteps:\n  a:\n'
    of_task = editor.offered("task.yaml", f"{head}    task: t\n    ")
    assert {"args", "retry", "rate_limit", "compensate", "needs"} <= of_task
    assert not {"items", "steps", "approval", "task"} & of_task
    of_map = editor.offered("map.yaml", f"{head}    map:\n      items: '[1]'\n      ")
    assert {"do", "as", "concurrency"} <= of_map
    assert not {"task", "retry"} & of_map
