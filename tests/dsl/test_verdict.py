"""jsonschema-rs answers first, so its yes must be the yes of jsonschema; and jsonschema looks only where it says no."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from stemflow.dsl import inputs, schema
from stemflow.dsl.findings import Findings
from stemflow.dsl.source import read
from stemflow.dsl.verdict import Verdict
from tests.dsl.checked import check
from tests.dsl.test_mutations import FILES, mutated

RULES: list[dict[str, Any]] = [
    {"type": "integer"}, {"type": "string", "maxLength": 1}, {"enum": [1]}, {"minimum": 2}, {"type": "null"},
    {"multipleOf": 0.1}, {"pattern": "a$"}, {"pattern": "(?P<x>a)(?!\\n)"},
]  # fmt: skip


def same_verdict(text: str) -> None:
    root = read(text, Findings("m.yaml"))
    if root is not None:
        slow = next(schema._judge().iter_errors(root.value), None)
        assert schema._verdict().fits(root.value) == (slow is None), text


def compare(file: Path, count: int) -> None:
    chance, tree = random.Random(file.name), yaml.safe_load(file.read_text("utf-8"))
    for _ in range(count):
        same_verdict(yaml.dump(mutated(tree, chance), Dumper=yaml.CSafeDumper, sort_keys=False))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_both_judge_a_mutated_file_alike(file: Path) -> None:
    same_verdict(file.read_text("utf-8"))
    compare(file, 4)


@pytest.mark.long
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_both_judge_many_mutated_files_alike(file: Path) -> None:
    compare(file, 400)


@pytest.mark.parametrize("value", [1.0, 10**30, True, "a\n", float("inf"), float("nan"), "\ud800", None])
@pytest.mark.parametrize("rule", RULES)
def test_a_yes_about_an_input_is_that_of_jsonschema(value: Any, rule: dict[str, Any]) -> None:
    if Verdict(rule, inputs._KEYWORDS).fits(value):
        assert not list(inputs._judge_class()(rule).iter_errors(value))


def test_one_fault_does_not_send_jsonschema_into_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given files of 50 and 150 sound steps and a broken one
    judge, calls = type(schema._judge()), 0
    descend = judge.descend

    def counting(self: Any, *words: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return descend(self, *words, **named)

    monkeypatch.setattr(judge, "descend", counting)
    counts = []
    for most in (50, 150):
        calls = 0
        steps = [f"  s{i}: {{task: do, args: {{x: 1}}, retry: {{max: 3}}, timeout: 30s}}\n" for i in range(most)]
        found = check("steps:\n" + "".join(steps) + "  last: {task: 7}\n").found
        counts.append(calls)
        assert [one.code for one in found] == ["SF011"]
    # Then a sound step costs a few calls: its name and the step itself
    assert counts[1] - counts[0] <= 100 * 4
