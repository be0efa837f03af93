"""A server that refuses to write, in the words of each version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from stemflow.runtime.clock import SystemClock
from stemflow.store.base import BackpressureError, StoreError, StoreUnavailable
from stemflow.store.open import open_store
from stemflow.store.redis import client
from stemflow.store.redis.script_errors import unwrapped
from stemflow.testing.contract.world import User, begun, leaf
from stemflow.testing.servers.server import Server

IN_A_SCRIPT = "Error running script (call to f_78): @user_script:1: @user_script: 21: -"
"""As Redis before 7.0 says it, without the code ERR, which redis-py takes away."""


@pytest.mark.parametrize(
    ("told", "kind", "text"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError, "command not allowed"),
        ("READONLY You can't write against a read only replica.", ReadOnlyError, "You can't write"),
        ("NOREPLICAS Not enough good replicas to write.", ResponseError, "NOREPLICAS Not enough"),
        ("MISCONF Redis is configured to save:\nsnapshots", ResponseError, "MISCONF Redis"),
    ],
)
def test_an_error_of_the_server_inside_a_script_is_read_as_such(told: str, kind: type[Exception], text: str) -> None:
    found = unwrapped(ResponseError(IN_A_SCRIPT + told))
    assert type(found) is kind
    assert str(found).startswith(text)


def test_an_error_of_a_script_itself_stays_as_it_is() -> None:
    error = ResponseError("Error running script (call to f_78): @user_script:1: attempt to index a nil value: -1 x")
    assert unwrapped(error) is error


@pytest.fixture
def changed(server: Server) -> Iterator[Server]:
    """A server whose settings a test may change."""
    server.flush()
    yield server
    server.ask("REPLICAOF", "NO", "ONE")
    for setting in ("maxmemory", "min-replicas-to-write"):
        server.ask("CONFIG", "SET", setting, "0")


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), BackpressureError, "short of memory"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), StoreUnavailable, "NOREPLICAS"),
        (("REPLICAOF", "127.0.0.1", "1"), StoreUnavailable, "read only replica"),
    ],
    ids=["short of memory", "too few replicas", "a replica"],
)
async def test_a_server_that_refuses_to_write_is_understood(
    changed: Server, words: tuple[str, ...], kind: type[StoreError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (9.0, 9.0))  # longer than its patience: it tries once
    store = open_store(changed.url, SystemClock())
    await store.open()
    user = User(store, "one")
    await user.begin(leaf("a"))
    (lease,) = await user.lease()
    assert changed.ask(*words) == b"+OK\r\n"
    with pytest.raises(kind, match=says) as told:
        await user.exchange(begun("other", leaf("x", run="other")))
    assert type(told.value) is kind
    # Renewing, which needs no memory, is refused for the same other reasons
    renewing = store.renewer()
    held = [(lease.node.key, lease.node.delivery, 1_000)]
    if kind is BackpressureError:
        assert renewing.renew(held).gone == ()
    else:
        with pytest.raises(kind, match=says):
            await asyncio.to_thread(renewing.renew, held)
    renewing.close()
    await store.close()
