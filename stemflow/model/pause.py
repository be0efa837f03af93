"""Pauses: what operators have stopped for a while. Nothing of it starts; what runs goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from msgspec import Struct

PauseKind = Literal["queue", "workflow", "task"]
PAUSE_KINDS: Final[tuple[PauseKind, ...]] = get_args(PauseKind)


class Pause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A queue, a workflow or a task of which nothing starts, since `at_ms` (epoch ms).

    `until_ms`: when it ends by itself; None: when somebody resumes it. `by` and `reason`: as the operator gave them.
    """

    kind: PauseKind
    name: str
    at_ms: int
    until_ms: int | None = None
    by: str = ""
    reason: str = ""

    @property
    def target(self) -> str:
        """What is paused, as an operator names it: `queue:NAME`, `workflow:NAME` or `task:NAME`."""
        return f"{self.kind}:{self.name}"

    def lasts(self, now_ms: int) -> bool:
        """Whether it has not ended by itself."""
        return self.until_ms is None or now_ms < self.until_ms


def pauses_of(pauses: Iterable[Pause], queue: str, task: str, workflow: str, now_ms: int) -> list[Pause]:
    """The pauses that keep a task from starting, the one that ends last first.

    `queue`, `task` and `workflow` are the names of what it belongs to.
    """
    names = {"queue": queue, "task": task, "workflow": workflow}
    found = [one for one in pauses if one.lasts(now_ms) and names[one.kind] == one.name]
    return sorted(found, key=lambda one: (one.until_ms is not None, -(one.until_ms or 0), one.target))
