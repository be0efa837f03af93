"""A switch runs the one case that a value names; its end and its value are those of that case."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, InvalidWorkflow, OptionError, Stemflow, TaskRegistry, load_workflow
from stemflow.runtime.tasks.context import Reject

Calls = list[tuple[str, Any]]


@pytest.fixture
def calls(registry: TaskRegistry) -> Calls:
    """What was called, and tasks that note it: `find` gives its argument, `note` a text, `bad` fails, `slow` waits."""
    seen: Calls = []

    @registry.task("find")
    async def find(value: Any) -> Any:
        seen.append(("find", value))
        return value

    @registry.task("note")
    async def note(value: Any, name: str = "note") -> str:
        seen.append((name, value))
        return f"{name} {value}"

    @registry.task("bad")
    async def bad(value: Any = None) -> None:
        seen.append(("bad", value))
        raise Reject("declined")

    @registry.task("slow")
    async def slow(value: Any = None) -> str:
        seen.append(("slow", value))
        await asyncio.sleep(60)
        return "slow"

    return seen


def note(name: str) -> Any:
    return Canvas.task("note", name=name)


@pytest.mark.parametrize(
    ("value", "taken"),
    [("card", "card"), ("bank", "bank"), (404, "404"), (404.0, "404"), (True, "true"), (None, "null"), ("x", "other")],
)
async def test_the_case_is_taken_whose_key_is_the_value(app: Stemflow, calls: Calls, value: Any, taken: str) -> None:
    cases: dict[Any, Any] = {"card": note("card"), "bank": note("bank"), 404: note("404"), True: note("true")}
    cases[None] = note("null")
    tree = Canvas.chain(Canvas.task("find", {"kind": value}), Canvas.switch("prev.kind", cases, note("other")))
    assert await app.run(tree) == f"{taken} {{'kind': {value!r}}}"
    assert [name for name, _ in calls] == ["find", taken]


async def test_without_a_case_and_a_default_it_is_skipped_and_so_is_what_follows(app: Stemflow, calls: Calls) -> None:
    tree = Canvas.chain(Canvas.task("find", "z"), Canvas.switch("prev", {"a": note("a")}), note("after"))
    handle = await app.submit(tree)
    result = await handle.wait(timeout=60)
    assert result.status == "skipped"
    (switch,) = await app.store.read([(handle.id, "[1]")])
    assert switch is not None and (switch.state, switch.cause) == ("skipped", "condition")  # type: ignore[union-attr]
    assert calls == [("find", "z")]


async def test_a_case_that_fails_is_the_switch_failed_and_its_hooks_run(app: Stemflow, calls: Calls) -> None:
    switch = Canvas.switch("prev", {"a": Canvas.task("bad"), "b": note("b")}).on_failure(note("hook"))
    result = await (await app.submit(Canvas.chain(Canvas.task("find", "a"), switch, note("after")))).wait(timeout=60)
    assert result.status == "failed" and result.failed_at == "[1].a"
    assert [name for name, _ in calls] == ["find", "bad", "hook"]
    assert calls[-1][1]["leaf"] == "[1].a"


async def test_a_value_that_cannot_be_computed_fails_the_switch(app: Stemflow, calls: Calls) -> None:
    tree = Canvas.chain(Canvas.task("find", 0), Canvas.switch("1 // prev", {"a": note("a")}))
    result = await (await app.submit(tree)).wait(timeout=60)
    assert result.status == "failed" and result.error is not None
    assert result.error.message.startswith("case: ")


async def test_a_map_takes_a_case_for_each_item(app: Stemflow, calls: Calls) -> None:
    each = Canvas.switch("item", {"a": note("a")}, note("other"))
    assert await app.run(Canvas.map(each, ["a", "b", "a"], concurrency=1)) == ["a a", "other b", "a a"]


async def test_a_result_has_the_type_that_all_cases_give(app: Stemflow, registry: TaskRegistry, calls: Calls) -> None:
    @dataclass
    class Receipt:
        number: int

    @registry.task("card")
    async def card(value: str) -> Receipt:
        return Receipt(1)

    @registry.task("bank")
    async def bank(value: str) -> Receipt:
        return Receipt(2)

    same = Canvas.chain(Canvas.task("find", "b"), Canvas.switch("prev", {"a": card.s(), "b": bank.s()}))
    assert await app.run(same) == Receipt(2)
    other = Canvas.chain(Canvas.task("find", "b"), Canvas.switch("prev", {"a": note("a"), "b": bank.s()}))
    assert await app.run(other) == {"number": 2}


@pytest.mark.parametrize(
    ("on", "cases", "message"),
    [
        ("prev.", {"a": note("a")}, "switch: on: "),
        ("prev", {}, "expected at least one case"),
        ("prev", {1: note("a"), "1": note("b")}, "expected different keys, got 1, 1"),
        ("prev", {"default": note("a")}, "give it as `default=`"),
        ("prev", {"a": "note"}, "switch: case 'a': expected a signature"),
    ],
)
def test_a_switch_that_cannot_work_is_refused(on: str, cases: Any, message: str) -> None:
    with pytest.raises(OptionError) as refused:
        Canvas.switch(on, cases)
    assert message in str(refused.value)


FILE = """\
stemflow: "1"
name: pay
inputs: {kind: {type: string}}
steps:
  find: {task: find, args: {value: "${{ inputs.kind }}"}}
  route:
    switch:
      on: steps.find.output
      cases:
        card:
          task: note
          args: {value: 1, name: card}
          compensate: {task: note, args: {value: "${{ self.output }}", name: undo_card}}
        bank:
          chain:
            - task: note
              args: {value: 2, name: bank}
              compensate: {task: note, args: {value: "${{ self.output }}", name: undo_bank}}
            - {task: note, args: {value: "${{ prev }}", name: sent}}
        broken: {task: bad}
        slow: {task: slow}
  after:
    task: AFTER
    args: {value: "${{ steps.route.output }}"}
on_failure: {compensate: true}
on_cancel: {compensate: true}
outputs:
  paid: ${{ steps.route.output }}
  card: ${{ get(steps.route.members.card.output) }}
  states: "${{ [steps.route.state, steps.route.members.card.state, steps.route.members.bank.state] }}"
  why: ${{ get(steps.route.members.broken.error.message) }}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(after: str = "note") -> Any:
        path = tmp_path / f"pay-{after}.yaml"
        path.write_text(FILE.replace("AFTER", after), "utf-8")
        return load_workflow(path)

    return write


async def test_a_file_reads_the_cases_by_name(app: Stemflow, calls: Calls, write: Any) -> None:
    assert await app.run(write(), inputs={"kind": "bank"}) == {
        "paid": "sent bank 2", "card": None, "states": ["succeeded", "skipped", "succeeded"], "why": None,
    }  # fmt: skip
    assert await app.run(write(), inputs={"kind": "none"}) == {
        "paid": None, "card": None, "states": ["skipped", "skipped", "skipped"], "why": None,
    }  # fmt: skip


async def test_compensation_undoes_the_case_that_was_taken(app: Stemflow, calls: Calls, write: Any) -> None:
    result = await (await app.submit(write("bad"), inputs={"kind": "bank"})).wait(timeout=60)
    assert result.status == "failed"
    assert [name for name, _ in calls] == ["find", "bank", "sent", "bad", "undo_bank"]


async def test_a_cancel_ends_the_case_that_runs(app: Stemflow, calls: Calls, write: Any) -> None:
    handle = await app.submit(write(), inputs={"kind": "slow"})
    await asyncio.sleep(5)
    await handle.cancel()
    assert (await handle.wait(timeout=600)).status == "cancelled"
    found = await app.store.read([(handle.id, "route"), (handle.id, "route.slow"), (handle.id, "after")])
    assert [node and node.state for node in found] == ["cancelled", "cancelled", None]  # type: ignore[union-attr]


async def test_a_rerun_takes_the_same_case_and_keeps_what_succeeded(app: Stemflow, calls: Calls, write: Any) -> None:
    first = await app.submit(write("bad"), inputs={"kind": "broken"})
    await first.wait(timeout=60)
    again = await app.rerun(first.id, failed=True)
    assert (await again.wait(timeout=60)).failed_at == "route.broken"
    assert [name for name, _ in calls] == ["find", "bad", "bad"]
    later = await app.rerun(first.id, from_step="find")
    await later.wait(timeout=60)
    assert [name for name, _ in calls][3:] == ["find", "bad"]


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("on: steps.find.output", "on: steps.fnd.output", "SF104"),
        ("      on: steps.find.output\n", "", "SF015"),
        ("cases:\n", "casse:\n", "SF010"),
        ("broken: {task: bad}", "default: {task: bad}", "SF012"),
        ("broken: {task: bad}", "404: {task: bad}", "SF004"),
        ("broken: {task: bad}", "broken: {}", "SF013"),
    ],
)
def test_a_mistake_in_a_switch_is_a_finding(tmp_path: Path, before: str, after: str, code: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(FILE.replace("AFTER", "note").replace(before, after), "utf-8")
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(path)
    assert code in [one.code for one in refused.value.diagnostics]
