"""The progress of running handlers: a note in the store, so that whoever follows the run sees it, in any process."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, json

from stemflow.model.records import RUNNING, STOPPING, Node
from stemflow.runtime.payloads.json_data import encode
from stemflow.runtime.tasks.context import TaskContext
from stemflow.store.base import Store

PROGRESS_TTL_MS = 3_600_000
"""How long the progress of a handler is kept after it was last reported."""


class Progress(Struct, frozen=True):
    """What a running handler last reported, as the store keeps it; `token` names the delivery that it belongs to."""

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
    return {path: _progress.decode(body) for path, body in (await store.hints(_topic(run))).items()}


async def note_progress(store: Store, context: TaskContext, percent: float, data: Any) -> Progress:
    """Keep what a handler reports, and answer it; raises NotSerializable when `data` is not JSON."""
    told = {"token": context.delivery, "percent": percent, "data": data, "at_ms": store.now_ms()}
    body = encode(told, f"progress of {context.name}")
    await store.put_hint(_topic(context.run_id), context.node, body, PROGRESS_TTL_MS)
    return _progress.decode(body)
