"""A catch replaces the failure of a step, a cleanup runs whatever happened, and so do the hooks of a whole run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, InvalidWorkflow, OptionError, Stemflow, TaskContext, TaskRegistry, load_workflow
from stemflow.runtime.tasks.context import Reject

Calls = list[tuple[str, Any]]


class Declined(Reject):
    """What `bad` raises."""


@pytest.fixture
def calls(registry: TaskRegistry) -> Calls:
    """What was called, and tasks that note it: `note` gives its argument, `bad` fails, `slow` waits for a minute."""
    seen: Calls = []

    @registry.task("note")
    async def note(ctx: TaskContext, value: Any = None, name: str = "note") -> Any:
        seen.append((name, value))
        return value

    @registry.task("bad")
    async def bad(value: Any = None, name: str = "bad") -> None:
        seen.append((name, value))
        raise Declined("no")

    @registry.task("slow")
    async def slow(value: Any = None, name: str = "slow") -> str:
        seen.append((name, value))
        await asyncio.sleep(60)
        return "slow"

    return seen


def note(name: str, value: Any = None) -> Any:
    return Canvas.task("note", **({} if value is None else {"value": value}), name=name)


def names(calls: Calls) -> list[str]:
    return [name for name, _ in calls]


async def run(app: Stemflow, tmp_path: Path, text: str, **inputs: Any) -> Any:
    file = tmp_path / "flow.yaml"
    file.write_text('stemflow: "1"\nname: caught\n' + text)
    return await (await app.submit(load_workflow(file), inputs=inputs)).wait(timeout=600)


# -- catch


async def test_what_a_catch_gives_replaces_the_value_and_the_failure(app: Stemflow, calls: Calls) -> None:
    caught = Canvas.chain(note("first", 1), Canvas.task("bad")).catch(Canvas.chain(note("c"), note("d")))
    result = await (await app.submit(Canvas.chain(caught, note("after")))).wait(timeout=60)
    assert result.status == "succeeded" and result.value["error"]["type"] == "Declined"
    assert names(calls) == ["first", "bad", "c", "d", "after"]
    failure = dict(calls)["c"]
    assert (failure["node"], failure["leaf"]) == ("[0]", "[0][1]")


async def test_a_success_needs_no_catch(app: Stemflow, calls: Calls) -> None:
    assert await app.run(note("a", 5).catch(note("c"))) == 5
    assert names(calls) == ["a"]


@pytest.mark.parametrize(
    ("on", "when", "fits"),
    [
        (["Declined"], None, True),
        (["Reject"], None, True),
        ([Declined], None, True),
        ([f"{__name__}.Declined"], None, True),
        (["Other"], None, False),
        (["Declined"], "error.message == 'no'", True),
        ([], "error.message == 'yes'", False),
    ],
)
async def test_a_catch_is_for_types_and_a_condition(
    app: Stemflow, calls: Calls, on: Any, when: str | None, fits: bool
) -> None:
    result = await (await app.submit(Canvas.task("bad").catch(note("c"), on=on, when=when))).wait(timeout=60)
    assert result.status == ("succeeded" if fits else "failed")
    assert names(calls) == ["bad", "c"] if fits else ["bad"]


async def test_the_first_catch_that_fits_is_taken_and_its_own_failure_counts(app: Stemflow, calls: Calls) -> None:
    step = Canvas.task("bad").catch(note("other"), on=["Other"]).catch(Canvas.task("bad", name="worse"))
    result = await (await app.submit(Canvas.group(step.catch(note("third"))))).wait(timeout=60)
    assert result.status == "failed" and result.failed_at == "[0]!catch2"
    assert names(calls) == ["bad", "worse"]


async def test_a_timeout_of_a_composite_is_caught(app: Stemflow, calls: Calls) -> None:
    step = Canvas.chain(Canvas.task("slow")).with_timeout("5s").catch(note("c"), on=["TaskTimeout"])
    result = await (await app.submit(step)).wait(timeout=600)
    assert result.status == "succeeded" and result.value["error"]["type"] == "TaskTimeout"


async def test_a_group_is_caught_as_a_whole_after_its_other_members_ended(app: Stemflow, calls: Calls) -> None:
    tree = Canvas.group(Canvas.task("bad"), Canvas.task("slow")).catch(note("c"))
    result = await (await app.submit(tree)).wait(timeout=600)
    assert result.status == "succeeded" and names(calls).count("c") == 1 and names(calls)[-1] == "c"


async def test_nothing_is_caught_in_what_is_being_stopped(app: Stemflow, calls: Calls) -> None:
    """A sibling fails while the step waits for a failure that would be caught."""
    slow = Canvas.chain(Canvas.wait(5), Canvas.task("bad", name="late")).catch(note("c")).finally_(note("f"))
    result = await (await app.submit(Canvas.group(Canvas.task("bad"), slow))).wait(timeout=600)
    assert result.status == "failed"
    assert names(calls) == ["bad", "f"]


async def test_a_catch_is_stopped_by_a_cancel_and_a_cleanup_is_not(app: Stemflow, calls: Calls) -> None:
    step = Canvas.task("bad").catch(Canvas.chain(Canvas.task("slow", name="c"), note("never")))
    handle = await app.submit(Canvas.chain(step).finally_(Canvas.chain(Canvas.wait(3), note("f"))))
    await asyncio.sleep(2)
    await handle.cancel()
    result = await handle.wait(timeout=600)
    assert result.status == "cancelled"
    assert names(calls) == ["bad", "c", "f"]
    assert calls[-1][1] is None


async def test_a_value_that_is_caught_is_read_by_other_steps_and_by_a_rerun(
    app: Stemflow, calls: Calls, tmp_path: Path
) -> None:
    text = """
steps:
  pay:
    task: bad
    catch: {on: [Declined], do: {task: note, args: {value: "later: ${{ error.message }}"}}}
  after:
    task: note
    args: {value: "${{ steps.pay.output }}"}
  fails:
    needs: [after]
    task: bad
outputs: {paid: "${{ steps.pay.output }}", state: "${{ steps.pay.state }}"}
"""
    result = await run(app, tmp_path, text)
    assert result.status == "failed"
    assert [value for name, value in calls if name == "note"] == ["later: no", "later: no"]
    calls.clear()
    again = await (await app.rerun(result.task_id, failed=True)).wait(timeout=60)
    assert again.status == "failed"
    assert names(calls) == ["bad", "note", "bad"], "what was caught is tried again, and what came after it is kept"


async def test_a_catch_may_read_the_steps_of_the_graph_that_failed(app: Stemflow, calls: Calls, tmp_path: Path) -> None:
    text = """
steps:
  work:
    steps:
      a: {task: note, args: {value: 1}}
      b: {task: bad, needs: [a]}
    catch:
      - on: [Other]
        do: {task: note, args: {value: wrong}}
      - when: error.type == 'Declined'
        do:
          set: {a: "${{ steps.a.output }}", b: "${{ steps.b.state }}", of: "${{ self.state }}"}
    finally: {task: note, args: {value: "${{ self.state }} ${{ self.output.a }} ${{ error == null }}"}}
outputs: {work: "${{ steps.work.output }}"}
"""
    result = await run(app, tmp_path, text)
    assert result.value == {"work": {"a": 1, "b": "failed", "of": "failed"}}
    assert calls[-1] == ("note", "succeeded 1 true")


# -- finally


@pytest.mark.parametrize(("task", "state"), [("note", "succeeded"), ("bad", "failed")])
async def test_a_cleanup_runs_after_every_outcome(app: Stemflow, calls: Calls, task: str, state: str) -> None:
    result = await (await app.submit(Canvas.task(task).finally_(note("f")))).wait(timeout=60)
    assert result.status == state
    assert calls[-1][0] == "f" and calls[-1][1]["state"] == state
    assert ("error" in calls[-1][1]) == (state == "failed")


async def test_a_cleanup_runs_after_a_timeout_and_within_its_own_time(app: Stemflow, calls: Calls) -> None:
    inner = Canvas.chain(Canvas.task("slow")).finally_(Canvas.chain(Canvas.wait(30), note("f")))
    result = await (await app.submit(Canvas.chain(inner).with_timeout("5s"))).wait(timeout=600)
    assert result.status == "failed" and result.error is not None and result.error.type == "TaskTimeout"
    assert names(calls) == ["slow", "f"]


async def test_a_cleanup_that_fails_makes_a_success_that_failure(app: Stemflow, calls: Calls) -> None:
    result = await (await app.submit(note("a").finally_(Canvas.task("bad")))).wait(timeout=60)
    assert result.status == "failed" and result.error is not None and result.error.type == "Declined"
    failed = await (await app.submit(Canvas.fail("first").finally_(Canvas.task("bad")))).wait(timeout=60)
    assert failed.error is not None and failed.error.message == "first"


async def test_a_forced_cancel_cuts_a_cleanup_off(app: Stemflow, calls: Calls) -> None:
    handle = await app.submit(note("a").finally_(Canvas.chain(Canvas.wait(30), note("f"))))
    await asyncio.sleep(2)
    await handle.cancel(force=True)
    assert (await handle.wait(timeout=60)).status == "succeeded"
    assert names(calls) == ["a"]


async def test_a_step_that_never_began_has_no_cleanup(app: Stemflow, calls: Calls, tmp_path: Path) -> None:
    text = """
steps:
  a: {task: bad}
  b: {task: note, needs: [a], finally: {task: note, args: {name: f}}}
  c: {when: "false", task: note, finally: {task: note, args: {name: f}}}
"""
    await run(app, tmp_path, text)
    assert names(calls) == ["bad"]


# -- the hooks and the cleanup of a run


@pytest.mark.parametrize(("task", "hook"), [("note", "won"), ("bad", "lost")])
@pytest.mark.parametrize("body", ["steps: {a: {task: TASK}}", "group: [{task: TASK}]", "chain: [{task: TASK}]"])
async def test_the_hooks_of_a_file_run_once_and_then_its_cleanup(
    app: Stemflow, calls: Calls, tmp_path: Path, body: str, task: str, hook: str
) -> None:
    text = f"""
{body.replace("TASK", task)}
on_success: {{do: {{task: note, args: {{name: won, value: "${{{{ self.state }}}}"}}}}}}
on_failure: {{do: {{task: note, args: {{name: lost, value: "${{{{ error.type }}}}"}}}}}}
on_cancel: {{do: {{task: note, args: {{name: off}}}}}}
finally: {{task: note, args: {{name: last, value: "${{{{ self.state }}}} ${{{{ inputs.x }}}}"}}}}
inputs: {{x: {{type: integer}}}}
"""
    await run(app, tmp_path, text, x=3)
    state = "succeeded" if task == "note" else "failed"
    value = "succeeded" if task == "note" else "Declined"
    assert calls[1:] == [(hook, value), ("last", f"{state} 3")]


async def test_compensation_comes_before_the_hook_and_the_cleanup(app: Stemflow, calls: Calls, tmp_path: Path) -> None:
    text = """
steps:
  a: {task: note, compensate: {task: note, args: {name: undo}}}
  b: {task: bad, needs: [a]}
on_failure: {compensate: true, do: {task: note, args: {name: lost}}}
finally: {task: note, args: {name: last, value: "${{ steps.a.state }} ${{ steps.b.state }}"}}
"""
    await run(app, tmp_path, text)
    assert names(calls) == ["note", "bad", "undo", "lost", "last"]
    assert calls[-1][1] == "succeeded failed"


# -- what is refused


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("steps: {a: {task: bad, catch: {on: [X]}}}", "SF015"),
        ("steps: {a: {task: bad, catch: {on: ['a b'], do: {task: note}}}}", "SF404"),
        ("steps: {a: {task: bad, catch: {do: {task: note, args: {value: '${{ steps.a.error }}'}}}}}", "SF103"),
        ("steps: {a: {task: bad, catch: {when: error.nothing, do: {task: note}}}}", "SF207"),
        ("steps: {a: {task: bad, finally: {}}}", "SF013"),
        ("steps: {a: {task: note, args: {value: '${{ error }}'}}}", "SF204"),
    ],
)
def test_a_catch_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, code: str) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(f'stemflow: "1"\nname: refused\n{text}\n')
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert code in {one.code for one in refused.value.diagnostics}, refused.value


def test_a_canvas_says_what_a_catch_needs() -> None:
    with pytest.raises(OptionError, match="catch: expected a signature"):
        Canvas.task("a").catch("b")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="catch: on: expected classes"):
        Canvas.task("a").catch(Canvas.task("b"), on=[3])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="expected one for each step"):
        Canvas.task("a").finally_(Canvas.task("b")).finally_(Canvas.task("c"))


async def test_a_condition_that_is_no_expression_is_refused_at_submission(app: Stemflow, calls: Calls) -> None:
    with pytest.raises(OptionError, match="catch: when: "):
        await app.submit(Canvas.task("bad").catch(note("c"), when="error ="))
