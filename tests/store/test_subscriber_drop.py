"""A channel that is dropped while somebody waits to be subscribed to it ends that wait."""

from __future__ import annotations

import asyncio

from stemflow.store.redis.subscriber import Subscriber


async def test_dropping_a_channel_ends_the_wait_for_its_subscription() -> None:
    # Given a subscriber without a connection, so that no answer comes
    subscriber = Subscriber("redis:", lambda: None, lambda *_: None, lambda: None)  # type: ignore[arg-type,return-value]
    waiting = asyncio.ensure_future(subscriber.add(b"channel"))
    await asyncio.sleep(0)
    # When the channel is dropped
    await subscriber.drop(b"channel")
    # Then nobody waits for the answer any more
    await asyncio.wait_for(waiting, 5)
    assert b"channel" not in subscriber
