"""What operators want of the workers of a store: pauses, and settings of single workers.

Each wish is a hint under its own name, so two operators never overwrite what the other one wanted of something else.
Workers read all of them each second, and name in their heartbeat the digest of what they have applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Annotated, Final, TypeVar

from msgspec import Meta, Struct, json

from stemflow.model.pause import PAUSE_KINDS, Pause
from stemflow.runtime.payloads.signing import SigningError, Trust
from stemflow.store.base import Store
from stemflow.store.damaged import decoded_hints, log_once

T = TypeVar("T")

TOPIC: Final = "control"
LASTING_MS: Final = 100 * 365 * 86_400_000
"""How long a wish is kept that nobody takes back."""
LOOK_MS: Final = 1_000
"""How often a worker looks for wishes."""


class WorkerOrder(Struct, frozen=True, omit_defaults=True):
    """What one worker is to do. `drain`: take no new leases. `concurrency`: its number of slots; None: as it was
    started."""

    drain: bool = False
    concurrency: int | None = None


class Controls(Struct, frozen=True):
    """Everything that is wanted. `digest` names it; it is empty if nothing is."""

    pauses: tuple[Pause, ...] = ()
    orders: Mapping[str, WorkerOrder] = {}
    dumps: Mapping[str, str] = {}
    """By the name of the worker that is asked for its stacks, the id of the answer."""
    digest: str = ""


NO_CONTROLS: Final = Controls()
DRAIN: Final = "drain:"
CONCURRENCY: Final = "concurrency:"
"""In front of the name of a worker; the body is JSON: `true`, or the number of its slots."""
DUMP: Final = "dump:"
"""In front of the name of a worker that is to dump its stacks; the body is the id of the answer."""
DUMPS: Final = "dumps"
"""The topic of the answers, by that id."""
DUMP_MS: Final = 60_000
"""How long a request for stacks and its answer are kept."""

_pause = json.Decoder(Pause).decode
_drain = json.Decoder(bool).decode
_slots = json.Decoder(Annotated[int, Meta(ge=1)]).decode


async def read_controls(store: Store, trust: Trust) -> Controls:
    """What is wanted now. With keys in `trust`, what has no valid signature is passed over and logged.

    Raises StoreError.
    """
    found = {}
    for name, body in (await store.hints(TOPIC)).items():
        try:
            found[name] = trust.unwrap(body, _place(name))
        except (SigningError, IndexError) as error:
            log_once(f"what an operator wants of {name} is passed over: {error}")
    if not found:
        return NO_CONTROLS
    pauses = {name: body for name, body in found.items() if name.partition(":")[0] in PAUSE_KINDS}
    digest = hashlib.sha256(json.encode(sorted((name, body.decode("latin-1")) for name, body in found.items())))
    return Controls(
        pauses=tuple(sorted(decoded_hints("the pause of", _pause, pauses).values(), key=lambda one: one.target)),
        orders=_orders(found),
        dumps={
            name.removeprefix(DUMP): body.decode("ascii", "replace")
            for name, body in found.items()
            if name.startswith(DUMP)
        },
        digest=digest.hexdigest()[:16],
    )


def _orders(found: Mapping[str, bytes]) -> dict[str, WorkerOrder]:
    """What each worker is to do, by its name."""

    def named(prefix: str, decode: Callable[[bytes], T]) -> dict[str, T]:
        some = {name: body for name, body in found.items() if name.startswith(prefix)}
        decoded = decoded_hints("what an operator wants:", decode, some)
        return {name.removeprefix(prefix): one for name, one in decoded.items()}

    drains, slots = named(DRAIN, _drain), named(CONCURRENCY, _slots)
    return {name: WorkerOrder(drains.get(name, False), slots.get(name)) for name in {*drains, *slots}}


async def put_pause(store: Store, trust: Trust, pause: Pause) -> None:
    """Store a pause, in place of an earlier one of the same target; it goes when it ends."""
    kept_ms = LASTING_MS if pause.until_ms is None else max(1, pause.until_ms - store.now_ms())
    await store.put_hint(TOPIC, pause.target, trust.wrap(json.encode(pause), _place(pause.target)), kept_ms)


async def put_drain(store: Store, trust: Trust, worker: str, drain: bool) -> None:
    """Store whether the worker of this name is to lease nothing new."""
    await _put(store, trust, DRAIN + worker, json.encode(drain), drain)


async def put_concurrency(store: Store, trust: Trust, worker: str, slots: int) -> None:
    """Store how many slots the worker of this name is to have; 0: as many as it was started with."""
    await _put(store, trust, CONCURRENCY + worker, json.encode(slots), slots > 0)


async def _put(store: Store, trust: Trust, name: str, body: bytes, lasts: bool) -> None:
    await store.put_hint(TOPIC, name, trust.wrap(body, _place(name)), LASTING_MS if lasts else 1)


async def ask_for_dump(store: Store, trust: Trust, worker: str, id: str) -> None:
    """Ask the worker of this name for its stacks, to be answered under `id`."""
    await store.put_hint(TOPIC, DUMP + worker, trust.wrap(id.encode(), _place(DUMP + worker)), DUMP_MS)


async def take_back(store: Store, trust: Trust, pause: Pause) -> None:
    """Remove a pause."""
    await store.put_hint(TOPIC, pause.target, trust.wrap(json.encode(pause), _place(pause.target)), 1)


def _place(name: str) -> str:
    return f"control {name}"
