"""YAML as this format reads it: JSON data with places, whatever the text does."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stemflow.dsl.findings import Findings
from stemflow.dsl.source import read
from tests.dsl.files import parse


def value_of(text: str) -> Any:
    findings = Findings("x.yaml")
    node = read(text, findings)
    assert findings.by_place() == ()
    assert node is not None
    return node.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("no", "no"), ("yes", "yes"), ("010", "010"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"), ("+", "+"), (".", "."), ("1.2.3", "1.2.3"), ("=", "="), ("0b1", "0b1"),
        ("7", 7), ("-7", -7), ("0x1F", 31), ("0o17", 15), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("-.5", -0.5),
        ("true", True), ("False", False), ("null", None), ("~", None), ('"7"', "7"), ("'true'", "true"),
        ("!!str 7", "7"), ("!!float 7", 7.0), ("!!int '7'", 7), ("! 7", "7"), ("!!null ''", None),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    (found,) = value_of(f"- {text}\n")
    assert found == value
    assert type(found) is type(value)


def test_merged_keys_come_first_and_own_keys_win() -> None:
    found = value_of("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {z: 5, <<: [*a, *b]}\n")
    assert found["c"] == {"x": 1, "y": 2, "z": 5}
    assert list(found["c"]) == ["x", "y", "z"]


def test_a_quoted_merge_key_is_a_key_like_any_other() -> None:
    assert value_of('{"<<": {a: 1}}') == {"<<": {"a": 1}}


def test_an_alias_may_be_used_often() -> None:
    steps = "".join(f"  s{i}: {{<<: *base}}\n" for i in range(200))
    parsed = parse("vars: {}\nsteps:\n  s: &base {task: t, args: {x: some text that is not short}}\n" + steps)
    assert parsed.diagnostics == ()


def test_a_byte_order_mark_is_not_part_of_the_first_key() -> None:
    assert value_of("\ufeffa: 1\n") == {"a": 1}


def test_a_file_above_the_limit_is_refused_unread() -> None:
    findings = Findings("x.yaml")
    assert read("a: " + "x" * 10_000_000, findings) is None
    assert [one.code for one in findings.by_place()] == ["SF003"]


def test_no_depth_of_nesting_exhausts_the_stack() -> None:
    for opening in ("[" * 200_000, "{a: " * 200_000, "- " * 200_000, "? " * 200_000):
        findings = Findings("x.yaml")
        assert read(opening, findings) is None
        assert len(findings.by_place()) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cc"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc<", max_size=3), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, default_style='"')
    found = value_of(text)
    assert found == value


@given(st.text("a:-[]{}&*!|>'\"#%@`? \t\n<1,", max_size=40))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    findings = Findings("x.yaml")
    node = read(text, findings)
    found = findings.by_place()
    assert node is not None or found
    assert all(one.line >= 1 and one.column >= 1 for one in found)
