"""Promises about notes: hints that live for a time and decide nothing."""

from __future__ import annotations

import asyncio

from stemflow.testing.contract.world import Promises

_PATIENCE_S = 10
_TOPIC = "run:r"


class HintPromises(Promises):
    """Every instance sees the latest hint of each name, until it expires."""

    async def test_a_note_is_found_under_its_topic_and_name_by_every_user(self) -> None:
        async with self.world() as w:
            await w.one.store.put_hint(_TOPIC, "a", b"1", 1_000)
            await w.two.store.put_hint(_TOPIC, "b", b"2", 1_000)
            await w.two.store.put_hint("workers", "a", b"3", 1_000)
            for user in (w.one, w.two):
                assert await user.store.hints(_TOPIC) == {"a": b"1", "b": b"2"}
                assert await user.store.hints("workers") == {"a": b"3"}
                assert await user.store.hints("other") == {}

    async def test_a_note_takes_the_place_of_the_one_of_its_name(self) -> None:
        async with self.world() as w:
            await w.one.store.put_hint(_TOPIC, "a", b"1", 1_000)
            await w.two.store.put_hint(_TOPIC, "a", b"2", 1_000)
            assert await w.one.store.hints(_TOPIC) == {"a": b"2"}

    async def test_a_note_is_gone_when_its_time_is_over(self) -> None:
        async with self.world() as w:
            await w.one.store.put_hint(_TOPIC, "short", b"1", 1_000)
            await w.one.store.put_hint(_TOPIC, "long", b"2", 2_000)
            w.clock.advance(999)
            assert set(await w.two.store.hints(_TOPIC)) == {"short", "long"}
            w.clock.advance(1)
            assert set(await w.two.store.hints(_TOPIC)) == {"long"}

    async def test_a_note_that_is_written_again_lives_from_then_on(self) -> None:
        async with self.world() as w:
            await w.one.store.put_hint(_TOPIC, "a", b"1", 1_000)
            w.clock.advance(900)
            await w.one.store.put_hint(_TOPIC, "a", b"2", 1_000)
            w.clock.advance(900)
            assert await w.one.store.hints(_TOPIC) == {"a": b"2"}
            await w.one.store.put_hint(_TOPIC, "a", b"3", 1)
            w.clock.advance(1)
            assert await w.one.store.hints(_TOPIC) == {}

    async def test_a_hint_wakes_a_caller_that_waits_for_a_change(self) -> None:
        async with self.world() as w:
            for writer in (w.one, w.two):
                seen = await w.one.store.wait_for_change(0, 0)
                waiting = asyncio.ensure_future(w.one.store.wait_for_change(seen, None))
                await asyncio.sleep(0)
                assert not waiting.done()
                await writer.store.put_hint(_TOPIC, "a", b"1", 1_000)
                await asyncio.wait_for(waiting, _PATIENCE_S)
