"""`stemflow test`: mocks, virtual time, expectations, coverage, reports."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from stemflow.cli.main import main
from stemflow.cli.test.command import watch
from tests.cli.world import Cli

ROOT = Path(__file__).parents[2]

FILE = """\
stemflow: "1"
name: pay
inputs: {amount: {type: integer, default: 5}, rush: {type: boolean, default: false}}
steps:
  reserve: {task: stock.reserve, args: {n: "${{ inputs.amount }}"}, compensate: {task: stock.release}}
  cool: {when: not inputs.rush, wait: {for: 2d}, needs: [reserve]}
  charge:
    task: psp.charge
    args: {amount: "${{ inputs.amount }}"}
    needs: [cool]
    retry: {max: 2, backoff: {kind: fixed, initial: 10s, jitter: 0}, retry_on: [PspDown]}
  each: {map: {items: "[1, 2]", do: {task: one, args: {n: "${{ item }}"}, compensate: {task: none}}}, needs: [charge]}
  more: {loop: {until: carry == 3, max: 9, carry: 0, do: {task: add, args: {n: "${{ carry }}"}}}, needs: [charge]}
  route:
    needs: [each]
    switch: {on: steps.charge.output.kind, cases: {card: {task: mail.card}, bank: {task: mail.bank}}}
on_failure: {compensate: true}
outputs: {id: "${{ steps.charge.output.id }}"}
"""
MOCKS = """\
      stock.reserve: {value: {ok: true}}
      stock.release: {}
      one: {value: "${{ args.n * 10 }}"}
      none: {}
      add: {value: "${{ call }}"}
      mail.card: {}
      mail.bank: {}
"""
PAID = '      psp.charge: [{error: PspDown}, {value: {id: "ch_${{ args.amount }}", kind: card}, delay: 3s}]\n'


def case(expect: str, charge: str = PAID, more: str = "") -> str:
    return f"tests:\n  a case:\n{more}    mocks:\n{charge}{MOCKS}    expect: {expect}\n"


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> object:
    monkeypatch.chdir(tmp_path)

    def judged(tests: str, *words: str) -> tuple[int, str]:
        (tmp_path / "pay.yaml").write_text(FILE + tests)
        ran = cli("test", "pay.yaml", *words)
        return ran.code, ran.out + ran.err

    return judged


DECLINED = "      psp.charge: {error: {type: Declined, message: no money, data: {code: 7}}}\n"
LATE = "      psp.charge: {value: {id: ch, kind: bank}}\n"


@pytest.mark.parametrize(
    ("expect", "charge", "more"),
    [
        ("{state: succeeded, outputs: {id: ch_5}}", PAID, ""),
        ("{ran: [reserve, cool, 'each[1]', route.card], not_ran: [route.bank]}", PAID, ""),
        ("{attempts: {charge: 2, reserve: 1}, calls: {one: 2, add: 3, stock.release: 0}}", PAID, ""),
        ("{order: [reserve, cool, charge, each, route], undone: []}", PAID, ""),
        ("{time: 2d13s}", PAID, ""),
        ("{time: {min: 2d, max: 2d20s}, args: {charge: {amount: 5}, 'each[1]': {n: 2}}}", PAID, ""),
        ("{state: failed, error: {type: Declined, message: money, step: charge}, undone: [reserve]}", DECLINED, ""),
        ("{attempts: {charge: 1}, skipped: [each, route, route.card], failed: [charge]}", DECLINED, ""),
        ("{skipped: [cool], time: 13s, ran: [charge]}", PAID, "    inputs: {rush: true}\n"),
        ("{state: cancelled, time: 1d, cancelled: [cool], succeeded: [reserve]}", PAID, "    cancel_after: 1d\n"),
        ("{ran: [route.bank]}", LATE, ""),
    ],
)
def test_what_is_expected_and_is_so_passes(judge: object, expect: str, charge: str, more: str) -> None:
    assert callable(judge)
    assert judge(case(expect, charge, more))[0] == 0


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ("{state: failed}", "state: expected failed, got succeeded"),
        ("{outputs: {id: ch_6}}", 'outputs: id: expected "ch_6", got "ch_5"'),
        ("{error: {type: X}}", "error: expected an error, got none"),
        ("{ran: [route.bank]}", "ran: expected route.bank to run, and it has cancelled"),
        ("{not_ran: [charge]}", "not_ran: expected charge not to run, and it has succeeded"),
        ("{skipped: [charge]}", "skipped: expected charge to be skipped, and it has succeeded"),
        ("{order: [route, charge]}", "order: expected route, charge, got charge, route"),
        ("{undone: [reserve]}", "undone: expected reserve in this order, got none"),
        ("{attempts: {charge: 1}}", "attempts: charge: expected 1, got 2"),
        ("{calls: {one: 3}}", "calls: one: expected 3, got 2"),
        ("{args: {charge: {amount: 6}}}", "args: charge: amount: expected 6, got 5"),
        ("{args: {charge: {amount: true}}}", "args: charge: amount: expected true, got 5"),
        ("{time: 2d}", "time: expected 2d, got 2d13s"),
        ("{time: {max: 1d}}", "time: expected at most 1d, got 2d13s"),
    ],
)
def test_what_is_not_so_fails_with_the_place_and_the_story(judge: object, expect: str, says: str) -> None:
    assert callable(judge)
    code, said = judge(case(expect))
    assert code == 1
    if "route.bank" not in expect:
        assert says in said
    line = (FILE + case(expect)).splitlines().index(f"    expect: {expect}") + 1
    assert f"pay.yaml:{line}:14: {says.partition(':')[0]}: " in said
    assert 'charge  attempt 2  psp.charge {"amount": 5}' in said


def test_a_task_without_a_mock_fails_the_case(judge: object) -> None:
    assert callable(judge)
    code, said = judge(case("{state: failed}", charge=""))
    assert code == 1
    assert "the case calls psp.charge and has no mock of it" in said


def test_wrong_inputs_fail_the_case(judge: object) -> None:
    assert callable(judge)
    code, said = judge(case("{state: succeeded}", more="    inputs: {amount: many}\n"))
    assert code == 1
    assert "inputs.amount: expected a whole number, got the text 'many'" in said


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        (case("{ran: [resreve]}"), "error SF310: the workflow has no step `resreve`"),
        (case("{attempts: {'each[0].x': 1}}"), "error SF310"),
        (case("{outputs: {di: 1}}"), "the workflow has no output `di`"),
        (case("{calls: {psp.chrage: 1}}"), "did you mean `psp.charge`?"),
        (case("{state: succeeded}", charge="      psp.pay: {}\n"), "the workflow has no task `psp.pay`"),
        (case("{state: succeeded}", more="    inputs: {amuont: 1}\n"), "the workflow has no input `amuont`"),
        (case("{state: success}"), "error SF011"),
        (case("{stat: failed}"), "error SF010"),
        (case("{time: soon}"), "error SF501"),
        (case("{state: failed}", charge="      psp.charge: {value: '${{ agrs.n }}'}\n"), "error SF204"),
        (case("{state: failed}", charge="      psp.charge: {value: 1, error: X}\n"), "error SF013"),
    ],
)
def test_a_case_that_cannot_be_meant_is_a_finding(judge: object, tests: str, says: str, cli: Cli) -> None:
    assert callable(judge)
    code, said = judge(tests)
    assert code == 2
    assert says in said
    assert cli("validate", "pay.yaml").code == 2


def test_the_coverage_lists_what_no_case_reached(judge: object) -> None:
    assert callable(judge)
    code, said = judge(case("{state: succeeded}"), "--min-coverage", "90")
    assert code == 1
    assert "coverage 86 %: 8 of 8 steps, 3 of 4 sides of conditions, 1 of 2 cases" in said
    assert "line 6: cool: `when` was never false" in said
    assert "line 16: route: the case bank was never taken" in said
    assert "expected a coverage of at least 90 %, got 86 %" in said


def test_junit_has_a_case_and_its_failure(judge: object) -> None:
    assert callable(judge)
    code, said = judge(case("{state: failed}"), "--format", "junit")
    suite = ElementTree.fromstring(said.partition("\n")[2])[0]
    assert (code, suite.attrib["tests"], suite.attrib["failures"]) == (1, "1", "1")
    found = suite.find("testcase/failure")
    assert found is not None
    assert "state: expected failed" in found.attrib["message"]


def test_files_of_tests_belong_to_the_workflow_that_they_name(project: Path, cli: Cli) -> None:
    # Given cases next to the workflow, and in another folder
    tests = "tests: {hello: {mocks: {say: {value: hi}, each: {value: 1}}, expect: {outputs: {said: hi}}}}\n"
    (project / "hello.test.yaml").write_text(tests)
    (project / "more").mkdir()
    (project / "more" / "other.test.yaml").write_text(f"workflow: ../hello.yaml\n{tests}")
    # Then each is found once from the folder, and from the workflow those next to it
    assert cli("test", ".").out.count("  ok   hello") == 2
    assert cli("test", "hello.yaml").out.count("  ok   hello") == 1
    assert cli("test", "more/other.test.yaml").code == 0
    assert cli("test", "flaky.yaml").code == 3


def test_with_tasks_a_task_without_a_mock_runs_its_handler(project: Path, cli: Cli) -> None:
    (project / "hello.test.yaml").write_text(
        "tests: {square: {inputs: {times: 4}, mocks: {say: {}}, expect: {outputs: {squared: 16}}}}\n"
    )
    assert cli("test", "hello.yaml", "--tasks", "tasks").code == 0
    assert cli("test", "hello.yaml", "--case", "square").code == 1
    assert cli("test", "hello.yaml", "--case", "circle").code == 3


def test_a_run_that_never_ends_fails_the_case(project: Path, cli: Cli) -> None:
    (project / "long.yaml").write_text(
        'stemflow: "1"\nname: long\nsteps: {a: {wait: {for: 9000d}}}\ntests: {x: {expect: {state: succeeded}}}\n'
    )
    ran = cli("test", "long.yaml")
    assert (ran.code, "the run never ends" in ran.out) == (1, True)


WAITS = """\
stemflow: "1"
name: waits
steps:
  ask: {approval: {by: [ann], timeout: 3d, inputs: {sum: {type: integer}}}}
  paid: {event: {type: paid, timeout: 5d}, needs: [ask]}
tests:
  two days for a person:
    answers: {ask: {by: ann, after: 2d, inputs: {sum: 3}}}
    events: [{type: paid, data: {n: 1}, after: 60h}]
    expect: {state: succeeded, order: [ask, paid], time: 60h}
  rejected:
    answers: {ask: {by: ann, approve: false, after: 1h, note: too much}}
    expect: {state: failed, failed: [ask], skipped: [paid], time: 1h}
  nobody answers: {expect: {state: failed, time: 3d}}
  somebody else: {answers: {ask: {by: bob}}, expect: {state: succeeded}}
"""


def test_approvals_and_events_take_no_real_time(project: Path, cli: Cli) -> None:
    (project / "waits.yaml").write_text(WAITS)
    ran = cli("test", "waits.yaml")
    lines = ran.out.split("\n")
    assert [line.split()[0] for line in lines[1:4]] == ["ok", "ok", "ok"], ran.out
    assert "FAIL somebody else" in ran.out
    assert "bob" in ran.out
    (project / "waits.yaml").write_text(WAITS.replace("answers: {ask: {by: bob}}", "answers: {aks: {by: ann}}"))
    assert "the workflow has no step `aks`" in cli("test", "waits.yaml").err


def test_watch_runs_again_after_a_change() -> None:
    # Given files that change twice while nothing else happens, and then Ctrl-C
    stamps = iter([1, 1, 2, 2, 2, 3, 3])
    runs: list[int] = []

    def wait(seconds: float) -> None:
        if len(runs) == 3:
            raise KeyboardInterrupt

    def stamp() -> int:
        return next(stamps, 3)

    with pytest.raises(KeyboardInterrupt):
        watch(lambda: runs.append(1) or 0, stamp, wait)  # type: ignore[func-returns-value]
    assert len(runs) == 3


def test_the_cases_of_the_examples_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["test", "workflows/tests", "--min-coverage", "100"]) == 0
    capsys.readouterr()
