"""Conditions of retries of handlers that run in processes of their own."""

from __future__ import annotations

import pytest

from stemflow import Processes, RetryPolicy, Stemflow
from tests.runtime import process_tasks as tasks


@pytest.mark.parametrize(
    ("when", "attempts"), [("args.how == 'ValueError' and attempt < 1 and elapsed < 60", 2), ("elapsed > 60", 1)]
)
async def test_a_condition_is_evaluated_in_the_process_with_what_is_known_of_the_call(when: str, attempts: int) -> None:
    policy = RetryPolicy.of(when=when, initial=0.001, jitter=0)
    async with Stemflow("memory:", tasks.registry, processes=Processes(size=1)) as app:
        handle = await app.submit(tasks.raises.with_options(retry=policy, max_retries=3).s("ValueError"))
        assert (await handle.wait(60)).status == "failed"
        assert (await handle.records())[0].attempt == attempts - 1
