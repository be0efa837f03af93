"""What took the time of a run: its critical path and the slowest steps."""

from __future__ import annotations

from stemflow.core.timeline import critical_path, slowest, spans
from stemflow.model.records import Node, Tally


def node(path: str, opened: int, ended: int, started: int = 0, **fields: object) -> Node:
    state = "succeeded" if ended else "running"
    return Node(
        run="r", path=path, plan="p", node=0, state=state, opened_at_ms=opened, started_at_ms=started,
        ended_at_ms=ended, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


RUN = [
    node("", 10, 100, tally=Tally(4)),
    node("a", 10, 30, 12),
    node("slow", 10, 60, 10),
    node("b", 60, 100, tally=Tally(2)),
    node("b[0]", 60, 70, 61),
    node("b[1]", 60, 100, 90),
]


def test_the_critical_path_is_what_each_step_had_to_wait_for() -> None:
    # b opened when slow ended, and the run ended with the second member of b
    assert [one.path for one in critical_path(RUN, 200)] == ["slow", "b[1]"]
    assert sum(one.took_ms for one in critical_path(RUN, 200)) == 90


def test_what_still_runs_ends_now() -> None:
    open_run = [node("", 10, 0, tally=Tally(2)), node("a", 10, 30, 12), node("b", 30, 0, 40)]
    assert [(one.path, one.took_ms) for one in critical_path(open_run, 200)] == [("a", 20), ("b", 170)]


def test_composites_have_no_span_and_a_single_task_has_one() -> None:
    assert [one.path for one in spans(RUN, 200)] == ["a", "slow", "b[0]", "b[1]"]
    assert [one.path for one in slowest(spans(RUN, 200), 2)] == ["slow", "b[1]"]
    assert [one.path for one in critical_path([node("", 5, 9, 6)], 20)] == [""]
    assert critical_path([], 20) == []
