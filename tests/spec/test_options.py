"""Options of tasks: each has a test that fails when nobody reads it; so have policies of retries and the context.

The tables name those tests. Those without a test elsewhere have one in this file.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stemflow import (
    Canvas,
    OptionError,
    RetryPolicy,
    Stemflow,
    SyncTaskContext,
    TaskContext,
    TaskOptions,
    TaskRegistry,
    UnitError,
)
from stemflow.model.policy import OPTION_NAMES
from stemflow.testing.simulation.virtual_loop import EPOCH_MS, VirtualClock
from tests.spec.conftest import OpenApp
from tests.spec.test_retries import lose

ROOT = Path(__file__).parents[2]

SPEC = "tests/spec/"
HERE = "tests/spec/test_options.py::"
RETRIES = SPEC + "test_retries.py::"
LIMITS = SPEC + "test_time_limits.py::"
UNIQUE = SPEC + "test_uniqueness.py::"
RATES = SPEC + "test_rate_limits.py::"
CONTEXT = SPEC + "test_context.py::"
LINEAGE = SPEC + "test_lineage.py::"

OPTIONS = {
    "queue": SPEC + "test_queues.py::test_a_worker_leaves_other_queues_alone",
    "priority": "tests/cases/test_chains.py::test_a_task_of_higher_priority_is_leased_first",
    "max_retries": RETRIES + "test_a_task_is_tried_once_and_as_often_again_as_its_options_say",
    "retry": RETRIES + "test_a_policy_says_how_the_pauses_grow",
    "soft_time_limit": LIMITS + "test_a_soft_limit_that_raises_does_so_once_where_the_handler_awaits",
    "hard_time_limit": LIMITS + "test_an_async_handler_is_cancelled_at_its_hard_limit_and_awaited",
    "soft_raises": LIMITS + "test_a_soft_limit_that_raises_does_so_once_where_the_handler_awaits",
    "rate_limit": RATES + "test_a_limit_can_be_written_in_several_ways",
    "group_rate_limit": RATES + "test_a_group_shares_one_bucket_among_many_tasks_by_the_tenant",
    "group_rate_key": RATES + "test_a_group_may_have_another_header_or_a_key",
    "group_rate_key_header": RATES + "test_a_group_may_have_another_header_or_a_key",
    "group_rate_limiter_failure_mode": RATES + "test_a_limiter_that_fails_is_open_or_closed_as_the_task_says",
    "cache": SPEC + "test_cache.py::test_equal_calls_of_other_runs_get_the_result_until_it_has_expired",
    "unique": UNIQUE + "test_without_a_key_of_its_own_a_call_is_known_by_task_queue_and_arguments",
    "unique_mode": UNIQUE + "test_reject_raises_with_the_run_that_holds_the_key",
    "unique_for": UNIQUE + "test_within_its_window_a_call_gets_the_result_of_the_one_that_has_ended",
    "unique_by": UNIQUE + "test_a_key_over_the_arguments_reads_them_by_name_however_they_were_given",
    "concurrency": SPEC + "test_concurrency.py::test_a_limit_alone_counts_the_calls_of_the_task",
    "visibility_timeout": HERE + "test_a_task_is_given_to_another_when_its_lease_has_run_out",
    "expires": HERE + "test_a_task_is_not_started_after_it_has_expired",
    "ignore_result": SPEC + "test_retention.py::test_a_task_alone_whose_result_is_ignored_keeps_none",
    "result_ttl": SPEC + "test_retention.py::test_a_run_goes_when_its_result_is_past_its_time",
    "isolation": "tests/runtime/test_processes.py::test_where_a_handler_runs_is_what_its_isolation_says",
    "acks_late": HERE + "test_a_task_that_may_run_at_most_once_fails_when_its_worker_is_lost",
    "max_deliveries": RETRIES + "test_a_task_that_kills_its_workers_is_poison_while_others_go_on",
    "args_encoder": SPEC + "test_encoders.py::test_a_task_may_name_its_own_encoders",
    "result_encoder": SPEC + "test_encoders.py::test_a_task_may_name_its_own_encoders",
}

POLICY = {
    "backoff": RETRIES + "test_a_policy_says_how_the_pauses_grow",
    "initial": RETRIES + "test_a_policy_says_how_the_pauses_grow",
    "factor": RETRIES + "test_a_policy_says_how_the_pauses_grow",
    "max": RETRIES + "test_a_policy_says_how_the_pauses_grow",
    "jitter": RETRIES + "test_jitter_takes_off_a_share_that_differs_from_task_to_task",
    "max_retries": RETRIES + "test_a_policy_that_a_handler_asks_for_brings_its_own_retries",
    "retry_on": RETRIES + "test_errors_are_filtered_by_class_and_those_derived_from_it",
    "never_retry_on": RETRIES + "test_errors_are_filtered_by_class_and_those_derived_from_it",
    "when": RETRIES + "test_an_expression_over_the_error_says_whether_it_is_tried_again",
    "budget": RETRIES + "test_retries_end_with_the_budget_of_time",
}

MEMBERS = {
    "run": SPEC + "test_waiting_handlers.py::test_a_handler_that_waits_for_a_run_gives_its_slot_back",
    "cancel_run": SPEC + "test_waiting_handlers.py::test_a_context_cancels_another_run",
    "state": SPEC + "test_lifespan.py::test_a_class_and_a_copied_registry",
    "id": CONTEXT + "test_the_id_is_the_same_over_all_attempts",
    "run_id": CONTEXT + "test_the_context_of_a_handler_describes_its_task",
    "node": CONTEXT + "test_the_context_of_a_handler_describes_its_task",
    "name": CONTEXT + "test_the_context_of_a_handler_describes_its_task",
    "queue": CONTEXT + "test_the_context_of_a_handler_describes_its_task",
    "args": CONTEXT + "test_the_context_of_a_handler_describes_its_task",
    "kwargs": CONTEXT + "test_the_context_of_a_handler_describes_its_task",
    "attempt": CONTEXT + "test_the_id_is_the_same_over_all_attempts",
    "max_retries": CONTEXT + "test_the_id_is_the_same_over_all_attempts",
    "delivery": HERE + "test_a_handler_can_read_its_delivery_and_whether_a_fan_in_can_be_joined",
    "in_fan_in": HERE + "test_a_handler_can_read_its_delivery_and_whether_a_fan_in_can_be_joined",
    "headers": LINEAGE + "test_headers_travel_to_the_worker_of_another_process",
    "meta": LINEAGE + "test_a_tasks_own_headers_are_put_over_those_of_its_run",
    "labels": SPEC + "test_step_settings.py::test_labels_reach_the_handler_and_find_the_run",
    "env": SPEC + "test_step_settings.py::test_what_is_said_of_a_task_goes_before_what_is_said_of_a_prefix_and_of_all",
    "parent_id": LINEAGE + "test_the_parent_is_the_step_before_or_the_task_that_started_the_run",
    "root_id": LINEAGE + "test_the_parent_is_the_step_before_or_the_task_that_started_the_run",
    "enqueued_at": CONTEXT + "test_instants_are_aware_and_of_the_stores_clock",
    "enqueued_at_ms": CONTEXT + "test_instants_are_aware_and_of_the_stores_clock",
    "deadline": CONTEXT + "test_instants_are_aware_and_of_the_stores_clock",
    "deadline_ms": CONTEXT + "test_instants_are_aware_and_of_the_stores_clock",
    "logger": CONTEXT + "test_what_a_handler_logs_carries_its_id_and_attempt",
    "cancelled": CONTEXT + "test_the_event_cancelled_is_set_before_the_handler_is_cancelled",
    "soft_timeout": CONTEXT + "test_the_event_soft_timeout_is_set_when_the_soft_limit_has_passed",
    "heartbeat": CONTEXT + "test_a_heartbeat_renews_the_lease",
    "extend_lease": CONTEXT + "test_an_extended_lease_is_not_shortened_by_renewals",
    "progress": CONTEXT + "test_the_progress_of_a_task_is_forgotten_after_an_hour",
    "enqueue": LINEAGE + "test_a_later_attempt_finds_the_run_that_an_earlier_one_has_started",
    "spawn": HERE + "test_to_spawn_is_to_enqueue",
    "add_to_group": CONTEXT + "test_a_fan_in_waits_for_what_its_members_add_and_keeps_the_order",
    "retry": CONTEXT + "test_a_handler_says_when_and_how_often_it_is_tried_again",
    "replace": CONTEXT + "test_a_task_puts_a_sub_graph_in_its_place",
}
OF_THE_WORKER = {"added", "hidden"}
"""What the worker keeps in a context for itself."""

TABLES = {"option": OPTIONS, "policy": POLICY, "context": MEMBERS}
NAMED = [(f"{kind}.{name}", test) for kind, table in TABLES.items() for name, test in table.items()]


# -- the tables


def test_the_tables_have_every_option_policy_and_member() -> None:
    assert set(OPTIONS) == OPTION_NAMES == set(TaskOptions.__struct_fields__)
    assert set(POLICY) == set(inspect.signature(RetryPolicy.of).parameters)
    for context in (TaskContext, SyncTaskContext):
        public = {name for name in dir(context) if not name.startswith("_")} - {"ask"}
        assert public - OF_THE_WORKER == set(MEMBERS)


def pytest_told(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_every_test_that_a_table_names_is_there_and_collected() -> None:
    files = sorted({test.partition("::")[0] for _, test in NAMED})
    collected = {line.partition("[")[0] for line in pytest_told("--collect-only", *files).stdout.splitlines()}
    assert [test for _, test in NAMED if test not in collected] == []


@pytest.mark.long
@pytest.mark.parametrize(("what", "test"), NAMED)
def test_each_named_test_fails_when_what_it_is_about_is_taken_away(what: str, test: str) -> None:
    told = pytest_told("-x", "-p", "tests.spec.blind", test, STEMFLOW_BLIND=what)
    assert told.returncode == 1, told.stdout[-2_000:]


def table_of(page: str, heading: str) -> Iterable[str]:
    """The names that the first column of a page's table gives below a heading."""
    text = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_page_has_every_option_and_setting_of_retries() -> None:
    assert sorted(table_of("docs/tasks/options.md", "Every option")) == sorted(OPTION_NAMES)
    assert sorted(table_of("docs/tasks/retries.md", "The policy")) == sorted(POLICY)


# -- what is tested nowhere else


async def test_a_task_is_given_to_another_when_its_lease_has_run_out(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given a task with a lease of five seconds whose worker is gone
    @registry.task("short", visibility_timeout="5s")
    async def short() -> None: ...

    producer = await open_app(worker=False)
    handle = await producer.submit(short.s())
    assert (await handle.root()).lease_ms == 5_000
    await lose(producer, handle.id, 1)

    # Then it is ready again as soon as they have passed
    root = await handle.root()
    assert (root.state, root.losses) == ("ready", 1)
    assert producer.store.now_ms() - EPOCH_MS == 6_000


@pytest.mark.parametrize("timeout", [0, "99ms"])
def test_a_lease_that_could_never_be_renewed_in_time_is_refused(timeout: Any) -> None:
    with pytest.raises(OptionError, match="visibility_timeout: expected at least 100ms, got "):
        TaskOptions(visibility_timeout=timeout)


async def test_a_task_is_not_started_after_it_has_expired(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given two tasks that expire after a minute, one on a queue that nobody serves, and one that takes three
    begun: list[str] = []

    @registry.task("urgent", expires="1m")
    async def urgent(name: str) -> str:
        begun.append(name)
        await asyncio.sleep(180)
        return name

    app = await open_app(queues=("default",))
    waits = await app.submit(urgent.with_options(queue="nobody's").s("waits"))
    works = await app.submit(urgent.s("works"))

    # Then the one that has not started fails when its time has passed, and the other goes on
    assert (await waits.wait(timeout=59)).timed_out
    result = await waits.wait(timeout=2)
    assert result.error is not None
    assert (result.status, result.error.type, begun) == ("failed", "Expired", ["works"])
    assert [letter.reason for letter in await app.store.dead_letters(waits.id)] == ["expired"]
    assert (await works.wait()).value == "works"


async def test_a_task_that_may_run_at_most_once_fails_when_its_worker_is_lost(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given two tasks whose worker was lost, one of which may run at most once
    begun: list[str] = []

    @registry.task("charge", max_retries=5)
    async def charge(name: str) -> None:
        begun.append(name)

    producer = await open_app(worker=False)
    again = await producer.submit(charge.s("again"))
    once = await producer.submit(charge.with_options(acks_late=False).s("once"))
    for handle in (again, once):
        await lose(producer, handle.id, 1)
    await open_app()

    # Then that one has failed and is not started again
    assert (await again.wait()).status == "succeeded"
    result = await once.wait()
    assert result.error is not None and (result.status, result.error.type) == ("failed", "Lost")
    assert [letter.reason for letter in await producer.store.dead_letters(once.id)] == ["lost"]
    assert begun == ["again"]


async def test_a_handler_can_read_its_delivery_and_whether_a_fan_in_can_be_joined(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given a task alone, whose worker was lost, and one in a group
    told: dict[str, tuple[int, bool]] = {}

    @registry.task("tells")
    async def tells(context: TaskContext) -> None:
        told[context.node] = (context.delivery, context.in_fan_in)

    producer = await open_app(worker=False)
    handles = [await producer.submit(what) for what in (tells.s(), Canvas.group(tells.s()))]
    await lose(producer, handles[0].id, 1)
    await open_app()
    for handle in handles:
        await handle.wait()

    # Then its number has grown with each lease and each loss, as the store counts them
    assert told == {"": (3, False), "[0]": (1, True)}


async def test_to_spawn_is_to_enqueue(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("child")
    async def child(context: TaskContext) -> str | None:
        return context.parent_id

    @registry.task("parent")
    async def parent(context: TaskContext) -> str:
        return await context.spawn(child.s())

    handle = await app.submit(parent.s())
    run = (await handle.wait()).value
    assert run is not None
    assert (await (await app.handle(run)).wait()).value == handle.id


@pytest.mark.parametrize("way", [{"countdown": "30s"}, {"countdown": 30}, {"eta": EPOCH_MS / 1_000 + 30}])
async def test_a_call_by_name_may_start_later(
    app: Stemflow, registry: TaskRegistry, clock: VirtualClock, way: dict[str, Any]
) -> None:
    started: list[int] = []

    @registry.task("late")
    async def late() -> None:
        started.append(clock.now_ms() - EPOCH_MS)

    await app.run(Canvas.task("late").with_options(**way, priority=3))
    assert 30_000 <= started[0] < 31_000
    for wrong, message in (
        (lambda: Canvas.chain(late.s()).with_options(**way), "got a composite"),
        (lambda: late.s().with_options(countdown="soon"), "with_options: countdown"),
        (lambda: late.s().with_options(eta=-1), "with_options: eta"),
    ):
        with pytest.raises((OptionError, UnitError), match=message):
            wrong()
