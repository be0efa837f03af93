"""A step of the machine's clock neither turns the store's time back nor stops it."""

from pathlib import Path

import pytest

from stemflow.model.effects import RunEnd
from stemflow.store.open import open_store
from stemflow.testing.contract.world import RUN, ManualClock, User, change, leaf, paths

HOUR_MS = 3_600_000


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/s.db"])
async def test_a_clock_that_is_put_back_delays_nothing(url: str, tmp_path: Path) -> None:
    clock = ManualClock()
    store = open_store(url.format(tmp_path), clock)
    await store.open()
    user = User(store, "one")
    # Given a leaf that may start in a second
    before = store.now_ms()
    await user.begin(leaf("a", at_ms=before + 1_000))
    # When the machine's clock is put back by an hour, and a second passes
    clock.step_ms = -HOUR_MS
    assert store.now_ms() == before
    clock.advance(1_000)
    # Then it starts
    assert paths(await user.lease()) == ["a"]
    # And a step forward is followed
    clock.step_ms = HOUR_MS
    assert store.now_ms() == before + 1_000 + HOUR_MS
    await store.close()


async def test_another_process_goes_on_from_the_last_end_that_is_stored(tmp_path: Path) -> None:
    clock, url = ManualClock(), f"sqlite:{tmp_path / 's.db'}"
    store = open_store(url, clock)
    await store.open()
    user = User(store, "one")
    await user.begin()
    root = await user.node("")
    await user.commit(change(root, state="succeeded"), ended=(RunEnd(RUN, 1_000),))
    before = store.now_ms()
    await store.close()
    # When the machine's clock was put back before another process opens the file
    clock.step_ms = -HOUR_MS
    other = open_store(url, clock)
    await other.open()
    # Then its time does not lie before what is stored
    assert other.now_ms() >= before
    await other.close()
