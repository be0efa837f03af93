"""No file, however broken, ends in a traceback: mutations of every example are checked with and without tasks.

The default run takes some mutations of each kind from each file; `-m long` takes 2,000 of every file.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stemflow import TaskRegistry
from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.conftest import NIGHTLY

FOLDER = Path(__file__).parents[2] / "workflows"
FILES = sorted(FOLDER.glob("*.yaml"))
REGISTRY = TaskRegistry()

VALUES: list[Any] = [
    None, True, 0, -1, 3.5, "", "x", "a b", "${{", "${{ }}", "${{ nope }}", "${{ steps.x.y }}", "1 +", "has(", [], {},
    [1], [[]], {"a": 1}, {"task": 7}, {"when": []}, ["a", "a"], "10/s", "1d", "\N{SNOWMAN}", "{{ x }}", "'", "{'a': 1}",
    10**30,
]  # fmt: skip
MARKS = ["\t", "{", "}", "[", ":", "&a ", "*a", "'", '"', "#", "\n", "- "]
KEYS = ["task", "chain", "map", "needs", "when", "retry", "x", "with", "on_member_error", "timeout", "steps", "<<"]


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a tree."""
    yield path
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield from places(value, (*path, key))


def mutated(tree: Any, random: random.Random) -> Any:
    """The tree with one change: a value of another type, a key renamed, taken out or added, a value moved."""
    tree = copy.deepcopy(tree)
    path = random.choice([one for one in places(tree) if one])
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    match random.randrange(5):
        case 0:
            parent[key] = random.choice(VALUES)
        case 1:
            del parent[key]
        case 2 if isinstance(parent, dict):
            parent[random.choice(KEYS)] = parent.pop(key)
        case 3 if isinstance(parent[key], dict):
            parent[key][random.choice(KEYS)] = random.choice(VALUES)
        case _:
            parent[key] = [parent[key]]
    return tree


def scrambled(text: str, random: random.Random) -> str:
    """The text with one change: characters taken out, put in or repeated."""
    at = random.randrange(len(text))
    match random.randrange(3):
        case 0:
            return text[:at] + text[at + random.randrange(1, 6) :]
        case 1:
            return text[:at] + random.choice(MARKS) + text[at:]
    return text[:at] + text[at : at + 20] + text[at:]


def judge(text: str) -> None:
    begun = time.process_time()
    for tasks in (None, REGISTRY):
        checked = WorkflowFile.of(text, "m.yaml").checked(tasks)
        lines = text.count("\n") + 2
        assert all(0 < one.line <= lines and 0 < one.column < one.end_column for one in checked.found), text
        assert checked.fails or checked.workflow is not None
    assert time.process_time() - begun < 2


def run(file: Path, count: int, seed: int) -> None:
    source, chance = file.read_text("utf-8"), random.Random(f"{seed} {file.name}")
    tree = yaml.safe_load(source)
    for _ in range(count):
        judge(yaml.dump(mutated(tree, chance), Dumper=yaml.CSafeDumper, sort_keys=False))
        judge(scrambled(source, chance))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_mutated_file_is_never_a_traceback(file: Path) -> None:
    run(file, 20, 1)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_many_mutations_of_a_file_are_never_a_traceback(file: Path) -> None:
    run(file, 5_000 if NIGHTLY else 250, 2)


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
