"""No file, however broken, ends in a traceback or takes long, and what is wrong is reported where it is: mutations of
every example, and a corpus of files that are kept.

The default run takes 20 mutations of every file, `-m long` 2,000 more, with STEMFLOW_NIGHTLY=1 10,000. To search on:
`python -m tests.dsl.fuzz`.
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.conftest import NIGHTLY
from tests.dsl import fuzz
from tests.dsl.mutations import VALUES, block, check, check_counted, dumped, mutated, places, scrambled
from tests.dsl.mutations import Path as Way

FOLDER = Path(__file__).parents[2] / "workflows"
FILES = sorted(FOLDER.glob("*.yaml"))
ANY = st.sampled_from(VALUES) | st.text("ab:${}'", max_size=8) | st.integers()
TREES = {file.stem: yaml.safe_load(file.read_text("utf-8")) for file in FILES}


def judge_place(text: str, path: Way) -> None:
    """Errors are within the block that was changed, or speak of it: of its name, or of the key in it."""
    checked = check(text, tasks=False)
    changed, lines = block(text, path[:2]), text.split("\n")
    for one in checked.found:
        said = f"{one.message} {lines[one.line - 1]}"
        assert (
            one.severity != "error" or one.line in changed or str(path[:2][-1]) in said or str(path[-1]) in said
        ), (path, one, text)


def run(file: Path, count: int, seed: int) -> None:
    source, chance = file.read_text("utf-8"), random.Random(f"{seed} {file.name}")
    for number in range(count):
        tree, path = mutated(TREES[file.stem], chance)
        text = dumped(tree)
        judge_place(text, path)
        # One in ten is counted, which takes twice as long.
        (check_counted if number % 10 == 0 else check)(text)
        (check_counted if number % 10 == 1 else check)(scrambled(source, chance), tasks=number % 2 == 0)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_mutated_file_is_judged_in_the_block_that_was_changed(file: Path) -> None:
    run(file, 10, 1)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10 if NIGHTLY else 2))
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_many_mutations_of_a_file_are_judged_in_the_block_that_was_changed(file: Path, part: int) -> None:
    run(file, 500, 2 + part)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(TREES)), st.integers(0, 99), st.lists(st.tuples(st.integers(0, 99), ANY), max_size=3))
def test_several_faults_of_a_block_are_reported_in_it(name: str, member: int, changes: list[tuple[int, Any]]) -> None:
    # Given an example with several values replaced by others, all of them in one member of a block
    tree = copy.deepcopy(TREES[name])
    members = [path for path in places(tree) if len(path) == 2]
    inside = members[member % len(members)]
    for number, value in changes:
        below = [path for path in places(tree) if path[:2] == inside]
        path = below[number % len(below)]
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = copy.deepcopy(value)
    # Then the errors are in it, or speak of it
    judge_place(dumped(tree), inside)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60))
def test_any_bytes_are_judged(data: bytes) -> None:
    fuzz.one_input(data)


@pytest.mark.parametrize("file", sorted(fuzz.CORPUS.iterdir()), ids=lambda file: file.name)
def test_a_file_of_the_corpus_is_judged_within_its_bound(file: Path) -> None:
    check_counted(fuzz.text_of(file.read_bytes()))


def test_the_fuzzer_runs_over_the_corpus_without_its_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given that atheris is not installed
    monkeypatch.setitem(sys.modules, "atheris", None)
    # When the fuzzer is started, then it judges what is kept and says so
    fuzz.main(["fuzz"])
    assert f"judged {len(list(fuzz.CORPUS.iterdir()))} files of the corpus" in capsys.readouterr().out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_value_of_a_wrong_type_is_reported_within_the_block_that_holds_it(file: Path) -> None:
    # Given a file in which one step after the other is replaced by a number
    source = file.read_text("utf-8")
    steps = yaml.compose(source, yaml.SafeLoader)
    assert isinstance(steps, yaml.MappingNode)
    body = next(value for key, value in steps.value if key.value in ("steps", "chain", "chord"))
    members = [value for _, value in body.value] if isinstance(body, yaml.MappingNode) else body.value
    for member in members:
        start, end = member.start_mark, member.end_mark
        gap = "" if start.line == end.line else "\n" + " " * end.column
        text = source[: start.index] + "7" + gap + source[end.index :]
        # Then the finding of its shape is on its line
        found = WorkflowFile.of(text, "m.yaml").checked(None).found
        assert start.line + 1 in {one.line for one in found if one.code == "SF011"}
