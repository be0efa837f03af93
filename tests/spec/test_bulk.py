"""One action on many: a frozen selection, at a chosen pace; after a crash it goes on, and does nothing twice."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from stemflow import OptionError, SigningKeys, Stemflow, TaskRegistry
from stemflow.runtime.client.bulk import BulkOptions, BulkResult
from stemflow.runtime.client.run_list import RunQuery, all_runs
from tests.spec.conftest import OpenApp


class Crash(Exception):
    """The process ends here."""


@pytest.fixture
def fail(registry: TaskRegistry) -> list[int]:
    """Registers `charge`, which fails while the list is empty, and `nap`."""
    fixed: list[int] = []

    @registry.task("charge", max_retries=0)
    async def charge(n: int) -> int:
        if not fixed:
            raise ValueError("closed")
        return n

    @registry.task("nap")
    async def nap() -> None:
        await asyncio.sleep(3_600)

    return fixed


async def failed_runs(app: Stemflow, count: int) -> list[str]:
    charge = app.registry.get("charge")
    assert charge is not None
    handles = await app.submit_many(charge.s(n) for n in range(count))
    for handle in handles:
        assert (await handle.wait()).status == "failed"
    return [handle.id for handle in handles]


async def states(app: Stemflow) -> list[str]:
    return sorted(one.info.root.state for one in await all_runs(app.store, RunQuery(), 1_000))


@pytest.mark.parametrize("action", ["rerun", "replay"])
async def test_a_crash_in_the_middle_neither_repeats_nor_leaves_out(
    app: Stemflow, open_app: OpenApp, fail: list[int], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given seven failed runs that are frozen, and two that fail afterwards
    chosen = await failed_runs(app, 7)
    letters = await app.dead_letters()
    options = BulkOptions(allow_unknown=True)
    targets = chosen if action == "rerun" else letters
    bulk = await app.control.bulk.freeze(action, targets, options, by="ann", reason="fixed")  # type: ignore[arg-type]
    later = await failed_runs(app, 2)
    fail.append(1)

    # When the process dies after the third, before its progress is stored
    seen: list[BulkResult] = []

    def third(one: BulkResult) -> None:
        seen.append(one)
        if len(seen) == 3:
            monkeypatch.setattr(app.control.bulk, "_put", lambda *_: asyncio.sleep(0))
            raise Crash

    with pytest.raises(Crash):
        await app.control.bulk.carry_out(bulk.id, on_result=third)

    # Then another one goes on: each of the seven was taken up by one run, which succeeded, and the two were left alone
    other = await open_app(worker=False)
    rest: list[BulkResult] = []
    ended = await other.control.bulk.carry_out(bulk.id[:8], on_result=rest.append)
    assert (ended.done, ended.refused, ended.total) == (7, 0, 7)
    assert [one.before for one in rest] == [True] * 3 + [False] * 4
    for one in rest:
        assert one.run_id is not None
        assert (await (await app.handle(one.run_id)).wait()).status == "succeeded"
    assert await states(app) == ["failed"] * 9 + ["succeeded"] * 7
    assert {one.run for one in await app.dead_letters()} == set(later)

    # And what is done goes on with nothing, and was accounted for
    assert await other.control.bulk.carry_out(bulk.id, on_result=rest.append) == ended
    assert len(rest) == 7
    (action_done,) = await app.control.audit()
    assert (action_done.action, action_done.target, action_done.by) == ("bulk", f"bulk:{bulk.id}", "ann")
    assert (action_done.details["action"], action_done.details["total"]) == (action, 7)


async def test_a_pace_is_kept(app: Stemflow, fail: list[int]) -> None:
    nap = app.registry.get("nap")
    assert nap is not None
    handles = await app.submit_many(nap.s() for _ in range(11))
    bulk = await app.control.bulk.freeze("cancel", [handle.id for handle in handles])
    loop = asyncio.get_running_loop()
    at: list[float] = []
    await app.control.bulk.carry_out(bulk.id, per_second=5, on_result=lambda _: at.append(loop.time()))
    assert all(later - sooner >= 0.2 - 1e-6 for sooner, later in itertools.pairwise(at))
    assert [(await handle.wait()).status for handle in handles] == ["cancelled"] * 11
    assert (await app.control.bulk.list())[0].done == 11


async def test_what_cannot_be_done_is_refused_and_the_rest_is_done(app: Stemflow, fail: list[int]) -> None:
    (failed,) = await failed_runs(app, 1)
    nap = app.registry.get("nap")
    assert nap is not None
    running = await app.submit(nap.s())
    results: list[BulkResult] = []
    bulk = await app.control.bulk.freeze("rerun", ["gone", running.id, failed])
    ended = await app.control.bulk.carry_out(bulk.id, on_result=results.append)
    assert (ended.done, ended.refused) == (3, 2)
    assert "gone" in str(results[0].refused) and "expected run" in str(results[1].refused)
    assert results[2].refused is None
    with pytest.raises(OptionError, match="`stemflow bulk list` lists them"):
        await app.control.bulk.get("nothing")
    await running.cancel(force=True)


async def test_letters_that_come_later_are_not_purged(app: Stemflow, fail: list[int]) -> None:
    await failed_runs(app, 3)
    bulk = await app.control.bulk.freeze("purge", await app.dead_letters())
    later = await failed_runs(app, 2)
    assert (await app.control.bulk.carry_out(bulk.id)).done == 3
    assert {one.run for one in await app.dead_letters()} == set(later)


async def test_a_selection_without_a_valid_signature_is_not_carried_out(
    url: str, open_app: OpenApp, registry: TaskRegistry, fail: list[int]
) -> None:
    stranger = await open_app(worker=False)
    bulk = await stranger.control.bulk.freeze("cancel", ["run"])
    keys = SigningKeys({"k": b"0123456789abcdef"}, active="k")
    owner = await open_app(worker=False, signing=keys)
    assert await owner.control.bulk.list() == []
    with pytest.raises(OptionError, match="found none"):
        await owner.control.bulk.carry_out(bulk.id)
