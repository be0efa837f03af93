"""`stemflow prune`: expired records are counted, and deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from stemflow import Stemflow, TaskRegistry
from stemflow.model.effects import DeadLetter, Decision
from stemflow.store.base import Request
from tests.cli.test_run import follows_schema
from tests.cli.world import Cli


async def _old_letter(store: str) -> None:
    async with Stemflow(store, TaskRegistry(), worker=False) as app:
        letter = DeadLetter("old", "a", "t", "poison", app.store.now_ms(), keep_ms=0)
        await app.store.exchange(Request("test", 1), [Decision(dead=(letter,))], None)


def test_what_is_past_its_time_is_deleted_and_a_dry_run_only_counts(project: Path, cli: Cli) -> None:
    asyncio.run(_old_letter("sqlite:"))
    counted = {"runs": 0, "dead_letters": 1, "others": 0}
    for _ in range(2):
        dry = follows_schema("prune", cli("prune", "--dry-run", "--json").out)
        assert dry == {"dry_run": True, **counted, "records": 0}
    assert "dead letters 1, claims and memos 0; records deleted: 1" in cli("prune").out
    assert follows_schema("prune", cli("prune", "--json").out)["dead_letters"] == 0
