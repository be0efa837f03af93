"""A log written by handlers and engines, one line per event, so that checkers need not trust the store.

Each line is one `write` to a file opened for appending, so processes can share a file, and a killed process leaves only
complete lines. `at_ns` is the machine's monotonic clock, the same in all its processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from msgspec import Struct, json

from stemflow.model.effects import Decision
from stemflow.model.records import FINAL, Node
from stemflow.store.base import Exchange, Request, Store, Want

Event = Literal["begin", "end", "commit"]


class Sight(Struct, frozen=True, omit_defaults=True):
    """An observation: a handler began or finished, or a store acknowledged the commit of an outcome."""

    event: Event
    run: str
    node: str
    attempt: int
    token: int
    pid: int
    at_ns: int
    state: str = ""
    """For a commit: the final state."""


class Delivered(Protocol):
    """The attributes of a context that are used."""

    @property
    def run_id(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def delivery(self) -> int: ...


class Witness:
    """The log at `path`. A handler works inside `with witness.sees(context):`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def close(self) -> None:
        os.close(self._file)

    def write(self, event: Event, run: str, node: str, attempt: int, token: int, state: str = "") -> None:
        sight = Sight(event, run, node, attempt, token, os.getpid(), time.monotonic_ns(), state)
        os.write(self._file, json.encode(sight) + b"\n")

    @contextmanager
    def sees(self, context: Delivered) -> Iterator[None]:
        """Write `begin`, and `end` unless the work raises or is cancelled."""
        what = (context.run_id, context.node, context.attempt, context.delivery)
        self.write("begin", *what)
        yield
        self.write("end", *what)

    def watching(self, store: Store) -> Store:
        """The same store; outcomes are logged when it acknowledges their commits."""
        return _Watched(store, self)

    def sights(self) -> list[Sight]:
        """All observations so far, in the order of writing."""
        return sights_in(self.path)


def sights_in(path: Path) -> list[Sight]:
    return [json.decode(line, type=Sight) for line in path.read_bytes().splitlines()]


class _Watched:
    def __init__(self, store: Store, witness: Witness) -> None:
        self._store, self._witness = store, witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def exchange(self, request: Request, decisions: Sequence[Decision], want: Want | None) -> Exchange:
        answer = await self._store.exchange(request, decisions, want)
        for decision, committed in zip(decisions, answer.committed, strict=True):
            for put in decision.puts if committed else ():
                node = put.record
                if isinstance(node, Node) and node.state in FINAL:
                    self._witness.write("commit", node.run, node.path, node.attempt, node.delivery, node.state)
        return answer
