"""Every finding has a page, and the examples on it are what they are said to be."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import stemflow
from stemflow import TaskMetadata, TaskRegistry
from stemflow.cli.explain import codes, page, title
from stemflow.cli.main import main
from stemflow.dsl.rules.catalogue import CATALOGUE
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.signature import ChainSig
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.workflow_files import WorkflowFile

SOURCES = [
    source
    for folder in ("dsl", "compile", "cli")
    for source in Path(stemflow.__file__).parent.joinpath(folder).rglob("*.py")
]
NO_EXAMPLE = {"SF005"}
"""What is no matter of the text of a file."""
REGISTERED = TaskRegistry()


@dataclasses.dataclass
class Stock:
    qty: int


@REGISTERED.task("mail.send")
def send(to: str = "", text: str = "", copies: int = 1) -> Any: ...


@REGISTERED.task("card.charge", metadata=TaskMetadata(idempotent=False))
def charge(amount: int = 1) -> None: ...


@REGISTERED.task("printer.print")
def print_page() -> None: ...


@REGISTERED.task("stock.count")
def count() -> Stock: ...


@REGISTERED.task("login")
def login(user: str, password: str = "") -> None: ...


REGISTERED.add_workflow(
    Workflow(name="refund", body=ChainSig(steps=()), inputs={"order": {"type": "string"}}), "refund"
)


def findings(text: str) -> list[Diagnostic]:
    return list(WorkflowFile.of(text, "page.yaml").checked(REGISTERED).found)


def examples(code: str) -> tuple[str, str]:
    found = re.search(r"Wrong:\n\n```yaml\n(.*?)```\n\nRight:\n\n```yaml\n(.*?)```\n", page(code), re.DOTALL)
    assert found is not None, f"{code}: the page has no pair of examples"
    return found[1], found[2]


def test_every_code_has_a_page_an_entry_in_the_catalogue_and_a_place_in_the_sources() -> None:
    # Given the codes in the sources of the rules, other than the catalogue
    sources = [source.read_text("utf-8") for source in SOURCES if source.name != "catalogue.py"]
    used = {code for text in sources for code in re.findall(r'"(SF\d{3})"', text)}
    # Then each has a page and an entry, whose titles are the same, and no page and no entry is left over
    assert used == set(codes()) == set(CATALOGUE)
    assert {code: title(code) for code in codes()} == {code: entry.title for code, entry in CATALOGUE.items()}


def test_there_are_at_least_seventy_rules_in_eight_families() -> None:
    assert len(CATALOGUE) >= 70
    assert {code[:3] for code in CATALOGUE} == {f"SF{family}" for family in range(8)}


@pytest.mark.parametrize("code", sorted(set(codes()) - NO_EXAMPLE))
def test_the_wrong_example_of_a_page_has_its_finding_and_severity(code: str) -> None:
    found = {one.code: one.severity for one in findings(examples(code)[0])}
    assert found.get(code) == CATALOGUE[code].severity


@pytest.mark.parametrize("code", sorted(set(codes()) - NO_EXAMPLE))
def test_the_right_example_of_a_page_has_no_finding(code: str) -> None:
    assert [(one.code, one.message) for one in findings(examples(code)[1])] == []


def test_explain_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    # When a code is asked for, in whatever case
    assert main(["explain", "sf101"]) == 0
    # Then its page is printed
    assert capsys.readouterr().out == page("SF101")


def test_explain_without_a_code_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{code}  {title(code)}" for code in codes()]
