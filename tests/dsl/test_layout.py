"""The layout that `stemflow fmt` writes: comments stay, values stay, and a second time changes nothing."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import yaml

from stemflow.compile.freeze import compile_plan
from stemflow.dsl.findings import Findings
from stemflow.dsl.layout import CannotFormat, formatted
from stemflow.dsl.source import read
from stemflow.model.policy import Options
from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.dsl.files import FOLDER

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "workflows").rglob("*.yaml"))
CORPUS = sorted((FOLDER / "corpus").iterdir())
"""Broken files of all kinds."""
GOLDEN = [
    path
    for path in sorted(FOLDER.rglob("*.yaml"))
    if path not in CORPUS and read(path.read_text("utf-8"), Findings("")) is not None
]
FILES = [*EXAMPLES, *GOLDEN]

UGLY = """\
# head
stemflow:   "1"     # version
name : ugly


labels: { a: b,c : "d" , e: 'f' }
description: >-
        folded text
          more indented

        end
inputs:
    # about list
    list:
        type: array
        default:
        - a   # first
        -   b
        # between
        - "long
             text"
vars:
      text: |
            line one
              line two
      keep: |+
        x

      two: |2
          two more
steps:
      # a step
      one :
            task:   t.one
            args: {
               a: 1,   # one
                 b: [ 1,2 ]
            }
      two:
            needs: [ one ]
            chain:
            - task: t.two
              args:
                     x: "${{ steps.one.output }}"
            -   group:
                - task: t.four
                # end of group
            # end of chain
# tail
"""
TIDY = """\
# head
stemflow: "1"  # version
name: ugly

labels: {a: b, c: "d", e: 'f'}
description: >-
  folded text
    more indented

  end
inputs:
  # about list
  list:
    type: array
    default:
      - a  # first
      - b
      # between
      - "long
           text"
vars:
  text: |
    line one
      line two
  keep: |+
    x

  two: |2
      two more
steps:
  # a step
  one:
    task: t.one
    args: {
       a: 1,  # one
         b: [1, 2]
      }
  two:
    needs: [one]
    chain:
      - task: t.two
        args:
          x: "${{ steps.one.output }}"
      - group:
          - task: t.four
          # end of group
      # end of chain
# tail
"""


def test_the_layout_is_the_standard_one() -> None:
    assert formatted(UGLY) == TIDY


def comments(text: str) -> list[str]:
    return [found.strip() for found in re.findall(r"(?m)(?:^| )#.*$", text)]


def digest(text: str, path: Path) -> str | None:
    """The digest of the plan, with those of the files that it calls from its folder."""
    workflow = WorkflowFile.of(text, "x", path).checked(None).workflow
    if workflow is None:
        return None
    return compile_plan(workflow.body, lambda _: Options(), outputs=workflow.outputs).digest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_keeps_values_comments_and_digest_and_is_stable(path: Path) -> None:
    text = path.read_text()
    once = formatted(text)
    assert formatted(once) == once
    assert comments(once) == comments(text)
    assert digest(once, path) == digest(text, path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_have_the_standard_layout(path: Path) -> None:
    assert formatted(path.read_text()) == path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_any_style_of_the_same_data_keeps_its_values(path: Path) -> None:
    # Given the data of a file in styles that nobody would write by hand
    data = read(path.read_text(), Findings(""))
    assert data is not None
    rng = random.Random(path.stem)
    for flow in (True, False, None):
        style = {"default_flow_style": flow, "indent": rng.randint(2, 9), "width": rng.randint(20, 90)}
        text = yaml.safe_dump(data.value, sort_keys=False, default_style=rng.choice([None, '"', "'"]), **style)
        # Then formatting refuses nothing, and is stable (that values are kept is checked in `formatted`)
        once = formatted(text)
        assert formatted(once) == once


@pytest.mark.parametrize("text", ["a: [", "? a\n: b\n", "%YAML 1.2\n---\na: 1\n", "a: 1\n---\nb: 2\n", "\tx: 1"])
def test_what_cannot_be_formatted_is_refused(text: str) -> None:
    with pytest.raises(CannotFormat):
        formatted(text)


def test_line_ends_and_blank_lines_are_standard() -> None:
    assert formatted("a: 1\r\n\r\n\r\n\r\nb: 2   \r\n\r\n") == "a: 1\n\nb: 2\n"


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_a_broken_file_is_given_a_stable_layout_or_refused(file: Path) -> None:
    try:
        once = formatted(file.read_bytes().decode("utf-8", errors="replace"))
    except CannotFormat as refused:
        assert str(refused).startswith("expected ")
    else:
        assert formatted(once) == once
