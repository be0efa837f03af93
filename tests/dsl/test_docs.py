"""The examples of the page on the workflow file do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stemflow.dsl import load_schema, parse_workflow
from stemflow.dsl.rules.catalogue import CATALOGUE

PAGE = (Path(__file__).parents[2] / "docs" / "workflow-file.md").read_text()
EXAMPLES = re.findall(r"```yaml(?: refused (SF\d{3}))?\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("code", "text"), EXAMPLES, ids=[re.findall("name: (.*)", text)[0] for _, text in EXAMPLES])
def test_an_example_is_accepted_or_refused_as_the_page_says(code: str, text: str) -> None:
    parsed = parse_workflow(text, "example.yaml")
    assert [one.code for one in parsed.diagnostics] == ([code] if code else [])
    assert (parsed.workflow is None) == bool(code)


def test_every_key_of_the_schema_is_on_the_page() -> None:
    schema = load_schema()
    keys = set(schema["properties"])
    for definition in schema["definitions"].values():
        keys |= set(definition.get("properties", {})) | set(definition.get("then", {}).get("properties", {}))
    assert [key for key in sorted(keys) if key not in PAGE] == []


def test_the_table_of_findings_is_the_catalogue() -> None:
    rows = re.findall(r"^\| (SF\d{3}) \|(.*)\|$", PAGE, re.MULTILINE)
    severity = {"warning": ", a warning", "error": ""}
    assert dict(rows) == {code: f" {entry.title}{severity[entry.severity]} " for code, entry in CATALOGUE.items()}
