"""The tables of docs/rules.md are what the skip rule and the failure rule do."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from stemflow.core.kinds import rules_of
from stemflow.core.kinds.base import View
from stemflow.core.shape import Shape
from stemflow.core.skip_rule import Source, admitted
from stemflow.model.completion import Completion
from stemflow.model.plan import Edge, LeafPlan, Plan, ScopePlan
from stemflow.model.records import Tally

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
HOWS = ("ok", "failed", "skipped", "upstream", "cancelled")
AFTER_FAILURE = ", after a failure"
RUN_ONS = ("success", "failure", "done", "any_success", "always")


def tables(page: str) -> list[list[list[str]]]:
    """Every table of a page: rows of cells, the header first."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        rows = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found.append([rows[0], *rows[2:]])
    return found


_, ONE, SEVERAL, ENDS, _, _, AT_STOP = tables(PAGE.read_text("utf-8"))


def source(words: str) -> Source:
    """`failed, on_error: continue` or `skipped, data edge` as the rule takes it."""
    how, _, more = words.partition(", ")
    on_error = more.removeprefix("on_error: ") if more.startswith("on_error") else "fail"
    edge = more.removesuffix(" edge") if more.endswith("edge") else "data"
    return edge, how, on_error  # type: ignore[return-value]


def decided(run_on: str, before: list[str]) -> str:
    """What the skip rule says, after steps that the page describes so."""
    failed_before = any(words.endswith(AFTER_FAILURE) for words in before)
    sources = [source(words.removesuffix(AFTER_FAILURE)) for words in before]
    return admitted(run_on, sources, failed_before) or "runs"  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ONE[1:], ids=lambda row: row[0])
def test_a_step_after_one_other_runs_or_is_skipped_as_the_page_says(row: list[str]) -> None:
    run_on, *cells = row
    said = dict(zip(ONE[0][1:], cells, strict=True))
    did = {words: decided(run_on, [words]) for words in said}
    assert did == said


def test_the_page_has_every_way_of_running_on() -> None:
    assert [row[0] for row in ONE[1:]] == list(RUN_ONS)
    assert {how for _, how, _ in map(source, (words.removesuffix(AFTER_FAILURE) for words in ONE[0][1:]))} == set(HOWS)


@pytest.mark.parametrize("row", SEVERAL[1:], ids=" ".join)
def test_a_step_after_several_runs_or_is_skipped_as_the_page_says(row: list[str]) -> None:
    run_on, before, verdict = row
    assert decided(run_on, before.split("; ")) == verdict


@pytest.mark.parametrize("run_on", RUN_ONS)
def test_the_order_of_the_steps_before_does_not_matter(run_on: str) -> None:
    kinds = [source(words.removesuffix(AFTER_FAILURE)) for words in ONE[0][1:]]
    for first, second in product(kinds, kinds):
        assert admitted(run_on, [first, second]) == admitted(run_on, [second, first])  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ENDS[1:], ids=" ".join)
def test_a_scope_goes_on_stops_or_ends_as_the_page_says(row: list[str]) -> None:
    # Given a scope of this kind and policy, whose members have come so far
    kind, policy, members, said = row
    sources = [source(words) for words in members.split("; ") if words]
    word, _, number = policy.partition(" ")
    completion = {
        "race": Completion(quorum=1, race=True),
        "quorum": Completion(quorum=int(number or 0)),
        "tolerate": Completion(tolerate=int(number or 0)),
    }.get(word)
    policy = "fail_fast" if completion is not None else policy
    scope = ScopePlan(kind=kind, policy=policy, completion=completion, members=tuple(range(len(sources))))  # type: ignore[arg-type]
    rules, tally, failed = rules_of(scope), Tally(len(sources)), False
    for index, (_, how, on_error) in enumerate(sources):
        if how != "open":
            tally.opened |= (how not in ("skipped", "upstream")) << index
            tally.tick(index, how or "")
            member = LeafPlan(task="t", on_error=on_error)  # type: ignore[arg-type]
            failed |= how == "failed" and rules.counts(scope, tally, member, index)

    # When it is asked what to do
    verdict = rules.settle(scope, tally, failed)

    # Then it does what the page says
    words = {"stay": "stays", "stop": f"stops {verdict.state.upper()}"}.get(verdict.move, verdict.state.upper())
    assert " ".join([words, verdict.cause or ""]).strip() == said


@pytest.mark.parametrize("row", AT_STOP[1:], ids=lambda row: row[0])
def test_a_stop_reaches_a_step_as_the_page_says(row: list[str]) -> None:
    # Given a graph in which `a` runs, `b` is open and `c` comes after both
    run_on, not_opened, is_open = row
    members = (LeafPlan(task="t"), LeafPlan(task="t", run_on=run_on), LeafPlan(task="t", run_on=run_on))  # type: ignore[arg-type]
    edges = ((), (), (Edge(0, "order"), Edge(1, "data")))
    scope = ScopePlan(kind="steps", members=(1, 2, 3), names=("a", "b", "c"), edges=edges)
    shape, rules, tally = Shape(Plan(nodes=(scope, *members))), rules_of(scope), Tally(3)
    tally.opened |= 0b011

    # When it is stopped, and what it waits for ends
    spared = rules.spared(shape, 0)
    tally.cancel_unopened(spared)
    assert list(rules.released(View(shape, 0, tally, False, False))) == []
    tally.end_many(0b011, "cancelled")

    # Then it is cancelled or stopped, or it opens or runs on
    released = list(rules.released(View(shape, 0, tally, False, False)))
    assert ("opens" if released == [2] else str(tally.how(2))) == not_opened
    assert ("runs on" if spared & 0b010 else "stopped") == is_open


def test_the_page_has_every_way_of_running_on_at_a_stop() -> None:
    assert [row[0] for row in AT_STOP[1:]] == list(RUN_ONS)
