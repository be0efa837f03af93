"""Concurrency keys: never more than the limit run, the others wait in order and without a worker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    Canvas,
    Concurrency,
    InvalidWorkflow,
    OptionError,
    Reject,
    RunFailed,
    RunHandle,
    Stemflow,
    TaskContext,
    TaskRegistry,
    load_workflow,
)
from stemflow.store.base import Request, Want

OpenApp = Callable[..., Awaitable[Stemflow]]


class Room:
    """Who is in it, how many were at once, and in which order they came."""

    def __init__(self) -> None:
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.came: list[Any] = []

    async def stay(self, who: Any, seconds: float, part: str = "") -> None:
        self.came.append(who)
        self.inside[part] += 1
        self.most[part] = max(self.most[part], self.inside[part])
        try:
            await asyncio.sleep(seconds)
        finally:
            self.inside[part] -= 1


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def press(registry: TaskRegistry, room: Room) -> Any:
    """Prints for 10 s; there is one printer."""

    @registry.task("press", concurrency={"key": "printer"})
    async def press(page: Any) -> Any:
        await room.stay(page, 10)
        return page

    return press


async def value(handle: RunHandle) -> Any:
    result = await handle.wait(timeout=3_600)
    assert not result.timed_out, [(node.path, node.state) for node in await handle.records()]
    return result.value if result.status == "succeeded" else result.error and result.error.type


async def place(app: Stemflow, key: str) -> Any:
    return (await app.store.read([("", f"concurrency:{key}")]))[0]


# -- the limit


async def test_calls_under_one_key_run_one_after_the_other_in_the_order_in_which_they_came(
    app: Stemflow, press: Any, room: Room
) -> None:
    handles = [await app.submit(press.s(page)) for page in range(5)]
    assert [await value(handle) for handle in handles] == [0, 1, 2, 3, 4]
    assert room.came == [0, 1, 2, 3, 4]
    assert room.most[""] == 1
    assert await place(app, "printer") is None


async def test_the_limit_holds_over_all_processes_runs_and_tasks_that_share_the_key(
    open_app: OpenApp, registry: TaskRegistry, room: Room
) -> None:
    # Given two tasks under one key that lets three in, and three workers
    three = Concurrency("pool", 3)
    for name in ("red", "blue"):

        @registry.task(name, concurrency=three)
        async def work(n: int) -> int:
            await room.stay(n, 1 + n % 3)
            return n

    apps = [await open_app() for _ in range(3)]

    # When they are asked for much at once, alone and within a canvas
    alone = [await apps[n % 3].submit(Canvas.task("red", n)) for n in range(6)]
    group = await apps[0].submit(Canvas.group([Canvas.task("blue", n) for n in range(6, 12)]))
    assert [await value(handle) for handle in alone] == list(range(6))
    assert await value(group) == list(range(6, 12))

    # Then three ran at once, and never more
    assert room.most[""] == 3
    assert await place(apps[0], "pool") is None


async def test_a_key_over_the_arguments_gives_each_value_a_limit_of_its_own(
    app: Stemflow, registry: TaskRegistry, room: Room
) -> None:
    @registry.task("sync", concurrency=Concurrency("tenant:${{ args.tenant }}", 2))
    async def sync(tenant: str, n: int) -> None:
        await room.stay(n, 5, tenant)

    await app.run(Canvas.group([sync.s(tenant, n) for n in range(5) for tenant in ("ann", "bob")]))
    assert room.most == {"ann": 2, "bob": 2}
    assert await place(app, "tenant:ann") is None


async def test_a_limit_alone_counts_the_calls_of_the_task(app: Stemflow, registry: TaskRegistry, room: Room) -> None:
    @registry.task("heavy", concurrency=2)
    async def heavy(n: int) -> None:
        await room.stay(n, 5)

    await app.run(Canvas.map(heavy.s(), range(5)))
    assert room.most[""] == 2


async def test_tasks_that_end_together_under_one_key_are_decided_at_once(
    app: Stemflow, registry: TaskRegistry, room: Room
) -> None:
    # Given many runs under one key, eight of which end at the same time
    @registry.task("crowd", concurrency=8)
    async def crowd(n: int) -> None:
        await room.stay(n, 1)

    handles = [await app.submit(crowd.s(n)) for n in range(64)]
    for handle in handles:
        await handle.wait()

    # Then no decision came too late because another one of the same worker had changed the key
    assert app.service is not None
    assert app.service.exchange_loop.stale_decisions == 0
    assert room.most[""] == 8


async def test_one_who_waits_holds_no_worker_slot(open_app: OpenApp, press: Any, registry: TaskRegistry) -> None:
    # Given a worker with room for two, and a queue before the printer
    @registry.task("quick")
    async def quick() -> str:
        return "done"

    app = await open_app(concurrency=2)
    for page in range(4):
        await app.submit(press.s(page))
    await asyncio.sleep(1)

    # When something else comes, then it runs next to the first page
    result = await (await app.submit(quick.s())).wait(timeout=1)
    assert result.value == "done"


async def test_one_who_waits_and_is_cancelled_leaves_the_queue(app: Stemflow, press: Any, room: Room) -> None:
    first, second, third = [await app.submit(press.s(page)) for page in (1, 2, 3)]
    await second.cancel()
    assert [await value(handle) for handle in (first, third)] == [1, 3]
    assert room.came == [1, 3]


async def test_one_who_waits_expires(app: Stemflow, press: Any) -> None:
    first = await app.submit(press.s(1))
    second = await app.submit(press.with_options(expires="5s").s(2))
    third = await app.submit(press.s(3))
    assert [await value(handle) for handle in (first, second, third)] == [1, "Expired", 3]


# -- the place becomes free


async def test_each_end_of_an_attempt_gives_the_place_to_the_next(
    app: Stemflow, registry: TaskRegistry, room: Room
) -> None:
    # Given calls that end well, fail for good, skip themselves, and put something else in their place
    @registry.task("one", concurrency=1)
    async def one(ctx: TaskContext, how: str) -> str:
        await room.stay(how, 1)
        if how == "fails":
            raise Reject("no")
        if how == "goes":
            await ctx.replace(Canvas.chain(one.si("in its place")))
        return how

    handles = [await app.submit(one.s(how)) for how in ("ok", "fails", "goes", "last")]
    assert [await value(handle) for handle in handles] == ["ok", "Reject", "in its place", "last"]
    assert room.came == ["ok", "fails", "goes", "last", "in its place"]
    assert await place(app, "one") is None


async def test_a_backoff_holds_no_place(app: Stemflow, registry: TaskRegistry, room: Room) -> None:
    # Given a call that fails at first and is tried again after a minute
    @registry.task("flaky", concurrency=1, max_retries=1, retry={"backoff": "fixed", "initial": "1m", "jitter": 0})
    async def flaky(ctx: TaskContext, n: int) -> int:
        await room.stay((n, ctx.attempt), 1)
        if n == 1 and ctx.attempt == 0:
            raise ValueError("not yet")
        return n

    # When others wait for the place, then they do not wait for the minute
    handles = [await app.submit(flaky.s(n)) for n in (1, 2, 3)]
    result = await handles[2].wait(timeout=5)
    assert result.value == 3
    assert await value(handles[0]) == 1
    assert room.came == [(1, 0), (2, 0), (3, 0), (1, 1)]


async def test_a_countdown_holds_no_place(app: Stemflow, press: Any, room: Room) -> None:
    late = await app.submit(press.with_options(countdown="1m").s("late"))
    soon = await app.submit(press.s("soon"))
    assert await value(soon) == "soon"
    assert await value(late) == "late"
    assert room.came == ["soon", "late"]


async def test_a_dead_holder_frees_its_place_with_its_lease(open_app: OpenApp, press: Any, room: Room) -> None:
    # Given a worker that dies with the first page, and a second page that waits
    app = await open_app(worker=False)
    first = await app.submit(press.with_options(visibility_timeout="10s").s(1))
    second = await app.submit(press.s(2))
    answer = await app.store.exchange(Request("dead", 1), [], Want(owner="dead", limit=9))
    assert [lease.node.run for lease in answer.leases] == [first.id]

    # When another worker is there and the lease has run out
    await open_app()

    # Then the second page has the place, and the first one is behind it
    assert await value(second) == 2
    assert await value(first) == 1
    assert room.came == [2, 1]


async def test_a_task_that_is_handed_back_gives_its_slot_to_a_waiter(
    open_app: OpenApp, press: Any, room: Room
) -> None:
    app = await open_app()
    first, second = [await app.submit(press.s(page)) for page in (1, 2)]
    await asyncio.sleep(1)
    await app.hand_back()
    await open_app()
    assert (await value(second), await value(first)) == (2, 1)
    assert room.came == [1, 2, 1]


async def test_a_cancelled_holder_gives_its_place_back(app: Stemflow, press: Any, room: Room) -> None:
    first, second = [await app.submit(press.s(page)) for page in (1, 2)]
    await asyncio.sleep(1)
    await first.cancel()
    result = await second.wait(timeout=15)
    assert result.value == 2


async def test_a_key_that_cannot_be_evaluated_fails_its_task(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("broken", concurrency=Concurrency("${{ args.page.missing }}"))
    async def broken(page: str) -> None: ...

    with pytest.raises(RunFailed, match="concurrency"):
        await app.run(broken.s("home"))


@pytest.mark.parametrize("wrong", [0, -1, True, "three", {"key": "k", "limit": 0}, {"kye": "k"}, {"key": 3}])
def test_a_wrong_limit_is_refused_when_the_task_is_registered(registry: TaskRegistry, wrong: Any) -> None:
    with pytest.raises(OptionError, match="concurrency"):

        @registry.task("wrong", concurrency=wrong)
        async def task() -> None: ...


# -- composites and whole runs


async def test_a_composite_holds_its_place_until_all_of_it_has_ended(
    app: Stemflow, registry: TaskRegistry, room: Room
) -> None:
    # Given two chains that may not be mixed
    @registry.task("step")
    async def step(name: str) -> None:
        await room.stay(name, 1)

    chains = [Canvas.chain(step.si(f"{run}1"), step.si(f"{run}2")).with_concurrency("line") for run in "ab"]
    await app.run(Canvas.group(chains))
    assert room.came in (["a1", "a2", "b1", "b2"], ["b1", "b2", "a1", "a2"])
    assert await place(app, "line") is None


FILE = """\
stemflow: "1"
name: release
inputs: {site: {type: string}, version: {type: integer}}
concurrency: {key: "deploy-${{ inputs.site }}"}
steps:
  build: {task: enter, args: {who: "${{ inputs.version }}", part: "${{ inputs.site }}"}}
  test:
    needs: [build]
    map:
      items: range(6)
      do:
        task: enter
        args: {who: "${{ item }}", part: tests}
        concurrency: {key: "${{ args.part }}", limit: 2}
outputs: {version: "${{ inputs.version }}"}
"""


@pytest.fixture
def enter(registry: TaskRegistry, room: Room) -> Any:
    @registry.task("enter")
    async def enter(who: Any, part: str) -> None:
        await room.stay(who, 5, part)

    return enter


async def test_runs_of_a_workflow_wait_for_each_other_and_steps_for_their_limit(
    app: Stemflow, enter: Any, room: Room, tmp_path: Path
) -> None:
    # Given a workflow of which one run a site may go on, and at most two tests of all of them
    (tmp_path / "release.yaml").write_text(FILE, "utf-8")
    workflow = load_workflow(tmp_path / "release.yaml")
    runs = [("a", 1), ("a", 2), ("b", 3)]
    handles = [await app.submit(workflow, inputs={"site": site, "version": version}) for site, version in runs]
    await asyncio.sleep(1)

    # Then the second run of one site has not begun, and shows as waiting
    assert [(await handle.root()).state for handle in handles] == ["running", "held", "running"]
    assert [await value(handle) for handle in handles] == [{"version": 1}, {"version": 2}, {"version": 3}]
    assert room.most == {"a": 1, "b": 1, "tests": 2}


async def test_a_run_that_waits_can_be_cancelled(app: Stemflow, enter: Any, tmp_path: Path) -> None:
    (tmp_path / "release.yaml").write_text(FILE, "utf-8")
    workflow = load_workflow(tmp_path / "release.yaml")
    first, second = [await app.submit(workflow, inputs={"site": "a", "version": n}) for n in (1, 2)]
    await second.cancel()
    assert (await second.wait(1)).status == "cancelled"
    assert await value(first) == {"version": 1}


async def test_a_key_within_itself_is_an_error_and_not_a_standstill(app: Stemflow, press: Any) -> None:
    with pytest.raises(RunFailed, match="its concurrency key is held by") as failed:
        await app.run(Canvas.chain(press.s(1)).with_concurrency("printer"))
    assert failed.value.error is not None and failed.value.error.type == "SelfDeadlock"


def test_a_key_within_itself_is_found_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "release.yaml"
    path.write_text(FILE.replace('key: "${{ args.part }}", limit: 2', 'key: "deploy-${{ inputs.site }}"'), "utf-8")
    with pytest.raises(InvalidWorkflow, match="SF504") as invalid:
        load_workflow(path)
    assert [one.line for one in invalid.value.diagnostics] == [14]
