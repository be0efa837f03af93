"""`TaskOptions`: the options of a task as users write them. An option that was not given is unset, so a given 0
counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from stemflow.model.policy import Concurrency, FailureMode, Isolation, RetryPolicy, UniqueMode, normalise
from stemflow.model.rates import RateLimit
from stemflow.units import Duration

OneRateLimit = str | RateLimit | Mapping[str, Any]
RateLimits = OneRateLimit | Sequence[OneRateLimit]


class TaskOptions(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Options of a task, for options that are reused or computed.

    Durations are numbers of seconds, or texts such as `"1m30s"`. The page *Options* of the documentation describes each
    option. Raises OptionError for a wrong value.

    `queue`: name of the queue. `priority`: 0 to 9, higher first. `max_retries`: attempts after the first. `retry`:
    the policy, or several for different errors. `soft_time_limit`, `hard_time_limit`: durations of an attempt;
    `soft_raises`: raise in the handler at the soft one. `rate_limit`: `"10/s"`, a RateLimit, or several;
    `group_rate_limit`: the same, shared by all tasks with the same `group_rate_key`, or header
    `group_rate_key_header`; `group_rate_limiter_failure_mode`: `open` or `closed`, when a plugged-in limiter fails.
    `unique`: no second run of an equal call; `unique_mode`: what happens to it; `unique_for`: also for this long
    after the start; `unique_by`: the key, an expression over or a function of the arguments. `cache`: how long
    equal calls get the same result (a duration, or `{"ttl": ..., "key": ...}`). `concurrency`: how many run at once
    under one key. `visibility_timeout`: duration of a lease. `expires`: latest start after the creation.
    `ignore_result`: store no result; `result_ttl`: how long it is kept after the run. `isolation`: `auto`, `async`,
    `thread` or `process`. `acks_late`: False: a lost lease fails the task instead of starting it again.
    `max_deliveries`: lost leases until it is a dead letter.
    `args_encoder`, `result_encoder`: ids of encoders.

        slow = TaskOptions(queue="slow", max_retries=5, hard_time_limit="10m")

        @registry.task("report", options=slow, priority=2)
        async def report(month: str) -> str: ...
    """

    queue: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    max_retries: int | UnsetType = UNSET
    retry: RetryPolicy | Sequence[RetryPolicy] | UnsetType = UNSET
    soft_time_limit: Duration | UnsetType | None = UNSET
    hard_time_limit: Duration | UnsetType | None = UNSET
    soft_raises: bool | UnsetType = UNSET
    rate_limit: RateLimits | UnsetType | None = UNSET
    group_rate_limit: RateLimits | UnsetType | None = UNSET
    group_rate_key: str | UnsetType | None = UNSET
    group_rate_key_header: str | UnsetType = UNSET
    group_rate_limiter_failure_mode: FailureMode | UnsetType = UNSET
    unique: bool | UnsetType = UNSET
    unique_mode: UniqueMode | UnsetType = UNSET
    unique_for: Duration | UnsetType | None = UNSET
    unique_by: str | Callable[[Mapping[str, Any]], Any] | UnsetType | None = UNSET
    cache: Duration | Mapping[str, Any] | bool | UnsetType | None = UNSET
    concurrency: Concurrency | Mapping[str, Any] | int | UnsetType | None = UNSET
    visibility_timeout: Duration | UnsetType = UNSET
    expires: Duration | UnsetType | None = UNSET
    ignore_result: bool | UnsetType = UNSET
    result_ttl: Duration | UnsetType = UNSET
    isolation: Isolation | UnsetType = UNSET
    acks_late: bool | UnsetType = UNSET
    max_deliveries: int | UnsetType = UNSET
    args_encoder: str | UnsetType | None = UNSET
    result_encoder: str | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        normalise(self.given(), "TaskOptions")

    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {
            name: value for name in self.__struct_fields__ if not isinstance(value := getattr(self, name), UnsetType)
        }


def given_options(options: TaskOptions | None, keywords: dict[str, Any]) -> dict[str, Any]:
    """Merge options given as a whole with options given as keywords, which take precedence."""
    return keywords if options is None else {**options.given(), **keywords}
