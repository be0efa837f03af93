"""Whose option counts: call or step > the workflow's defaults > handler > app, for every option there is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from stemflow import Canvas, RetryPolicy, Stemflow, TaskDefinition, TaskOptions, TaskRegistry
from stemflow.model.policy import OPTION_NAMES, Options, normalise
from stemflow.model.signature import TaskSig
from stemflow.model.workflow import Workflow

LAYERS = ("app", "handler", "defaults", "step")
"""The weakest first. A call in code and a step of a file are one layer: a signature has options once."""

VALUES: dict[str, tuple[Any, Any]] = {
    "queue": ("default", "slow"),
    "priority": (0, 5),
    "max_retries": (0, 3),
    "retry": (RetryPolicy(), RetryPolicy.of(initial="5s")),
    "soft_time_limit": (None, "5s"),
    "hard_time_limit": (None, "7s"),
    "soft_raises": (False, True),
    "rate_limit": (None, "5/s"),
    "group_rate_limit": (None, "5/s"),
    "group_rate_key": (None, "shop"),
    "group_rate_key_header": ("tenant", "region"),
    "group_rate_limiter_failure_mode": ("open", "closed"),
    "unique": (False, True),
    "unique_mode": ("return_existing", "reject"),
    "unique_for": (None, "1h"),
    "unique_by": ("args.a", "args.b"),
    "cache": (None, "1h"),
    "concurrency": (None, 3),
    "visibility_timeout": ("30s", "10s"),
    "expires": (None, "1m"),
    "ignore_result": (False, True),
    "result_ttl": ("1d", "1h"),
    "isolation": ("auto", "async"),
    "acks_late": (True, False),
    "max_deliveries": (5, 2),
    "args_encoder": ("json", "gzip"),
    "result_encoder": ("json", "gzip"),
}
"""Two values of each option, the first as if nothing had been given, where there is such a one."""


async def nothing() -> None: ...


def field(name: str, value: Any) -> dict[str, Any]:
    return normalise({name: value}, name)


def shown(options: Options, name: str, value: Any) -> dict[str, Any]:
    return {key: getattr(options, key) for key in field(name, value)}


def test_the_table_has_every_option() -> None:
    assert set(VALUES) == OPTION_NAMES


@pytest.mark.parametrize("name", VALUES)
def test_the_strongest_layer_that_gives_an_option_wins(name: str) -> None:
    # Given an option that some layers give, the strongest of them another value than the rest, defaults included
    for count in range(1, len(LAYERS) + 1):
        for givers, (weak, strong) in itertools.product(
            itertools.combinations(LAYERS, count), (VALUES[name], VALUES[name][::-1])
        ):
            given = {layer: {name: strong if layer == givers[-1] else weak} for layer in givers}
            registry = TaskRegistry(**given.get("app", {}))
            registry.task("t", **given.get("handler", {}))(nothing)
            sig: TaskSig[Any, Any] = TaskSig(task="t", options=given.get("step", {}))

            # Then the strongest counts, though it may be what nobody would have had to say
            options = registry.options_of(sig, normalise(given.get("defaults", {}), "defaults"))
            assert shown(options, name, strong) == field(name, strong), givers


@pytest.mark.parametrize("name", VALUES)
async def test_what_counts_is_frozen_in_the_plan_of_the_run(app: Stemflow, registry: TaskRegistry, name: str) -> None:
    # Given a handler with one value, and a workflow whose defaults or step have the other
    weak, strong = VALUES[name]
    task = registry.task("t", **{name: weak})(nothing)
    by_defaults = Workflow(name="w", body=TaskSig[Any, Any](task="t", bind={}), task_defaults={name: strong})
    by_step = Workflow(name="w", body=TaskSig[Any, Any](task="t", bind={}, options={name: strong}))
    by_call = task.with_options(**{name: strong}).si() | task.si()
    by_builder = Canvas.chain(TaskDefinition[None, None]("t", options=TaskOptions(**{name: strong})).call(None))

    # When they are submitted; then the other value is in the plan
    for asked in (by_defaults, by_step, by_call, by_builder):
        handle = await app.submit(asked)  # type: ignore[call-overload]
        plan = await app.store.plan((await handle.root()).plan)
        assert plan is not None
        (leaf, *_) = (node for node in plan.nodes if hasattr(node, "task"))
        options = plan.options[leaf.options]
        assert shown(options, name, strong) == field(name, strong)


def test_an_option_given_twice_at_the_call_is_the_last_one(registry: TaskRegistry) -> None:
    task = registry.task("t", priority=1)(nothing)
    twice = task.with_options(priority=2).with_options(priority=0).si()
    assert registry.options_of(twice).priority == 0  # type: ignore[arg-type]
    call = TaskDefinition[None, None]("t", options=TaskOptions(priority=3)).call(None)
    assert registry.options_of(call).priority == 3
    assert registry.options_of(call.priority(4).priority(0)).priority == 0
