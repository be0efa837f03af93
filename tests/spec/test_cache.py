"""Equal calls of a cached task get one result for a time, in one run and in others, on every store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, InvalidWorkflow, OptionError, Stemflow, TaskRegistry, load_workflow
from stemflow.runtime.tasks.context import Reject
from tests.spec.conftest import OpenApp

Calls = list[Any]


@pytest.fixture
def calls(registry: TaskRegistry) -> Calls:
    """What was computed: `find` is cached for ten minutes, `plain` is not; both give their argument and the count."""
    found: Calls = []

    async def compute(value: Any, noise: int = 0) -> Any:
        found.append(value)
        number = len(found)
        await asyncio.sleep(5)
        if value == "bad":
            raise Reject("no")
        return [value, number]

    registry.task("find", cache="10m")(compute)
    registry.task("by_value", cache={"ttl": 600, "key": "${{ args.value }}"})(compute)
    registry.task("plain")(compute)
    return found


async def value(app: Stemflow, sig: Any, **options: Any) -> Any:
    result = await (await app.submit(sig, **options)).wait(timeout=1_000)
    assert result.status == "succeeded", result.error
    return result.value


async def test_equal_calls_of_other_runs_get_the_result_until_it_has_expired(app: Stemflow, calls: Calls) -> None:
    first, other = await value(app, Canvas.group(Canvas.task("find", "a"), Canvas.task("find", "b")))
    assert sorted([first, other], key=lambda found: found[1]) == [[calls[0], 1], [calls[1], 2]]
    assert await value(app, Canvas.group(Canvas.task("find", value="a"))) == [first]
    assert await value(app, Canvas.task("find", "a")) == first
    assert len(calls) == 2
    await asyncio.sleep(601)
    assert await value(app, Canvas.group(Canvas.task("find", "a"))) == [["a", 3]]


async def test_calls_at_the_same_time_compute_once(app: Stemflow, calls: Calls) -> None:
    both = [await app.submit(Canvas.group(Canvas.task("find", "a"))) for _ in range(3)]
    assert [(await one.wait(timeout=60)).value for one in both] == [[["a", 1]]] * 3
    assert calls == ["a"]


async def test_a_key_says_which_calls_are_equal(app: Stemflow, calls: Calls) -> None:
    group = Canvas.group([Canvas.task("by_value", "a", noise=noise) for noise in range(3)])
    assert await value(app, group) == [["a", 1]] * 3


async def test_a_failure_is_not_kept(app: Stemflow, calls: Calls) -> None:
    for _ in range(2):
        assert (await (await app.submit(Canvas.task("find", "bad"))).wait(timeout=60)).status == "failed"
    assert calls == ["bad", "bad"]


async def test_a_run_without_the_cache_neither_reads_nor_writes_it(app: Stemflow, calls: Calls) -> None:
    for sig in (Canvas.task("find", "a"), Canvas.group(Canvas.task("find", "a"), Canvas.task("find", "a"))):
        await value(app, sig, no_cache=True)
    (handle,) = await app.submit_many([Canvas.task("find", "a")], no_cache=True)
    await handle.wait()
    assert calls == ["a", "a", "a", "a"]
    await value(app, Canvas.task("find", "a"))
    assert len(calls) == 5


@pytest.mark.parametrize(("task", "computed"), [("find", 2), (None, 2), ("by_value", 1)])
async def test_a_cleared_cache_is_computed_again(
    app: Stemflow, open_app: OpenApp, calls: Calls, task: str | None, computed: int
) -> None:
    await value(app, Canvas.chain(Canvas.task("find", "a")))
    other = await open_app(worker=False)
    await other.clear_cache(task)
    await value(app, Canvas.chain(Canvas.task("find", "a")))
    assert len(calls) == computed


async def test_a_file_caches_a_step_or_does_not(app: Stemflow, calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("""
stemflow: "1"
name: cached
inputs: {day: {type: string, default: monday}}
steps:
  a: {task: plain, args: {value: 1}, cache: {ttl: 1h, key: "day ${{ inputs.day }}"}}
  b: {task: plain, args: {value: 2, noise: "${{ steps.a.output[1] }}"}, cache: 1h}
  c: {task: find, args: {value: 3}, needs: [b], cache: false}
outputs: {all: "${{ [steps.a.output, steps.b.output, steps.c.output] }}"}
""")
    flow = load_workflow(file)
    assert (await value(app, flow))["all"] == [[1, 1], [2, 2], [3, 3]]
    assert (await value(app, flow))["all"] == [[1, 1], [2, 2], [3, 4]]
    assert (await value(app, flow, inputs={"day": "sunday"}))["all"][0] == [1, 5]


async def test_a_rerun_takes_what_is_cached(app: Stemflow, calls: Calls) -> None:
    handle = await app.submit(Canvas.chain(Canvas.task("find", "a"), Canvas.fail("no")))
    await handle.wait(timeout=60)
    again = await app.rerun(handle.id, failed=True)
    await again.wait(timeout=60)
    assert calls == ["a"]


@pytest.mark.parametrize(
    ("cache", "message"),
    [("0s", "above 0"), ("400d", "up to 366d"), ({"key": "x"}, "got no ttl"), ({"ttl": 1, "for": 2}, "got for"),
     (True, "cache: "), ({"ttl": 1, "key": 3}, "expected an expression")],
)  # fmt: skip
def test_a_cache_that_cannot_be_is_refused(registry: TaskRegistry, cache: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        registry.task("bad", cache=cache)(lambda: None)
    with pytest.raises(OptionError, match="expected cache or unique, got both"):
        registry.task("bad", cache="1h", unique=True)(lambda: None)


@pytest.mark.parametrize(
    ("step", "code"),
    [("cache: true", "SF011"), ("cache: {key: x}", "SF015"), ("cache: 1 fortnight", "SF501"),
     ("cache: 1h, unique: true", "SF524"), ("cache: {ttl: 1h, key: '${{ nothing }}'}", "SF204")],
)  # fmt: skip
def test_a_step_that_cannot_be_cached_so_is_refused(tmp_path: Path, step: str, code: str) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(f'stemflow: "1"\nname: refused\nsteps: {{a: {{task: t, {step}}}}}\n')
    with pytest.raises(InvalidWorkflow) as refused:
        load_workflow(file)
    assert code in [one.code for one in refused.value.diagnostics]
