"""Retries: when a failed attempt is tried again, how often, and what is no failure at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    Canvas,
    OptionError,
    Reject,
    RetryPolicy,
    RetryStrategy,
    Stemflow,
    TaskContext,
    TaskHandler,
    TaskRegistry,
    load_workflow,
)
from stemflow.model.facts import Lost
from stemflow.store.base import Exchange, Request, StoreUnavailable, Want
from stemflow.testing.simulation.virtual_loop import EPOCH_MS, VirtualClock
from tests.spec.conftest import OpenApp, pass_time

NO_DELAY = RetryPolicy.of(backoff="fixed", initial=0)


class PspDown(ConnectionError):
    """An error of a user's own."""


class Attempts:
    """A task that raises `errors` in turn, the last one forever, and notes when its attempts start, in seconds."""

    def __init__(self, registry: TaskRegistry, clock: VirtualClock) -> None:
        self.registry, self.clock = registry, clock
        self.starts: list[float] = []

    def task(self, *errors: BaseException | None, name: str = "flaky", **options: Any) -> Any:
        left = list(errors) or [ValueError("no")]

        @self.registry.task(name, **options)
        async def flaky() -> str:
            self.starts.append((self.clock.now_ms() - EPOCH_MS) / 1_000)
            error = left.pop(0) if len(left) > 1 else left[0]
            if error is not None:
                raise error
            return "done"

        return flaky

    @property
    def pauses(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.starts, self.starts[1:], strict=False)]


@pytest.fixture
def attempts(registry: TaskRegistry, clock: VirtualClock) -> Attempts:
    return Attempts(registry, clock)


async def ended(app: Stemflow, what: Any) -> Any:
    return await (await app.submit(what)).wait()


# -- when


async def test_by_default_the_pauses_double_from_two_seconds_to_five_minutes_less_up_to_a_quarter(
    app: Stemflow, attempts: Attempts
) -> None:
    await ended(app, attempts.task(max_retries=10).s())
    longest = [min(2.0 * 2**n, 300.0) for n in range(10)]
    assert [0.75 * most <= pause <= most for pause, most in zip(attempts.pauses, longest, strict=True)] == [True] * 10
    assert len({pause / most for pause, most in zip(attempts.pauses, longest, strict=True)}) > 5


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [
        ({"backoff": "fixed"}, [2, 2, 2, 2]),
        ({"backoff": "fixed", "initial": "7s"}, [7, 7, 7, 7]),
        ({"backoff": "linear"}, [2, 6, 10, 14]),
        ({"backoff": "linear", "initial": "1s", "factor": 1}, [1, 2, 3, 4]),
        ({}, [2, 4, 8, 16]),
        ({"initial": "100ms"}, [0.1, 0.2, 0.4, 0.8]),
        ({"initial": "1s", "factor": 10}, [1, 10, 100, 300]),
        ({"max": "5s"}, [2, 4, 5, 5]),
        ({"initial": 0}, [0, 0, 0, 0]),
    ],
    ids=str,
)
async def test_a_policy_says_how_the_pauses_grow(
    app: Stemflow, attempts: Attempts, policy: dict[str, Any], pauses: list[float]
) -> None:
    await ended(app, attempts.task(max_retries=4, retry=RetryPolicy.of(jitter=0, **policy)).s())
    assert attempts.pauses == pytest.approx(pauses)


async def test_jitter_takes_off_a_share_that_differs_from_task_to_task(app: Stemflow, attempts: Attempts) -> None:
    # Given many tasks that fail at the same time
    flaky = attempts.task(max_retries=1, retry=RetryPolicy.of(backoff="fixed", initial="100s", jitter=0.5))
    await app.submit_many([flaky.s() for _ in range(40)])
    await asyncio.sleep(200)

    # Then they come again spread over the share
    again = sorted(attempts.starts)[40:]
    assert len(again) == 40
    assert 50 <= again[0] < 60
    assert 90 < again[-1] <= 100


# -- how often


@pytest.mark.parametrize(
    ("options", "tried"),
    [
        ({}, 1),
        ({"max_retries": 2}, 3),
        ({"retry": {"initial": 0, "max_retries": 2}}, 3),
        ({"retry": RetryPolicy.of(initial=0, max_retries=2)}, 3),
        ({"retry": RetryPolicy.of(initial=0, max_retries=5), "max_retries": 1}, 2),
    ],
    ids=str,
)
async def test_a_task_is_tried_once_and_as_often_again_as_its_options_say(
    app: Stemflow, attempts: Attempts, options: dict[str, Any], tried: int
) -> None:
    # Given a task that always fails
    handle = await app.submit(attempts.task(PspDown("down"), **options).s())

    # Then it is dead-lettered with its last error when no attempt is left
    result = await handle.wait()
    assert (result.status, result.attempt, len(attempts.starts)) == ("failed", tried - 1, tried)
    (letter,) = await app.store.dead_letters(handle.id)
    assert (letter.reason, letter.attempts) == ("max-retries-exhausted", tried)
    assert letter.error is not None and (letter.error.type, letter.error.message) == ("PspDown", "down")


async def test_retries_end_with_the_budget_of_time(app: Stemflow, attempts: Attempts) -> None:
    # Given a task with a hundred retries each ten seconds, and a minute for all of them
    policy = RetryPolicy.of(backoff="fixed", initial="10s", jitter=0, budget="60s")
    result = await ended(app, attempts.task(max_retries=100, retry=policy).s())

    # Then none begins later than a minute after the task became known
    assert (result.status, attempts.starts) == ("failed", [0, 10, 20, 30, 40, 50, 60])


async def test_between_two_attempts_there_is_one_record_with_the_same_id(app: Stemflow, attempts: Attempts) -> None:
    handle = await app.submit(Canvas.group(attempts.task(ValueError("no"), None, max_retries=1).s()))
    await asyncio.sleep(1)
    (waiting,) = [node for node in await handle.records() if node.path == "[0]"]
    assert (waiting.state, waiting.attempt, waiting.lease_ms) == ("ready", 1, 30_000)
    assert waiting.at_ms - EPOCH_MS <= 2_000
    assert (await handle.wait()).value == ["done"]


# -- which errors


GROUP = ExceptionGroup("both", [PspDown("down"), ExceptionGroup("inner", [ConnectionResetError("reset")])])


@pytest.mark.parametrize(
    ("policy", "error", "tried"),
    [
        ({"retry_on": ValueError}, ValueError(), 3),
        ({"retry_on": (KeyError, ValueError)}, ValueError(), 3),
        ({"retry_on": (ValueError,)}, KeyError(), 1),
        ({"retry_on": (ConnectionError,)}, PspDown(), 3),
        ({"retry_on": (PspDown,)}, ConnectionError(), 1),
        ({"retry_on": ("tests.spec.test_retries.PspDown",)}, PspDown(), 3),
        ({"retry_on": "PspDown"}, PspDown(), 3),
        ({"retry_on": ("other.PspDown",)}, PspDown(), 1),
        ({"retry_on": ("builtins.OSError",)}, PspDown(), 3),
        ({"never_retry_on": (ValueError,)}, ValueError(), 1),
        ({"never_retry_on": (OSError,)}, PspDown(), 1),
        ({"never_retry_on": (OSError,)}, ValueError(), 3),
        ({"retry_on": (ConnectionError,), "never_retry_on": (PspDown,)}, PspDown(), 1),
        ({"retry_on": (ConnectionError,)}, GROUP, 3),
        ({"retry_on": (PspDown,)}, GROUP, 1),
        ({"retry_on": (ExceptionGroup,)}, GROUP, 3),
        ({"never_retry_on": (ConnectionResetError,)}, GROUP, 1),
        ({"never_retry_on": (ValueError,)}, GROUP, 3),
    ],
    ids=str,
)
async def test_errors_are_filtered_by_class_and_those_derived_from_it(
    app: Stemflow, attempts: Attempts, policy: dict[str, Any], error: Exception, tried: int
) -> None:
    """A group of errors is matched by its own class, or by all that it holds; one to be never retried is enough."""
    task = attempts.task(error, max_retries=2, retry=RetryPolicy.of(initial=0, **policy))
    assert (await ended(app, task.s())).status == "failed"
    assert len(attempts.starts) == tried


@pytest.mark.parametrize(
    ("when", "tried"),
    [
        ("error.type == 'PspDown'", 3),
        ("error.type == 'ConnectionError'", 1),
        ("error.qualname == 'tests.spec.test_retries.PspDown'", 3),
        ("'503' in error.message", 3),
        ("'404' in error.message", 1),
        ("error.no_such_thing", 1),
    ],
)
async def test_an_expression_over_the_error_says_whether_it_is_tried_again(
    app: Stemflow, attempts: Attempts, when: str, tried: int
) -> None:
    await ended(app, attempts.task(PspDown("got 503"), max_retries=2, retry=RetryPolicy.of(initial=0, when=when)).s())
    assert len(attempts.starts) == tried


async def test_an_expression_that_cannot_be_read_is_refused_where_it_is_given(
    app: Stemflow, attempts: Attempts
) -> None:
    task = attempts.task().with_options(retry=RetryPolicy.of(when="error.type =="))
    with pytest.raises(OptionError, match=r"^task flaky: retry.when: this is not an expression"):
        await app.submit(task.s())


FLOW = """
stemflow: "1"
name: pays
steps:
  pay: {{task: flaky, retry: {retry}}}
"""


@pytest.mark.parametrize(
    ("retry", "tried"),
    [
        ("{max: 2, retry_on: [tests.spec.test_retries.PspDown]}", 3),
        ("{max: 2, retry_on: [ConnectionError]}", 3),
        ("{max: 2, retry_on: [ValueError, builtins.KeyError]}", 1),
        ("{max: 2, never_retry_on: [PspDown]}", 1),
        ("{max: 2, when: error.message == 'up'}", 1),
        ("{max: 2, budget: 1s, backoff: {initial: 10s}}", 1),
    ],
)
async def test_a_workflow_file_says_the_same(
    app: Stemflow, attempts: Attempts, retry: str, tried: int, tmp_path: Path
) -> None:
    attempts.task(PspDown("down"))
    file = tmp_path / "pays.yaml"
    file.write_text(FLOW.format(retry=retry))
    assert (await ended(app, load_workflow(file))).status == "failed"
    assert len(attempts.starts) == tried


@pytest.mark.parametrize("kind", [3, "two words", "", [ValueError()], dict])
@pytest.mark.parametrize("name", ["retry_on", "never_retry_on"])
def test_a_filter_that_names_no_class_of_errors_is_refused(name: str, kind: Any) -> None:
    with pytest.raises(OptionError, match=f"^{name}: expected classes of exceptions or their names, got "):
        RetryPolicy.of(**{name: kind})


# -- what a handler says of it


async def test_a_handler_that_rejects_its_task_fails_at_once(app: Stemflow, registry: TaskRegistry) -> None:
    begun: list[int] = []

    @registry.task("rejects", max_retries=5, retry=NO_DELAY)
    async def rejects(context: TaskContext) -> None:
        begun.append(context.attempt)
        raise Reject("an order without lines is none")

    handle = await app.submit(rejects.s())
    result = await handle.wait()
    assert (result.status, begun) == ("failed", [0])
    assert result.error is not None and result.error.message == "an order without lines is none"
    assert [letter.reason for letter in await app.store.dead_letters(handle.id)] == ["max-retries-exhausted"]


async def test_a_policy_that_a_handler_asks_for_brings_its_own_retries(app: Stemflow, registry: TaskRegistry) -> None:
    begun: list[int] = []

    @registry.task("asks")
    async def asks(context: TaskContext) -> None:
        begun.append(context.attempt)
        await context.retry(policy=RetryPolicy.of(initial=0, max_retries=3))

    await ended(app, asks.s())
    assert begun == [0, 1, 2, 3]


# -- a strategy of one's own


class Strategy:
    """Answers what it is given for each attempt, and notes what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[int, BaseException]] = []

    def next_delay(self, attempt: int, error: BaseException) -> Any:
        self.asked.append((attempt, error))
        answer = self.answers[min(attempt, len(self.answers) - 1)]
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer


async def test_a_strategy_is_given_the_attempt_and_the_error_and_says_how_long_to_wait(
    app: Stemflow, attempts: Attempts
) -> None:
    strategy, error = Strategy(1, "1m30s", 0.5), PspDown("down")
    result = await ended(app, attempts.task(error, max_retries=3, retry_strategy=strategy).s())
    assert (result.status, attempts.pauses) == ("failed", [1, 90, 0.5])
    assert strategy.asked == [(0, error), (1, error), (2, error)]


async def test_a_strategy_may_wait_longer_than_the_cap_of_the_policy_and_is_kept_by_its_budget(
    app: Stemflow, attempts: Attempts
) -> None:
    policy = RetryPolicy.of(budget="13m")
    await ended(app, attempts.task(max_retries=9, retry=policy, retry_strategy=Strategy("6m")).s())
    assert attempts.starts == [0, 360, 720]


async def test_a_strategy_that_gives_none_ends_the_retries(app: Stemflow, attempts: Attempts) -> None:
    await ended(app, attempts.task(max_retries=9, retry_strategy=Strategy(1, 1, None)).s())
    assert attempts.starts == [0, 1, 2]


async def test_a_strategy_is_not_asked_about_errors_that_the_policy_keeps_from_it(
    app: Stemflow, attempts: Attempts
) -> None:
    strategy = Strategy(1)
    policy = RetryPolicy.of(never_retry_on=(PspDown,))
    await ended(app, attempts.task(PspDown(), max_retries=9, retry=policy, retry_strategy=strategy).s())
    await ended(app, attempts.task(name="single", max_retries=0, retry_strategy=strategy).s())
    assert strategy.asked == []


async def test_the_strategy_of_the_registry_is_for_tasks_with_no_delays_of_their_own(
    app: Stemflow, registry: TaskRegistry, attempts: Attempts
) -> None:
    """The nearest counts: call, task's strategy, task's policy, registry's strategy."""
    registry.retry_strategy = Strategy(10)
    fixed = RetryPolicy.of(backoff="fixed", initial="5s", jitter=0)
    own = attempts.task(name="own", max_retries=1, retry=fixed, retry_strategy=Strategy(3))

    class Paid(TaskHandler[dict[str, int], None]):
        name = "paid"
        retry_strategy = Strategy(4)

        async def call(self, context: TaskContext, args: dict[str, int]) -> None:
            attempts.starts.append((attempts.clock.now_ms() - EPOCH_MS) / 1_000)
            raise ValueError("no")

    paid = registry.register(Paid())
    pauses = (
        (attempts.task(name="plain", max_retries=1).s(), 10),
        (attempts.task(name="filters", max_retries=1, retry=RetryPolicy.of(retry_on=(ValueError,))).s(), 10),
        (attempts.task(name="policy", max_retries=1, retry=fixed).s(), 5),
        (own.s(), 3),
        (own.with_options(retry=RetryPolicy.of(never_retry_on=(KeyError,))).s(), 3),
        (own.with_options(retry=RetryPolicy.of(backoff="fixed", initial="7s", jitter=0)).s(), 7),
        (paid.call({}).with_options(max_retries=1), 4),
    )
    for signature, pause in pauses:
        attempts.starts.clear()
        await ended(app, signature)
        assert attempts.pauses == [pause], signature


async def test_a_strategy_says_when_for_a_handler_that_asks_for_a_retry_and_names_no_time(
    app: Stemflow, registry: TaskRegistry, clock: VirtualClock
) -> None:
    strategy, starts, cause = Strategy(11), list[float](), PspDown()

    @registry.task("asks", max_retries=1, retry_strategy=strategy)
    async def asks(context: TaskContext, countdown: float | None) -> None:
        starts.append((clock.now_ms() - EPOCH_MS) / 1_000)
        await context.retry(countdown=countdown, cause=cause)

    await ended(app, asks.s(None))
    assert (starts, strategy.asked) == ([0, 11], [(0, cause)])
    await ended(app, asks.s(3))
    assert starts == [0, 11, 11, 14]


async def test_a_strategy_judges_a_hard_time_limit_and_what_a_middleware_or_thread_has_raised(
    app: Stemflow, registry: TaskRegistry
) -> None:
    strategy = Strategy(None)

    @registry.task("slow", max_retries=3, hard_time_limit=1, retry_strategy=strategy)
    async def slow() -> None:
        await asyncio.sleep(10)

    @registry.task("plain", max_retries=3, retry_strategy=strategy)
    def plain() -> None:
        raise PspDown("down")

    for task in (slow, plain):
        assert (await ended(app, task.s())).attempt == 0
    assert [type(error).__name__ for _, error in strategy.asked] == ["TaskTimeout", "PspDown"]


def _coroutine() -> Any:
    async def later() -> int:
        return 1

    coroutine = later()
    coroutine.close()
    return coroutine


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (-1, "expected a duration from 0 to 100 years, got -1"),
        (float("nan"), "expected a duration from 0 to 100 years, got nan"),
        (float("inf"), "expected a duration from 0 to 100 years, got inf"),
        (1e20, "expected a duration from 0 to 100 years, got 1e+20"),
        (10**400, "expected a duration from 0 to 100 years"),
        ("soon", "expected a duration such as 30s, 1m30s or 200ms, got 'soon'"),
        (True, "expected a duration such as 30s, 1m30s, seconds or a timedelta, got True"),
        ([1], "expected a duration or None, got list"),
        (_coroutine, "expected a duration or None, got coroutine"),
        (ZeroDivisionError("by zero"), "it raised ZeroDivisionError: by zero"),
        (KeyboardInterrupt("now"), "it raised KeyboardInterrupt: now"),
    ],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
async def test_a_strategy_that_raises_or_answers_nonsense_is_named_and_the_pause_of_the_policy_counts(
    app: Stemflow, attempts: Attempts, answer: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a task whose strategy is broken
    policy = RetryPolicy.of(backoff="fixed", initial="6s", jitter=0)
    task = attempts.task(PspDown("down"), max_retries=1, retry=policy, retry_strategy=Strategy(answer))

    # Then it is tried again all the same, its error is the handler's, and the log names task and strategy
    result = await ended(app, task.s())
    assert (attempts.starts, result.error.type) == ([0, 6], "PspDown")
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    (said,) = [error for error in errors if "retry_strategy" in error]
    assert said.startswith(f"task flaky: retry_strategy Strategy.next_delay(0, PspDown): {told}")
    assert said.endswith("; the delay of the policy is used; fix the strategy")


class Async:
    async def next_delay(self, attempt: int, error: BaseException) -> float:
        return 1


@pytest.mark.parametrize("wrong", [3, object(), Strategy, Async(), lambda attempt, error: 1])
def test_what_cannot_be_asked_is_refused_as_a_strategy(registry: TaskRegistry, wrong: Any) -> None:
    expected = "retry_strategy: expected an object with a plain method next_delay"
    with pytest.raises(OptionError, match=f"^task t: {expected}"):
        registry.task("t", retry_strategy=wrong)(lambda: None)
    with pytest.raises(OptionError, match=f"^registry: {expected}"):
        TaskRegistry(retry_strategy=wrong)


def test_a_copy_of_a_registry_has_its_strategy() -> None:
    strategy: RetryStrategy = Strategy(1)
    assert TaskRegistry(retry_strategy=strategy).copy().retry_strategy is strategy


# -- what is no failure


@pytest.mark.parametrize("grace_ms", [0, 60_000])
async def test_a_worker_that_goes_away_costs_its_tasks_no_attempt(
    open_app: OpenApp, registry: TaskRegistry, grace_ms: int
) -> None:
    # Given a task that may be tried once, at work when its worker is asked to go
    begun: list[int] = []

    @registry.task("slow", max_retries=0)
    async def slow(context: TaskContext) -> str:
        begun.append(context.attempt)
        await asyncio.sleep(30)
        return "done"

    app = await open_app()
    handle = await app.submit(slow.s())
    await asyncio.sleep(10)
    await app.hand_back(grace_ms)

    # Then it ends within the grace period, or another worker runs the same attempt
    if not grace_ms:
        assert ((await handle.root()).state, (await handle.root()).attempt) == ("ready", 0)
        await open_app()
    assert (await handle.wait()).value == "done"
    root = await handle.root()
    assert (begun, root.attempt, root.losses) == ([0] if grace_ms else [0, 0], 0, 0)


async def lose(app: Stemflow, run: str, times: int) -> None:
    """Workers lease a task of the run and die with it, one after the other."""
    for number in range(times):
        request = Request(f"dying {run}", number + 1)
        (lease,) = (await app.store.exchange(request, [], Want(owner="dying", limit=1, only_run=run))).leases
        await asyncio.sleep(lease.node.lease_ms / 1_000 + 1)
        for taken in await app.store.take_expired("sweeper", 100):
            app.decider.remember_lease(taken)
            await app.parts.committer.commit([Lost(taken.node.key, taken.node.delivery)])


async def test_a_lost_worker_is_counted_apart_from_the_failures_of_the_handler(
    open_app: OpenApp, attempts: Attempts
) -> None:
    # Given a task with two retries whose worker was lost four times
    producer = await open_app(worker=False)
    task = attempts.task(ValueError("1"), ValueError("2"), None, max_retries=2, retry=NO_DELAY)
    handle = await producer.submit(task.s())
    await lose(producer, handle.id, 4)
    assert ((await handle.root()).state, (await handle.root()).attempt) == ("ready", 0)

    # Then it still has all its attempts
    await open_app()
    result = await handle.wait()
    root = await handle.root()
    assert (result.status, len(attempts.starts), root.attempt, root.losses) == ("succeeded", 3, 2, 4)


@pytest.mark.parametrize("most", [1, 5])
async def test_a_task_that_kills_its_workers_is_poison_while_others_go_on(
    open_app: OpenApp, attempts: Attempts, most: int
) -> None:
    # Given a task that is lost with its worker as often as it may be, next to others
    producer = await open_app(worker=False)
    poison = await producer.submit(attempts.task(name="poison", max_retries=9, max_deliveries=most).s())
    fine = await producer.submit(Canvas.group([attempts.task(None, name="fine").s()] * 3))
    await lose(producer, poison.id, most)

    # Then it ends with a dead letter of its own kind, without an attempt, and the others with their results
    result = await poison.wait()
    assert (result.status, result.error and result.error.type) == ("failed", "Poison")
    (letter,) = await producer.store.dead_letters(poison.id)
    assert (letter.reason, (await poison.root()).attempt, attempts.starts) == ("poison", 0, [])
    await open_app()
    assert (await fine.wait()).value == ["done"] * 3


async def test_a_pause_longer_than_any_lease_is_kept_and_runs_once_however_many_workers_there_are(
    open_app: OpenApp, attempts: Attempts
) -> None:
    apps = [await open_app() for _ in range(4)]
    policy = RetryPolicy.of(backoff="fixed", initial="30s", jitter=0)
    task = attempts.task(ValueError("no"), None, max_retries=1, retry=policy, visibility_timeout="1s")
    result = await ended(apps[0], task.s())
    await asyncio.sleep(60)
    assert (result.value, attempts.starts) == ("done", [0, 30])


async def test_a_retry_in_thirty_days_outlives_the_workers(
    open_app: OpenApp, registry: TaskRegistry, clock: VirtualClock
) -> None:
    # Given a task that asks to be tried again in thirty days, whose worker then goes
    days: list[float] = []

    @registry.task("patient", max_retries=1)
    async def patient(context: TaskContext) -> str:
        days.append((clock.now_ms() - EPOCH_MS) / 86_400_000)
        if context.attempt == 0:
            await context.retry(countdown="30d")
        return "done"

    app = await open_app()
    handle = await app.submit(patient.s())
    await asyncio.sleep(1)
    await app.hand_back()

    # When another one comes shortly before that, then it waits for the hour
    pass_time(30 * 86_400 - 100)
    await open_app()
    assert (await handle.wait()).value == "done"
    assert days == [0, pytest.approx(30, abs=1e-4)]


async def test_what_goes_wrong_after_a_handler_has_succeeded_is_no_failure_and_no_second_run(
    app: Stemflow, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    lost: list[str] = []

    @registry.task("works", max_retries=5, retry=NO_DELAY)
    async def works(context: TaskContext) -> str:
        begun.append(context.attempt)
        return "done"

    # Given a store whose answer to the commit of the result is lost again and again, and listeners that raise
    exchange = app.store.exchange

    async def forgetful(request: Request, decisions: Sequence[Any], want: Want | None) -> Exchange:
        answer = await exchange(request, decisions, want)
        if begun and decisions and len(lost) < 3:
            lost.append(request.channel)
            raise StoreUnavailable("the answer was lost")
        return answer

    monkeypatch.setattr(app.store, "exchange", forgetful)

    @registry.signals.postrun.connect
    @registry.signals.succeeded.connect
    def trouble(event: Any) -> None:
        raise RuntimeError("a listener of this test")

    # Then the task has succeeded in its one attempt
    assert (await ended(app, works.s())).value == "done"
    await asyncio.sleep(10)
    assert (begun, len(lost)) == ([0], 3)


# -- errors that bite


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __repr__(self) -> str:
        raise RuntimeError("no text either")

    def __reduce__(self) -> Any:
        raise RuntimeError("no copy either")


class Spiteful(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


def _cyclic() -> Exception:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def _deep() -> Exception:
    error = ValueError("deep")
    for _ in range(3_000):
        group = ExceptionGroup("in", [error])
        error = group  # type: ignore[assignment]
    return error


def _named(length: int) -> Exception:
    kind = type("N" * length, (type("B" * length, (ValueError,), {}),), {})
    return kind("x")  # type: ignore[no-any-return]


BITING: dict[str, tuple[Callable[[], BaseException], str]] = {
    "raises in __str__, __repr__ and __reduce__": (Mute, "<its text cannot be shown: RuntimeError in __str__>"),
    "raises KeyboardInterrupt in __str__": (Spiteful, "<its text cannot be shown: KeyboardInterrupt in __str__>"),
    "10 MB": (lambda: ValueError("x" * 10_000_000), "xxx"),
    "its own cause": (_cyclic, "one"),
    "3,000 groups in one another": (_deep, "in (1 sub-exception)"),
    "a name of 1 MB": (lambda: _named(1_000_000), "x"),
    "half of a surrogate pair": (lambda: ValueError("a\ud800b"), "a?b"),
}


@pytest.mark.parametrize("kind", BITING)
@pytest.mark.parametrize("filtered", [False, True])
async def test_an_error_is_described_in_bounds_whatever_it_is(
    app: Stemflow, attempts: Attempts, kind: str, filtered: bool
) -> None:
    make, message = BITING[kind]
    policy = RetryPolicy.of(initial=0, never_retry_on=(KeyError,) if filtered else ())
    result = await ended(app, attempts.task(make(), max_retries=1, retry=policy).s())
    assert (result.status, len(attempts.starts)) == ("failed", 2)
    assert result.error.message.startswith(message)
    assert len(result.error.message) <= 4_096
    assert len(result.error.traceback) <= 8_192
    assert max(map(len, (result.error.type, result.error.qualname, *result.error.mro))) <= 500


async def test_fixed_delays_are_longer_than_the_cap_of_growing_ones(app: Stemflow, registry: TaskRegistry) -> None:
    begun = []

    @registry.task("late", max_retries=1, retry=RetryPolicy.of(backoff="fixed", initial="10m", jitter=0))
    async def late() -> None:
        begun.append(app.store.now_ms())
        raise OSError

    await (await app.submit(late.s())).wait()
    assert 600_000 <= begun[1] - begun[0] < 601_000


async def test_a_retry_that_waited_for_a_worker_beyond_the_budget_does_not_begin(
    open_app: Any, registry: TaskRegistry
) -> None:
    # Given a worker with one slot, and a task whose retry is due while another task takes the slot
    begun = []

    @registry.task("flaky", max_retries=3, retry=RetryPolicy.of(backoff="fixed", initial="1s", jitter=0, budget="10s"))
    async def flaky() -> None:
        begun.append(app.store.now_ms())
        raise OSError(f"try {len(begun)}")

    @registry.task("blocks")
    async def blocks() -> None:
        await asyncio.sleep(20)

    app = await open_app(registry, concurrency=1)
    handle = await app.submit(flaky.s())
    await asyncio.sleep(0.5)
    # When
    await app.run(blocks.s())
    # Then it fails with its last error, without another attempt
    result = await handle.wait()
    assert len(begun) == 1
    assert result.error is not None and result.error.type == "OSError"
    assert result.error.message == "try 1; not tried again, its retry budget of 10000 ms has passed"
    (letter,) = await app.store.dead_letters(handle.id)
    assert letter.reason == "max-retries-exhausted"
