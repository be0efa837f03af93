"""Hypothesis writes expressions; Python's own `eval` on the same data says what they mean."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemflow.expr import ExpressionError, ExpressionLimitError, compile_expression
from stemflow.expr.dates import iso


class Object(dict[str, Any]):
    """An object whose keys can be read as fields, as in an expression."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def as_python(value: Any) -> Any:
    if isinstance(value, dict):
        return Object({key: as_python(part) for key, part in value.items()})
    return [as_python(part) for part in value] if isinstance(value, list) else value


NOW = dt.datetime(2026, 12, 1, 3, 0, 0, 123_000, tzinfo=dt.UTC)
RUN = {"id": "01a2", "created_at_ms": 1_796_094_000_123}

TABLE: dict[str, Any] = {
    **{function.__name__: function for function in (len, min, max, sum, sorted, any, all, abs, round, format)},
    "range": lambda *bounds: list(range(*bounds)),
    "zip": lambda *lists: [list(row) for row in zip(*lists, strict=False)],
    "enumerate": lambda values, start=0: [list(row) for row in enumerate(values, start)],
    "keys": lambda value: list(dict.keys(value)),
    "values": lambda value: list(dict.values(value)),
    "split": str.split,
    "join": lambda texts, separator="": str.join(separator, texts),
    "lower": str.lower,
    "upper": str.upper,
    "strip": str.strip,
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "replace": str.replace,
    "startswith": str.startswith,
    "endswith": str.endswith,
    "now": lambda: NOW,
    "today": NOW.date,
    "date": lambda text: (
        dt.datetime.fromisoformat(text).astimezone(dt.UTC) if "T" in text else dt.date.fromisoformat(text)
    ),
    "duration": lambda text: dt.timedelta(minutes=int(text[:-1])),
    "merge": lambda *objects: Object({key: part for value in objects for key, part in value.items()}),
    "true": True,
    "false": False,
    "null": None,
}

DATA = {
    "n": 7,
    "z": -2,
    "f": 0.5,
    "yes": True,
    "s": "aXé b",
    "t": "",
    "ns": [3, -1, 2, 2],
    "ts": ["b", "a", "éa"],
    "o": {"n": 1, "s": "k", "deep": {"ns": [4], "n": 0}},
    "rows": [{"n": 1, "s": "x"}, {"n": -5, "s": "y"}],
    "none": None,
}


def either(*templates: str, **holes: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """One of the templates, each hole filled with an expression of its own."""

    def fill(template: str) -> st.SearchStrategy[str]:
        names = [name for name in holes if f"<{name}>" in template]

        def put(*parts: str) -> str:
            text = template
            for name, part in zip(names, parts, strict=True):
                text = text.replace(f"<{name}>", part)
            return text

        return st.builds(put, *(holes[name] for name in names))

    return st.one_of([fill(template) for template in templates])


def grammar(depth: int) -> dict[str, st.SearchStrategy[str]]:
    """Expressions by type; at depth 0 only names and literals."""
    leaves = {
        "num": st.sampled_from(
            ["0", "1", "-3", "2.5", "10", "data.n", "data.z", "data.f", "data.o.n", "data.rows[0].n"]
        ),
        "text": st.sampled_from(["'a'", "''", "'é b'", '"X,a"', "data.s", "data.t", "data.o['s']", "data.ts[-1]"]),
        "cond": st.sampled_from(["true", "False", "data.yes", "(data.none is null)", "(not data.t)"]),
        "nums": st.sampled_from(["data.ns", "[]", "[1, 2.5]", "data.o.deep.ns", "range(4)", "range(5, 0, -2)"]),
        "texts": st.sampled_from(["data.ts", "['a', 'b']", "[]", "keys(data.o)"]),
    }
    if depth == 0:
        return leaves
    inner = grammar(depth - 1)
    a = {"a": inner["num"], "b": inner["num"], "s": inner["text"], "t": inner["text"], "c": inner["cond"]}
    a |= {"d": inner["cond"], "l": inner["nums"], "m": inner["nums"], "ts": inner["texts"], "us": inner["texts"]}
    written = {
        "num": either(
            "(<a> + <b>)", "(<a> - <b>)", "(<a> * <b>)", "(<a> / <b>)", "(<a> // <b>)", "(<a> % <b>)", "-<a>", "+<a>",
            "(<a> ** 2)", "(2 ** -<a>)", "(<a> if <c> else <b>)",
            "(<a> or <b>)", "(<a> and <b>)", "len(<s>)", "len(<l>)",
            "sum(<l>)", "sum(<l>, <a>)", "min(<l>)", "max(<l>, default=<a>)", "min(<a>, <b>)", "abs(<a>)", "round(<a>)",
            "round(<a>, 1)", "round(<a>, -1)", "<l>[0]", "<l>[<a>]", "sum(x * <a> for x in <l>)", "(<c> + <a>)",
            "sum(r.n for r in data.rows if r.n > <a>)", "max(x for x in <l> if x != <b>)", "{'k': <a>}['k']",
            **a,
        ),
        "text": either(
            "(<s> + <t>)", "(<s> * 2)", "(<s> if <c> else <t>)", "<s>[0]", "<s>[1:]", "<s>[::-1]", "<s>[<a>:<b>]",
            'f"{<a>}"', "lower(<s>)", "upper(<s>)", "strip(<s>)", "strip(<s>, 'a')", "replace(<s>, 'a', <t>)",
            "join(<ts>, <s>)", "join(<ts>)", "format(<a>, '.3f')", "format(<s>, '>8')", "(<s> or <t>)", "<ts>[0]",
            "join(upper(c) for c in <s>)", "min(<ts>)",
            **a,
        ),
        "cond": either(
            "(<a> < <b>)", "(<a> <= <b> < <a>)", "(<a> == <b> != <a>)", "(<s> < <t>)", "(<s> == <a>)", "(<l> == <m>)",
            "(<l> < <m>)", "(<s> in <t>)", "(<a> not in <l>)", "(<s> in <ts>)", "(<s> in data.o)", "(<c> and <d>)",
            "(<c> or <d>)", "(not <c>)", "any(<l>)", "all(<l>)", "any(x > <a> for x in <l>)", "all(1 / x for x in <l>)",
            "startswith(<s>, <t>)", "endswith(<s>, <t>)", "(<c> == <d>)", "({'a': <a>} == {'a': <b>})", "(<c> is true)",
            **a,
        ),
        "nums": either(
            "(<l> + <m>)", "(<l> * 2)", "[<a>, <b>]", "sorted(<l>)", "sorted(<l>, reverse=<c>)", "<l>[1:]", "<l>[<a>:]",
            "[x + <a> for x in <l>]", "[x for x in <l> if x > <b>]", "[x * y for x in <l> for y in <m>]",
            "[x * y for x, y in zip(<l>, <m>)]", "[i * x for i, x in enumerate(<l>, 1)]",
            "[sum([y + x for y in <l>]) for x in <m>]",
            "values({'a': <a>, 'b': <b>})", "values({k: <a> for k in <ts>})", "[len(t) for t in <ts>]",
            "(<l> if <c> else <m>)",
            "values(merge({'a': <a>}, {'b': 1, 'a': <b>}))", "range(len(<l>))",
            **a,
        ),
        "texts": either(
            "(<ts> + <us>)", "[<s>, <t>]", "split(<s>)", "split(<s>, 'a')", "split(<s>, ' ', 1)", "sorted(<ts>)",
            "keys({<s>: 1, <t>: 2})", "keys({t: 1 for t in <ts>})", "[t + <s> for t in <ts>]", "[c for c in <s>]",
            "<ts>[:2]", "[r.s for r in data.rows]", "[f'{t:<6}|' for t in <ts>]",
            **a,
        ),
    }  # fmt: skip
    return {kind: leaves[kind] | written[kind] for kind in leaves}


def dates() -> st.SearchStrategy[str]:
    """Expressions on dates, instants and durations."""
    number = grammar(1)["num"]
    span = st.sampled_from(["duration('90m')", "duration('1m')", "(now() - date('2026-11-30T12:00:00+00:00'))"])
    spans = either("(<s> + <t>)", "(<s> - <t>)", "(<s> * <a>)", "(<a> * <s>)", "(<s> / <a>)", "-<s>", "<s>",
                   s=span, t=span, a=number)  # fmt: skip
    instant = st.sampled_from(
        ["now()", "date('2026-12-24T18:00:00+01:00')", "date('1999-12-31T23:59:59.999999-03:30')"]
    )
    instants = either("(<i> + <s>)", "(<s> + <i>)", "(<i> - <s>)", "max(<i>, <j>)", "(<i> if <i> < <j> else <j>)",
                      "<i>", i=instant, j=instant, s=spans)  # fmt: skip
    day = st.sampled_from(["today()", "date('2026-12-24')", "date('2028-02-29')"])
    days = either("(<d> + duration('1440m') * len(<ts>))", "(<d> - duration('1440m') * 3)", "<d>", d=day,
                  ts=grammar(1)["texts"])  # fmt: skip
    return either(
        "<i>", "<d>", "<s>", "(<i> - <j>)", "(<d> - <e>)", "(<s> / <t>)", "(<i> < <j>)", "(<d> >= <e>)", "(<s> == <t>)",
        "(<i> == <j>)", "sorted([<i>, <j>])", "min([<d>, <e>])", "[<d>, {'a': <i>}, <s>]", "(<i> == null)", "json([])",
        "(<i> < <d>)", "(<d> - <i>)", "(<i> + <j>)", "(<d> + <a>)", "(<s> + <a>)", "(<d> * <a>)", "(<i> < <a>)",
        i=instants, j=instants, d=days, e=days, s=spans, t=spans, a=number,
    )  # fmt: skip


TYPED = st.one_of(*grammar(3).values(), dates())
LOOSE = st.one_of(*grammar(1).values())
WILD = st.builds(
    str.format,
    st.sampled_from(
        [
            "({0} {1} {2})",
            "({2} {1} {0}) {1} {0}",
            "min({0}, {2})",
            "sorted([{0}, {2}])",
            "{0}[{2}]",
            "sum({0})",
            "len({0}) {1} {2}",
            "round({0}, {2})",
            "join({0}, {2})",
            "[x {1} {2} for x in {0}]",
            "f'{{{0}}}' + {2}",
            "-{0}",
            "{{{0}: {2}}}",
            "range({0}, {2})",
            "enumerate({0}, {2})",
            "split({0}, {2})",
            "{0}.n",
        ]
    ),
    LOOSE,
    st.sampled_from(["+", "-", "*", "/", "//", "%", "<", ">=", "==", "!=", "in", "not in", "and", "or"]),
    LOOSE,
)


def python(source: str) -> Any:
    """What Python makes of it: (True, value) or (False, exception)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant index that cannot fit: evaluation decides
            return True, eval(source, {"__builtins__": {}, **TABLE, "data": as_python(DATA)})
    except Exception as error:
        return False, error


def ours(source: str) -> Any:
    try:
        return True, compile_expression(source, ["data", "run"])({"data": DATA, "run": RUN})
    except ExpressionError as error:
        return False, error


def written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=iso)


# Where expressions are narrower than Python: numbers that JSON cannot hold, loops three deep; besides, budgets.
NARROWER = ("not a finite number", "JSON cannot hold", "loops are nested deeper")


def means_the_same(source: str) -> None:
    """Value or refusal, as in Python; only what is narrower by intent may be refused."""
    fine, expected = python(source)
    worked, value = ours(source)
    if not worked and (isinstance(value, ExpressionLimitError) or any(part in value.message for part in NARROWER)):
        return
    assert worked == fine, (source, expected, value)
    if fine:
        assert written(value) == written(expected), source


def gives_nothing_else(source: str) -> None:
    """Where it has a value, Python has the same."""
    fine, expected = python(source)
    worked, value = ours(source)
    if worked:
        assert fine, (source, expected, value)
        assert written(value) == written(expected), source


QUICK = settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
LONG = settings(max_examples=20_000, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@QUICK
@given(TYPED)
def test_a_well_typed_expression_means_what_python_means(source: str) -> None:
    means_the_same(source)


@QUICK
@given(WILD)
def test_no_expression_gives_a_value_that_python_would_not_give(source: str) -> None:
    gives_nothing_else(source)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@LONG
@given(TYPED)
def test_twenty_thousand_well_typed_expressions_mean_what_python_means(source: str) -> None:
    means_the_same(source)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@LONG
@given(WILD)
def test_twenty_thousand_expressions_give_no_value_that_python_would_not_give(source: str) -> None:
    gives_nothing_else(source)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abdtn01.'\"()[]{}+-*/%<>=!&|?:, \n\\#é_f", max_size=40))
def test_any_text_is_an_expression_or_an_error_with_a_place_inside_it(source: str) -> None:
    try:
        compile_expression(source, ["a", "data"])({"a": 1, "data": DATA})
    except ExpressionError as error:
        assert 0 <= error.column <= error.end <= len(source)
        assert error.message
