"""The cost of a check grows with the file, not with its square: counted, not timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stemflow.dsl.rules import infer
from stemflow.dsl.source import Node
from stemflow.expr.parse import Source
from stemflow.model import suggest
from tests.dsl.checked import check


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of words that each search for a similar word compares."""
    compared: list[int] = []
    search = suggest.difflib.get_close_matches

    def counting(word: str, known: Sequence[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
        compared.append(len(known))
        return search(word, known, n, cutoff)

    monkeypatch.setattr(suggest.difflib, "get_close_matches", counting)
    return compared


def test_two_thousand_misspelt_references_compare_few_words_each(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given 2,000 steps, each of which refers to another name with a letter missing
    steps = [f'  step_{i}: {{task: do, args: {{what: "${{{{ steps.stp_{i}.output }}}}"}}}}\n' for i in range(2_000)]
    compared = counted(monkeypatch)
    # When they are checked
    found = check("steps:\n" + "".join(steps)).found
    # Then each has the right suggestion, out of a handful of candidates
    assert [one.hint for one in found] == [f"did you mean `step_{i}`?" for i in range(2_000)]
    assert max(compared) <= 20


def test_known_words_are_indexed_once_however_many_are_misspelt(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given 400 steps, each with another misspelt reference
    steps = [f'  step_{i}: {{task: do, args: {{what: "${{{{ steps.stp_{i}.output }}}}"}}}}\n' for i in range(400)]
    built: list[int] = []
    begin = suggest._Many.__init__

    def counting(self: suggest._Many, known: tuple[str, ...]) -> None:
        built.append(len(known))
        begin(self, known)

    monkeypatch.setattr(suggest._Many, "__init__", counting)
    # Then the names are arranged for the search once
    assert len(check("steps:\n" + "".join(steps)).found) == 400
    assert built == [400]


def test_one_misspelt_name_is_searched_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [f'  s{i}: {{task: do, args: {{what: "${{{{ steps.laod.output }}}}"}}}}\n' for i in range(300)]
    compared = counted(monkeypatch)
    found = check("steps:\n  load: {task: do}\n" + "".join(steps)).found
    assert {one.hint for one in found} == {"did you mean `load`?"}
    assert len(compared) == 1


def test_each_expression_is_typed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a chain of steps, each of which reads the one before, so that types flow through all of them
    steps = [f'  s{i}: {{map: {{items: "steps.s{i - 1}.output", do: {{task: do}}}}}}\n' for i in range(1, 400)]
    typed = 0
    scalar = infer.Inference._scalar

    def counting(self: infer.Inference, read: object) -> object:
        nonlocal typed
        typed += 1
        return scalar(self, read)  # type: ignore[arg-type]

    monkeypatch.setattr(infer.Inference, "_scalar", counting)
    # Then the work is one pass
    assert check("steps:\n  s0: {task: do}\n" + "".join(steps)).found == ()
    assert typed == 399


def test_findings_are_capped_and_their_texts_are_cut() -> None:
    # Given a file with 5,000 unknown keys, and an input that may have 20,000 values
    keys = "".join(f"k{i}: 1\n" for i in range(5_000))
    enum = ", ".join(f"value_{i}" for i in range(20_000))
    # When it is checked
    found = check(f"inputs: {{a: {{enum: [{enum}], default: x}}}}\n{keys}steps: {{a: {{task: t}}}}\n").found
    # Then the first says how many are left out, the file fails, and no sentence is long
    assert (found[0].code, found[0].message) == ("SF003", "3,001 more errors are left out of this list")
    assert len(found) <= 2_010 and found[0].severity == "error"
    assert max(len(one.message) + len(one.hint or "") for one in found) <= 2_000


def test_a_text_of_5_mb_in_which_no_url_begins_is_searched_once() -> None:
    # A search that begins again at each character would take hours.
    assert check(f"steps: {{a: {{task: t, args: {{text: {'x' * 5_000_000}}}}}}}\n").found == ()


def chain(steps: int) -> str:
    """A graph whose steps have common options and read the one before."""
    lines = ["steps:", "  s0: {task: do}"]
    for i in range(1, steps):
        lines.append(f"  s{i}: {{task: do, retry: {{max: 3}}, timeout: 30s, "
                     f"args: {{what: '${{{{ steps.s{i - 1}.output.x }}}}'}}}}")  # fmt: skip
    return "\n".join(lines) + "\n"


def test_each_step_is_looked_at_as_often_in_a_large_file_as_in_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given files of 500 and 2,000 steps, and a count of the values that are made and of the keys that are looked up
    made = looked_up = 0
    begin, get = Node.__init__, Node.get

    def making(self: Node, *args: Any, **kwargs: Any) -> None:
        nonlocal made
        made += 1
        begin(self, *args, **kwargs)

    def looking(self: Node, key: str) -> Node | None:
        nonlocal looked_up
        looked_up += 1
        return get(self, key)

    monkeypatch.setattr(Node, "__init__", making)
    monkeypatch.setattr(Node, "get", looking)
    counts = []
    for steps in (500, 2_000):
        made = looked_up = 0
        assert check(chain(steps)).found == ()
        counts.append((made / steps, looked_up / steps))
    # Then each step costs the same in both, and little: a value has a node, a key has none
    (made_small, looked_up_small), (made_large, looked_up_large) = counts
    assert made_large == pytest.approx(made_small, rel=0.02)
    assert looked_up_large == pytest.approx(looked_up_small, rel=0.02)
    assert made_large < 8
    assert looked_up_large < 90


def test_a_path_of_fields_needs_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given 300 steps that read the one before, by names that no other test uses
    parsed: list[str] = []
    parse = Source.parse

    def counting(self: Source) -> Any:
        parsed.append(self.text)
        return parse(self)

    monkeypatch.setattr(Source, "parse", counting)
    text = chain(300).replace(" s", " treeless").replace(".s", ".treeless").replace("treelesste", "ste")
    # Then no tree is built, unless there is something to say of the path
    assert check(text).found == ()
    assert parsed == []
    found = check(text.replace("treeless7.output", "treeless7.outptu")).found
    assert [one.code for one in found] == ["SF105"]
    assert parsed == [" steps.treeless7.outptu.x "]
