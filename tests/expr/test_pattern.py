"""`matches` against Python's `re` on patterns that both read, and its refusal of everything else."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemflow.expr import ExpressionError, compile_expression
from stemflow.expr.automaton import ROW_ENTRIES, ROW_STATES
from stemflow.expr.limits import Frame
from stemflow.expr.pattern import _compile, matches

EXPRESSION = compile_expression("matches(inputs.text, inputs.pattern)", ["inputs"])


def found(pattern: str, text: str) -> bool:
    answer = EXPRESSION({"inputs": {"text": text, "pattern": pattern}})
    assert isinstance(answer, bool)
    return answer


ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", "[a-c-]", r"\d", r"\W", r"\s", r"\.", "^", "$", "é", "[]a]", ""]
)
QUANTIFIERS = st.sampled_from(["*", "+", "?", "{2}", "{0,1}", "{1,}", "{0}", "*?", "{1,3}?"])


def _repeat(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda body, times: f"(?:{body}){times}", inner, QUANTIFIERS)


PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.builds(lambda left, right: f"({left}|{right})", inner, inner),
        _repeat(inner),
    ),
    max_leaves=8,
)


@given(PATTERNS, st.text(alphabet="ab1 .\né-]", max_size=8))
def test_a_pattern_finds_what_pythons_re_finds(pattern: str, text: str) -> None:
    assert found(pattern, text) == (re.search(pattern, text) is not None)


@given(st.text(alphabet="ab()[]{}|*+?^$\\.-:d1,", max_size=10), st.text(alphabet="ab1{}", max_size=5))
def test_a_text_that_is_no_pattern_is_refused_and_never_read_otherwise(pattern: str, text: str) -> None:
    try:
        ours = found(pattern, text)
    except ExpressionError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "[[" may mean something else in a later version of re
        assert ours == (re.search(pattern, text) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[",
        "[z-a]",
        "a**",
        "$+",
        "*a",
        "a{2,1}",
        "a{x}",
        "\\",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        r"(a)\1",
        "(?P<n>a)",
        r"\bx",
    ],
)
def test_what_needs_backtracking_or_is_not_closed_is_refused(pattern: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        found(pattern, "a")
    assert caught.value.message.startswith("matches(): ")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*a){12}"])
def test_patterns_known_for_catastrophe_end_within_the_budget_of_steps(pattern: str) -> None:
    # Thousands of characters: a backtracking engine would not come back.
    try:
        assert found(pattern, "a" * 3000 + "!") in (True, False)
    except ExpressionError as error:
        assert "100,000 steps" in error.message


def test_the_steps_of_a_match_do_not_depend_on_earlier_matches() -> None:
    # Given a pattern whose deterministic automaton has more rows than are kept, and a text without a match
    pattern, text = "(a|b)*a(a|b){9}c", "".join("ab"[(n * n // 7) % 2] for n in range(1500))
    costs = []
    for _ in range(3):
        frame = Frame({}, 0, 1_000_000)
        assert matches(frame, text, pattern) == (re.search(pattern, text) is not None)
        costs.append(frame.left)
    # Then each match is charged for the same
    assert len(set(costs)) == 1
    # And what is kept stays bounded
    automaton = _compile(pattern)
    assert automaton._entries <= ROW_ENTRIES
    assert automaton._kept <= ROW_STATES


@given(st.lists(st.text(alphabet="ab1\n", max_size=6), min_size=2, max_size=6), PATTERNS)
def test_a_pattern_that_was_used_before_finds_what_pythons_re_finds(texts: list[str], pattern: str) -> None:
    for text in texts:
        assert found(pattern, text) == (re.search(pattern, text) is not None)
