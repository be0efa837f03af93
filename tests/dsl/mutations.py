"""Broken workflow files: mutations of the tree and of the text of a good one, and what must be so of each."""

from __future__ import annotations

import copy
import cProfile
import random
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from stemflow import TaskRegistry
from stemflow.runtime.client.workflow_files import Checked, WorkflowFile

REGISTRY = TaskRegistry()
CALLS, CALLS_PER_CHARACTER = 50_000, 100
"""The most calls of functions that a check may take: an even share, and one for each character. Valid files take about
7 for each; the rest is for what jsonschema says of broken ones and for what aliases expand to."""

VALUES: list[Any] = [
    None, True, 0, -1, 3.5, "", "x", "a b", "${{", "${{ }}", "${{ nope }}", "${{ steps.x.y }}", "1 +", "has(", [], {},
    [1], [[]], {"a": 1}, {"task": 7}, {"when": []}, ["a", "a"], "10/s", "1d", "\N{SNOWMAN}", "{{ x }}", "'", "{'a': 1}",
    10**30,
]  # fmt: skip
MARKS = ["\t", "{", "}", "[", ":", "&a ", "*a", "'", '"', "#", "\n", "- "]
KEYS = ["task", "chain", "map", "needs", "when", "retry", "x", "with", "on_member_error", "timeout", "steps", "<<"]

Path = tuple[Any, ...]


def places(tree: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every value in a tree."""
    yield path
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield from places(value, (*path, key))


def mutated(tree: Any, chance: random.Random) -> tuple[Any, Path]:
    """The tree with one change, and its path: a value of another type, a key renamed, taken out or added, a value
    moved."""
    tree = copy.deepcopy(tree)
    path = chance.choice([one for one in places(tree) if one])
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    match chance.randrange(5):
        case 0:
            parent[key] = chance.choice(VALUES)
        case 1:
            del parent[key]
        case 2 if isinstance(parent, dict):
            parent[chance.choice(KEYS)] = parent.pop(key)
        case 3 if isinstance(parent[key], dict):
            parent[key][chance.choice(KEYS)] = chance.choice(VALUES)
        case _:
            parent[key] = [parent[key]]
    return tree, path


def scrambled(text: str, chance: random.Random) -> str:
    """The text with one change: characters taken out, put in or repeated."""
    at = chance.randrange(len(text))
    match chance.randrange(3):
        case 0:
            return text[:at] + text[at + chance.randrange(1, 6) :]
        case 1:
            return text[:at] + chance.choice(MARKS) + text[at:]
    return text[:at] + text[at : at + 20] + text[at:]


def check(text: str, tasks: bool = True) -> Checked:
    """The findings, which are in the file, and an answer: a workflow, or errors."""
    checked = WorkflowFile.of(text, "m.yaml").checked(REGISTRY if tasks else None)
    lines = len(re.split("\r\n|[\r\n\x85\u2028\u2029]", text)) + 1  # as YAML counts them
    assert all(0 < one.line <= lines and 0 < one.column < one.end_column for one in checked.found), text
    assert checked.fails or checked.workflow is not None, text
    return checked


@cache
def _load() -> None:
    """Load what is loaded at the first file that is broken."""
    check("steps: {a: {task: 7}}")


def check_counted(text: str, tasks: bool = True) -> Checked:
    """`check`, within a number of calls."""
    _load()
    counter = cProfile.Profile()
    counter.enable()
    try:
        checked = check(text, tasks)
    finally:
        counter.disable()
    calls = sum(entry.callcount for entry in counter.getstats())
    assert calls <= CALLS + CALLS_PER_CHARACTER * len(text), (calls, text)
    return checked


def dumped(tree: Any) -> str:
    """The tree as a file."""
    text: str = yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=1_000)
    return text


def block(text: str, path: Path) -> range:
    """The lines of the innermost mapping or list item around `path` that is still there."""
    node, lines = yaml.compose(text, yaml.CSafeLoader), range(1, text.count("\n") + 2)
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((name, one) for name, one in node.value if name.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = (node.value[key], node.value[key])
        else:
            found = None
        if found is None:
            break
        start, node = found
        last = node.end_mark.line + (1 if node.end_mark.column else 0)
        lines = range(start.start_mark.line + 1, max(last, start.start_mark.line + 1) + 1)
    return lines
