"""Every finding has a page, and the examples on it are what they are said to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stemflow
from stemflow import TaskMetadata, TaskRegistry
from stemflow.cli.explain import codes, page, title
from stemflow.cli.main import main
from stemflow.compile.rules import check
from stemflow.dsl import parse_workflow

SOURCES = [*Path(stemflow.__file__).parent.joinpath("dsl").glob("*.py")]
SOURCES += Path(stemflow.__file__).parent.joinpath("compile").glob("*.py")
REGISTERED = TaskRegistry()


@REGISTERED.task("mail.send")
def send(to: str = "", text: str = "", copies: int = 1) -> None: ...


@REGISTERED.task("card.charge", metadata=TaskMetadata(idempotent=False))
def charge(amount: int = 1) -> None: ...


@REGISTERED.task("printer.print")
def print_page() -> None: ...


def findings(text: str) -> list[str]:
    parsed = parse_workflow(text, "page.yaml")
    found = list(parsed.diagnostics)
    if parsed.workflow is not None:
        found += [one for one in check(parsed.workflow, parsed.locate, REGISTERED) if not parsed.is_ignored(one)]
    return [one.code for one in found]


def examples(code: str) -> tuple[str, str]:
    found = re.search(r"Wrong:\n\n```yaml\n(.*?)```\n\nRight:\n\n```yaml\n(.*?)```\n", page(code), re.DOTALL)
    assert found is not None, f"{code}: the page has no pair of examples"
    return found[1], found[2]


def test_every_code_that_is_told_has_a_page_and_no_page_is_left_over() -> None:
    # Given the codes in the sources of the rules
    told = {code for source in SOURCES for code in re.findall(r'"(SF\d{3})"', source.read_text("utf-8"))}
    # Then each has a page, and each page a code
    assert told == set(codes())


@pytest.mark.parametrize("code", codes())
def test_the_wrong_example_of_a_page_has_its_finding(code: str) -> None:
    assert code in findings(examples(code)[0])


@pytest.mark.parametrize("code", codes())
def test_the_right_example_of_a_page_has_no_finding(code: str) -> None:
    assert findings(examples(code)[1]) == []


def test_explain_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    # When a code is asked for, in whatever case
    assert main(["explain", "sf101"]) == 0
    # Then its page is printed
    assert capsys.readouterr().out == page("SF101")


def test_explain_without_a_code_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{code}  {title(code)}" for code in codes()]
