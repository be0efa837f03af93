"""The admission of rate limits: in Python for memory and SQLite, in Lua on a server; both give the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from stemflow.model.rates import Rate
from stemflow.store.rate_windows import Lane, Past, Windows
from stemflow.store.redis.layout import generated
from stemflow.testing.servers.server import Server

ASK = """
local request, answers = cmsgpack.unpack(ARGV[1]), {}
local rates = windows(request[1])
for i, lane in ipairs(request[2]) do
  local admitted, _, at = rates.admit(lane), rates.obstacle(lane)
  answers[2 * i - 1], answers[2 * i] = admitted and 1 or 0, at
end
rates.save()
return answers
"""

_SHARED = files("stemflow.store.redis") / "lua" / "shared"
SCRIPT = generated("\n".join((_SHARED / f"{name}.lua").read_text("utf-8") for name in ("records", "windows")) + ASK)

rates = st.builds(
    Rate,
    limit=st.integers(1, 4),
    per_ms=st.sampled_from((7, 10, 33, 100)),
    key=st.sampled_from(("a", "b")),
    burst=st.sampled_from((0, 0, 1, 3)),
)
lanes = st.lists(rates, min_size=1, max_size=3).map(tuple)
rounds = st.tuples(st.integers(0, 40), st.lists(st.integers(0, 3), max_size=6))
"""(ms since the round before, the lanes of which one more leaf would start)."""


def in_python(pasts: dict[str, Past], now_ms: int, asked: Sequence[Lane]) -> list[int]:
    windows = Windows(now_ms, pasts.get)
    answers = []
    for lane in asked:
        answers += [int(windows.admit(lane)), windows.obstacle(lane)[1]]
    pasts.update(windows.started())
    return answers


@settings(max_examples=300)
@given(st.lists(lanes, min_size=4, max_size=4), st.lists(rounds, max_size=12))
def test_lua_admits_what_python_admits(server: Server, drawn: list[Lane], asked: list[tuple[int, list[int]]]) -> None:
    # Given limits that share keys, sliding and paced, several on one leaf
    server.flush()
    client: Any = redis.Redis.from_url(server.url)
    ask = client.register_script(SCRIPT)
    pasts: dict[str, Past] = {}
    now_ms = 1_700_000_000_000
    for wait_ms, which in asked:
        now_ms += wait_ms
        some = [drawn[one] for one in which]

        # When both are asked at the same instants, then they say the same of each leaf, and when the next may start
        request = msgspec.msgpack.encode((now_ms, some))
        assert ask(keys=["{p}"], args=[request]) == in_python(pasts, now_ms, some)
    client.close()
