"""Rate limits: how many start in a time, over all workers, and under which key they are counted."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from stemflow import Canvas, OptionError, RateLimit, Stemflow, TaskContext, TaskRegistry, load_workflow
from stemflow.testing.simulation.virtual_loop import VirtualClock

OpenApp = Callable[..., Awaitable[Stemflow]]
Option = dict[str, Any]


class Starts:
    """When handlers began, in ms since the first, by a name that they give themselves."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.at: defaultdict[str, list[int]] = defaultdict(list)

    def note(self, name: str = "") -> None:
        self.at[name].append(self.clock.now_ms())

    def of(self, name: str = "") -> list[int]:
        found = sorted(self.at[name])
        first = min(one for some in self.at.values() for one in some)
        return [one - first for one in found]


@pytest.fixture
def starts(clock: VirtualClock) -> Starts:
    return Starts(clock)


@pytest.fixture
def mail(registry: TaskRegistry, starts: Starts) -> Callable[..., Any]:
    """Makes a task `mail(user)` with such options, which notes its start."""

    def make(name: str = "mail", noted: str = "", **options: Any) -> Any:
        @registry.task(name, **options)
        async def mail(user: str = "") -> str:
            starts.note(noted or user)
            return user

        return mail

    return make


async def all_of(app: Stemflow, *calls: Any, headers: Mapping[str, str] | None = None) -> None:
    result = await (await app.submit(Canvas.group(calls), headers=headers)).wait(3_600)
    assert result.status == "succeeded", result.error


# -- windows and pace


@pytest.mark.parametrize(
    "limit",
    ["3/s", RateLimit(3, "1s"), RateLimit(3, 1), {"rate": "3/s"}, {"limit": 3, "per": "1s"}, ["3/s"], ("3/s", "99/m")],
)
async def test_a_limit_can_be_written_in_several_ways(app: Stemflow, mail: Any, starts: Starts, limit: Any) -> None:
    task = mail(rate_limit=limit)
    await all_of(app, *[task.si() for _ in range(7)])
    assert starts.of() == [0, 0, 0, 1_000, 1_000, 1_000, 2_000]


async def test_pace_spaces_starts_evenly(app: Stemflow, mail: Any, starts: Starts) -> None:
    task = mail(rate_limit=RateLimit(4, "1s", pace=True))
    await all_of(app, *[task.si() for _ in range(5)])
    assert starts.of() == [0, 250, 500, 750, 1_000]


async def test_pace_lets_a_burst_through_after_a_pause(app: Stemflow, mail: Any, starts: Starts) -> None:
    # Given four a second with a burst of three, when five come, and again much later
    task = mail(rate_limit=RateLimit(4, "1s", burst=3, pace=True))
    await all_of(app, *[task.si() for _ in range(5)])
    await asyncio.sleep(60)
    await all_of(app, *[task.si() for _ in range(5)])

    # Then three start at once each time, and no more than three, however long the pause
    first = starts.of()
    assert first[:5] == [0, 0, 0, 250, 500]
    assert [one - first[5] for one in first[5:]] == [0, 0, 0, 250, 500]


async def test_of_several_limits_the_strictest_counts_at_each_moment(app: Stemflow, mail: Any, starts: Starts) -> None:
    task = mail(rate_limit=["2/s", RateLimit(5, "10s"), RateLimit(1, "100ms", pace=True)])
    await all_of(app, *[task.si() for _ in range(7)])
    assert starts.of() == [0, 100, 1_000, 1_100, 2_000, 10_000, 10_100]


async def test_a_retry_counts_as_a_start(app: Stemflow, registry: TaskRegistry, starts: Starts) -> None:
    @registry.task("flaky", rate_limit="1/m", max_retries=2, retry={"initial": "1s", "jitter": 0})
    async def flaky(context: TaskContext) -> int:
        starts.note()
        if context.attempt < 2:
            raise ValueError
        return context.attempt

    assert await app.run(flaky.si()) == 2
    assert starts.of() == [0, 60_000, 120_000]


async def test_being_limited_is_no_attempt_and_writes_no_record(app: Stemflow, mail: Any, clock: VirtualClock) -> None:
    # Given a task that waits for its limit for a minute
    task = mail(rate_limit="1/m")
    await app.run(task.si())
    handle = await app.submit(task.si())
    before = await handle.root()

    # When the minute has nearly passed
    await asyncio.sleep(59)

    # Then its record is as it was, and in the end it has had one attempt and one delivery
    assert await handle.root() == before
    assert (before.state, before.rev, before.delivery) == ("ready", 1, 0)
    await handle.wait(2)
    root = await handle.root()
    assert (root.state, root.attempt, root.delivery, root.losses) == ("succeeded", 0, 1, 0)


async def test_a_limited_task_holds_no_slot_and_blocks_nothing_else(
    open_app: OpenApp, registry: TaskRegistry, mail: Any, starts: Starts
) -> None:
    # Given a worker with one slot, and a head of the queue that must wait long
    app = await open_app(concurrency=1)
    limited, free = mail("limited", "limited", rate_limit="1/h", priority=9), mail("free", "free")
    handles = [await app.submit(limited.si()) for _ in range(50)]

    # When others come behind it, then they start at once
    await asyncio.sleep(1)
    await all_of(app, *[free.si() for _ in range(50)])
    assert starts.of("limited") == [0]
    assert set(starts.of("free")) == {1_000}
    for handle in handles:
        await handle.cancel()


async def test_a_cancelled_task_gives_its_turn_to_the_next(app: Stemflow, mail: Any, starts: Starts) -> None:
    task = mail(rate_limit="1/m")
    handles = [await app.submit(task.si(str(number))) for number in range(4)]
    await handles[1].cancel()
    await asyncio.sleep(200)
    assert {name: starts.of(name) for name in "0123"} == {"0": [0], "1": [], "2": [60_000], "3": [120_000]}


# -- keys


async def test_without_a_key_each_tenant_has_a_limit_of_its_own_for_each_task(
    app: Stemflow, mail: Any, starts: Starts
) -> None:
    # Given two tasks with one limit each
    one, two = mail("one", "one", rate_limit="1/s"), mail("two", "two", rate_limit="1/s")

    # When two tenants and somebody without a tenant call them twice; a header of a call is over that of the run
    await asyncio.gather(
        all_of(app, one.si(), one.si(), two.si(), headers={"tenant": "acme"}),
        all_of(app, one.with_options(headers={"tenant": "acme"}).si(), headers={"tenant": "initech"}),
        all_of(app, one.si(), one.si(), headers={"tenant": "initech"}),
        all_of(app, one.si(), one.si()),
    )

    # Then each of them waits for himself alone
    assert starts.of("one") == [0, 0, 0, 1_000, 1_000, 1_000, 2_000]
    assert starts.of("two") == [0]


async def test_tasks_of_one_key_share_its_limit(app: Stemflow, mail: Any, starts: Starts) -> None:
    limit = RateLimit(2, "1s", key="provider")
    one, two = mail("one", "any", rate_limit=limit), mail("two", "any", rate_limit=limit)
    await all_of(app, one.si(), two.si(), one.si(), two.si())
    assert starts.of("any") == [0, 0, 1_000, 1_000]


async def test_a_key_may_be_an_expression_over_arguments(app: Stemflow, mail: Any, starts: Starts) -> None:
    task = mail(rate_limit=RateLimit(1, "1s", key="user:${{ args.user }}"))
    await all_of(app, task.si("a"), task.si(user="b"), task.si("a"), task.si("b"))
    assert starts.of("a") == starts.of("b") == [0, 1_000]


async def test_a_key_may_speak_of_the_result_of_the_step_before(
    app: Stemflow, registry: TaskRegistry, mail: Any, starts: Starts
) -> None:
    @registry.task("who")
    async def who(number: int) -> str:
        return "ab"[number % 2]

    task = mail(rate_limit=RateLimit(1, "1s", key="user:${{ args.user }}"))
    await all_of(app, *[who.si(number) | task.s() for number in range(4)])
    assert starts.of("a") == starts.of("b") == [0, 1_000]


async def test_a_key_may_be_a_header(app: Stemflow, mail: Any, starts: Starts) -> None:
    task = mail(rate_limit=RateLimit(1, "1s", key="${{ get(headers.region, 'none') }}"))
    calls = [task.with_options(headers={"region": name}).si(name) for name in ("eu", "us", "eu")]
    await all_of(app, *calls, task.si("none"), task.si("none"))
    assert {name: starts.of(name) for name in ("eu", "us", "none")} == {"eu": [0, 1_000], "us": [0], "none": [0, 1_000]}


async def test_an_empty_key_is_the_default(app: Stemflow, mail: Any, starts: Starts) -> None:
    task = mail(noted="any", rate_limit=RateLimit(1, "1s", key="${{ args.user }}"))
    await all_of(app, task.si(""), task.si(""))
    assert starts.of("any") == [0, 1_000]


async def test_a_key_is_judged_once(app: Stemflow, registry: TaskRegistry, starts: Starts) -> None:
    # Given a task that is limited by its argument, and fails once
    judged: list[Any] = []

    @registry.task("flaky", rate_limit=RateLimit(1, "1m", key="k:${{ args.user }}"), max_retries=1)
    async def flaky(context: TaskContext, user: str) -> None:
        (node,) = await app.store.read([(context.run_id, "")])
        judged.append(node.limits)  # type: ignore[union-attr]
        if context.attempt == 0:
            raise ValueError

    await app.run(flaky.si("a"))
    assert len(judged) == 2
    assert judged[0] == judged[1]
    assert [one.key for one in judged[0]] == ["k:a"]


async def test_a_key_that_cannot_be_evaluated_fails_the_task_and_nothing_else(app: Stemflow, mail: Any) -> None:
    task = mail(rate_limit=RateLimit(1, "1s", key="${{ args.users[3] }}"))
    result = await (await app.submit(task.si("a"))).wait(10)
    assert result.status == "failed"
    assert result.error is not None
    assert "rate_limit: there is no key 'users'" in result.error.message


# -- groups


async def test_a_group_shares_one_bucket_among_many_tasks_by_the_tenant(
    app: Stemflow, mail: Any, starts: Starts
) -> None:
    one = mail("one", "any", group_rate_limit="2/s")
    two = mail("two", "any", group_rate_limit="2/s")
    await asyncio.gather(
        all_of(app, one.si(), two.si(), one.si(), headers={"tenant": "acme"}),
        all_of(app, one.si(), two.si(), two.si()),
    )
    assert starts.of("any") == [0, 0, 0, 0, 1_000, 1_000]


async def test_a_group_may_have_another_header_or_a_key(app: Stemflow, mail: Any, starts: Starts) -> None:
    by_region = mail("by_region", "region", group_rate_limit="1/s", group_rate_key_header="region")
    by_key = mail("by_key", "key", group_rate_limit="1/s", group_rate_key="all:${{ args.user }}")
    calls = [by_region.with_options(headers={"region": name}).si() for name in ("eu", "us", "eu")]
    await all_of(app, *calls, by_key.si("a"), by_key.si("b"), by_key.si("a"), headers={"tenant": "acme"})
    assert starts.of("region") == [0, 0, 1_000]
    assert starts.of("key") == [0, 0, 1_000]


async def test_a_task_keeps_its_own_limit_and_that_of_its_group(app: Stemflow, mail: Any, starts: Starts) -> None:
    # Given five a second for the group, of which each task may have two
    both: Option = {"rate_limit": "2/s", "group_rate_limit": "5/s", "group_rate_key": "provider"}
    tasks = [mail(name, name, **both) for name in "abc"]

    # When each is called three times; then the group admits five and one waits, though its own limit had room
    await all_of(app, *[task.si() for _ in range(3) for task in tasks])
    every = sorted(one for name in "abc" for one in starts.of(name))
    assert every == [0] * 5 + [1_000] * 4
    assert all(later - earlier >= 1_000 for name in "abc" for earlier, later in _apart(starts.of(name), 2))


def _apart(instants: list[int], places: int) -> list[tuple[int, int]]:
    return list(zip(instants, instants[places:], strict=False))


# -- files


FILE = """
stemflow: "1"
name: mails
defaults: {task: {group_rate_limit: 100/s}}
steps:
  all:
    map:
      items: "['a', 'b', 'a', 'b', 'a']"
      as: user
      do:
        task: mail
        args: {user: "${{ user }}"}
        rate_limit: [{limit: 2, per: 1s, pace: true, key: "${{ user }}:${{ args.user }}"}, 4/s]
"""


async def test_a_file_says_the_same(app: Stemflow, mail: Any, starts: Starts, tmp_path: Path) -> None:
    mail()
    (tmp_path / "mails.yaml").write_text(FILE)
    await app.run(load_workflow(tmp_path / "mails.yaml"))
    assert (starts.of("a"), starts.of("b")) == ([0, 500, 1_000], [0, 500])


# -- what is wrong


WRONG = [
    (RateLimit, (0, "1s"), {}, "limit: expected a whole number from 1 to 100000, got 0"),
    (RateLimit, (True, "1s"), {}, "limit: expected a whole number"),
    (RateLimit, (5, "0s"), {}, "per: expected a duration from 1ms to 31d, got '0s'"),
    (RateLimit, (5, "often"), {}, "expected a duration such as"),
    (RateLimit, (5, "1s"), {"key": 3}, "key: expected text, got 3"),
    (RateLimit, (5, "1s"), {"burst": 2}, "burst: expected it with pace"),
    (RateLimit, (5, "1s"), {"burst": 6, "pace": True}, "burst: expected a whole number from 1 to 5, got 6"),
    (RateLimit, (5, "1s"), {"pace": "yes"}, "pace: expected true or false"),
    (RateLimit.of, ({"rate": "5/s", "limit": 5},), {}, "expected the keys rate, or limit and per"),
    (RateLimit.of, ("5/w",), {}, "expected a rate such as"),
]


@pytest.mark.parametrize(("make", "args", "more", "told"), WRONG)
def test_a_wrong_limit_is_refused_with_a_sentence(make: Any, args: Any, more: Option, told: str) -> None:
    with pytest.raises(Exception, match=told) as refused:
        make(*args, **more)
    assert type(refused.value).__module__ == "stemflow.errors"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rate_limit": {"rate": "5/s", "burst": 2}}, "task t: rate_limit: burst: expected it with pace"),
        ({"rate_limit": {"rate": "5/s", "key": "${{ args. }}"}}, "task t: the key of a rate limit: "),
        ({"group_rate_limit": RateLimit(5, "1s", "k")}, "task t: group_rate_limit: expected limits without a key"),
        ({"group_rate_key": ""}, "task t: group_rate_key: expected a text that is not empty"),
        ({"group_rate_key_header": 3}, "a text that is not empty, got 3"),
    ],
)
def test_a_wrong_option_is_refused_when_the_task_is_registered_and_when_it_is_called(
    registry: TaskRegistry, options: Option, told: str
) -> None:
    async def nothing() -> None: ...

    with pytest.raises(OptionError) as refused:
        registry.task("t", **options)(nothing)
    assert told in str(refused.value)
    task: Any = registry.task("t")(nothing)
    with pytest.raises(OptionError) as refused:
        registry.options_of(task.with_options(**options).si())
    assert told in str(refused.value)


# -- a limiter of one's own


class Gate:
    """A limiter with given answers that records its calls."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, list[RateLimit]]]()

    async def acquire(self, key: str, limits: Sequence[RateLimit]) -> float | None:
        self.asked.append((key, list(limits)))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer == "hang":
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                await asyncio.sleep(10_000)
        return cast("float | None", answer)


@pytest.mark.parametrize("group", [{"group_rate_key": "psp"}, {"group_rate_limit": "9/s", "group_rate_key": "psp"}])
async def test_a_limiter_of_ones_own_is_asked_before_a_task_of_a_group_starts(
    app: Stemflow, registry: TaskRegistry, mail: Any, starts: Starts, group: Option
) -> None:
    # Given a limiter that lets the task wait for 3 s, then for 500 ms
    registry.rate_limiter = gate = Gate(3, 0.5, None)
    task, free = mail(**group), mail("free", "free")

    # When the task and another, which is of no group, are submitted
    handle = await app.submit(task.si())
    await app.run(free.si())
    await handle.wait(60)

    # Then it starts when it may, and has been charged with nothing
    assert starts.of() == [3_500]
    limits = [RateLimit(9, "1s")] if "group_rate_limit" in group else []
    assert gate.asked == [("group:psp", limits)] * 3
    root = await handle.root()
    assert (root.state, root.attempt, root.losses) == ("succeeded", 0, 0)


async def test_a_limiter_is_asked_for_each_key_of_a_task_with_limits_of_its_own(
    app: Stemflow, registry: TaskRegistry, mail: Any
) -> None:
    registry.rate_limiter = gate = Gate()
    task = mail(rate_limit=RateLimit(5, "1s", "mails"), group_rate_limit="7/s", group_rate_key="psp")
    await app.run(task.si())
    await app.run(mail("free", "free").si())
    assert gate.asked == [("mails", [RateLimit(5, "1s", "mails")]), ("group:psp", [RateLimit(7, "1s")])]


async def test_a_limiter_is_asked_by_the_key_of_the_call(app: Stemflow, registry: TaskRegistry, mail: Any) -> None:
    registry.rate_limiter = gate = Gate()
    task = mail(group_rate_key="of:${{ args.user }}")
    by_header = mail("by_header", group_rate_limit="1/m", group_rate_key_header="region")
    await app.run(task.si("ann"))
    await app.run(by_header.with_options(headers={"region": "eu"}).si())
    assert [key for key, _ in gate.asked] == ["group:of:ann", "group:eu"]


@pytest.mark.parametrize("answer", [OSError("down"), "hang", "soon", -1])
@pytest.mark.parametrize("mode", ["open", "closed"])
async def test_a_limiter_that_fails_is_open_or_closed_as_the_task_says(
    open_app: OpenApp, registry: TaskRegistry, mail: Any, starts: Starts, answer: Any, mode: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    # Given a limiter that fails twice: it raises, does not answer, or gives what is no answer
    app = await open_app(concurrency=1)
    registry.rate_limiter = gate = Gate(answer, answer)
    task, free = mail(group_rate_key="psp", group_rate_limiter_failure_mode=mode), mail("free", "free")

    # When the task is submitted
    handle = await app.submit(task.si())
    await asyncio.sleep(1.5 if answer == "hang" else 0.5)
    await app.run(free.si())
    result = await handle.wait(60)

    # Then open lets it start, once it has waited a second for an answer at most; closed tries again a second later.
    # It takes the one slot of the worker no longer than that, and is charged with nothing.
    assert result.status == "succeeded"
    assert len(gate.asked) == (1 if mode == "open" else 3)
    first = min(starts.of("free"))
    assert (starts.of()[0] < first) == (mode == "open")
    assert f"group_rate_limiter_failure_mode={mode}" in caplog.text
    root = await handle.root()
    assert (root.attempt, root.losses) == (0, 0)


@pytest.mark.parametrize("mode", ["open", "closed"])
async def test_a_group_without_a_limit_needs_a_limiter(app: Stemflow, mail: Any, mode: Any) -> None:
    # Given a group that only a limiter could limit, and a worker that has none; then that is a limiter that fails
    task = mail(group_rate_key="psp", group_rate_limiter_failure_mode=mode)
    handle = await app.submit(task.si())
    assert (await handle.wait(10)).timed_out == (mode == "closed")
    await handle.cancel()


def test_what_cannot_be_asked_is_no_limiter() -> None:
    with pytest.raises(OptionError, match="registry: rate_limiter: expected an object with `async def acquire"):
        TaskRegistry(rate_limiter=object())  # type: ignore[arg-type]
    gate = Gate()
    assert TaskRegistry(rate_limiter=gate).copy().rate_limiter is gate
