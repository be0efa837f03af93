"""`stemflow event send`, `approve`, `reject` and `approvals`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.test_run import follows_schema
from tests.cli.world import Cli

RELEASE = """\
stemflow: "1"
name: release
steps:
  agreed: {approval: {by: [ann, bob], message: "Now?", inputs: {percent: {type: integer, maximum: 100}}, timeout: 1h}}
  paid: {event: {type: order.paid}}
outputs: {percent: "${{ steps.agreed.output.inputs.percent }}", order: "${{ steps.paid.output.data.order }}"}
"""


@pytest.fixture
def run(project: Path, cli: Cli) -> str:
    """The id of a run that waits for an approval and for an event."""
    (project / "release.yaml").write_text(RELEASE)
    return cli("submit", "release.yaml").out.strip()


def test_what_waits_is_listed_with_how_to_answer(run: str, cli: Cli) -> None:
    ran = cli("approvals")
    assert ran.out.startswith(f"{run}  agreed  release  for ")
    assert ran.out.endswith("left  by ann or bob\n    Now?\n    -i percent=integer\n")
    assert ran.err == f"next: `stemflow approve {run} agreed --by ann` approves the first\n"
    (data,) = follows_schema("approvals", cli("approvals", run[:20], "--json").out)
    assert data["step"] == "agreed" and data["inputs"] == {"percent": {"type": "integer", "maximum": 100}}


def test_a_run_goes_on_when_it_is_approved_and_its_event_has_come(run: str, cli: Cli) -> None:
    given = follows_schema("answer", cli("approve", run, "agreed", "--by", "ann", "-i", "percent=5", "--json").out)
    assert given == {"run_id": run, "step": "agreed", "approved": True}
    assert cli("approve", run, "agreed", "--by", "ann", "-i", "percent=5").code == 0
    ran = cli("reject", run, "agreed", "--by", "bob")
    assert ran.code == 3 and "it was approved by ann at" in ran.err
    assert cli("approvals").err == "nothing waits for an approval\n"
    sent = cli("event", "send", "order.paid", "--data", '{"order": 7}', "--id", "p", "--keep", "1h")
    assert sent.out == "p\n"
    again = follows_schema("event_send", cli("event", "send", "order.paid", "--id", "p", "--json").out)
    assert again == {"id": "p", "type": "order.paid", "existing": True}
    assert '{"percent": 5, "order": 7}' in cli("resume", run, "--json").out


def test_a_wrong_answer_changes_nothing(run: str, cli: Cli) -> None:
    for words, message in (
        (("approve", run, "agreed", "--by", "eve", "-i", "percent=5"), "expected an answer by ann or bob"),
        (("approve", run, "agreed", "--by", "ann", "-i", "percent=500"), "percent: expected a number of at most 100"),
        (("approve", run, "agreed", "--by", "ann"), "inputs.percent: expected a value, got none"),
        (("approve", run, "other", "--by", "ann"), "agreed of this run does"),
        (("reject", run, "paid", "--by", "ann"), "another kind"),
    ):
        ran = cli(*words)
        assert (ran.code, message in ran.err) == (3, True), ran.err
    assert len(follows_schema("approvals", cli("approvals", "--json").out)) == 1


def test_data_is_json_and_may_come_from_standard_input(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cli("event", "send", "a", "--data", "{order: 7}")
    assert ran.code == 3 and "--data: expected JSON" in ran.err
    monkeypatch.setattr("sys.stdin", io.StringIO('{"order": 7}'))
    assert cli("event", "send", "a", "--data", "-", "--id", "x").out == "x\n"
    assert "expected a type of events" in cli("event", "send", "a b").err


def test_plan_says_what_waits_for_what(run: str, cli: Cli) -> None:
    out = cli("plan", "release.yaml").out
    assert "agreed  runs, at the start; waits for an answer of ann or bob\n" in out
    assert "paid    runs, at the start; waits for an event order.paid\n" in out
