"""The progress of running handlers, stored so that every process can follow it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, json

from stemflow.model.records import RUNNING, STOPPING, Key, Node
from stemflow.runtime.payloads.json_data import encode
from stemflow.store.base import Store
from stemflow.store.damaged import decoded_hints

PROGRESS_TTL_MS = 3_600_000
"""How long the progress of a handler is kept after it was last reported."""


class Progress(Struct, frozen=True):
    """What a running handler has reported last. `token`: of the delivery that it belongs to. `percent`: 0 to 100.
    `data`: any JSON data. `at_ms`: epoch milliseconds."""

    token: int
    percent: float
    data: Any = None
    at_ms: int = 0

    def of(self, node: Node) -> bool:
        """Whether `node` is still under the delivery that reported this."""
        return node.delivery == self.token and node.state in (RUNNING, STOPPING)


_progress = json.Decoder(Progress)


def _topic(run: str) -> str:
    return f"run:{run}"


async def progress_of_run(store: Store, run: str) -> dict[str, Progress]:
    """The latest progress in a run by path, in whichever process the handlers run."""
    return decoded_hints(f"progress of run {run} at", _progress.decode, await store.hints(_topic(run)))


async def store_progress(store: Store, node: Key, token: int, percent: float, data: Any, task: str) -> Progress:
    """Store what the handler of `node` reports under its fencing `token`, for PROGRESS_TTL_MS; return what was stored.

    `task` is the name that an error gives. Raises NotSerializable when `data` is not JSON, and StoreError.
    """
    body = encode({"token": token, "percent": percent, "data": data, "at_ms": store.now_ms()}, f"progress of {task}")
    await store.put_hint(_topic(node[0]), node[1], body, PROGRESS_TTL_MS)
    return _progress.decode(body)
