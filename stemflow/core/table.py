"""The transition table: what each event does to each kind of node in each state. Code, tests and the diagram share it.

A pair that is not in the table is *stale*. That is an answer, not an error, since late and duplicate facts are normal.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from stemflow.model.records import (
    CANCELLED,
    FAILED,
    HELD,
    READY,
    RUNNING,
    SKIPPED,
    STOPPING,
    SUCCEEDED,
    WAITING,
    State,
)

Kind = Literal["leaf", "wait", "event", "emit", "approval", "scope"]
Event = Literal[
    "opened",
    "upstream",
    "granted",
    "denied",
    "displaced",
    "debounced",
    "due",
    "answered",
    "leased",
    "ok",
    "ignored",
    "failed",
    "handed_back",
    "lost",
    "replaced",
    "settled",
    "stop",
    "forced",
]

KINDS: Final[tuple[Kind, ...]] = ("leaf", "wait", "event", "emit", "approval", "scope")
STATES: Final[tuple[State, ...]] = (
    WAITING, HELD, READY, RUNNING, STOPPING, SUCCEEDED, FAILED, SKIPPED, CANCELLED,
)  # fmt: skip
EVENTS: Final[tuple[Event, ...]] = Event.__args__  # type: ignore[attr-defined]


class Cell(NamedTuple):
    """A live cell: the action that runs, and the states in which it may leave the node."""

    action: str
    to: tuple[State, ...]


TABLE: Final[dict[tuple[Kind, State, Event], Cell]] = {
    # leaf: a task
    ("leaf", WAITING, "opened"): Cell("open_leaf", (READY, HELD, SKIPPED, SUCCEEDED, FAILED)),
    ("leaf", WAITING, "upstream"): Cell("skip", (SKIPPED,)),
    ("leaf", WAITING, "stop"): Cell("derive", (CANCELLED,)),
    ("leaf", HELD, "granted"): Cell("go_on", (READY, HELD, FAILED)),
    ("leaf", HELD, "denied"): Cell("share", (SUCCEEDED, FAILED)),
    ("leaf", HELD, "displaced"): Cell("displace", (HELD,)),
    ("leaf", HELD, "debounced"): Cell("debounce", (HELD,)),
    ("leaf", HELD, "due"): Cell("wake", (READY, HELD, FAILED)),
    ("leaf", HELD, "stop"): Cell("cancel", (CANCELLED,)),
    ("leaf", HELD, "forced"): Cell("cancel", (CANCELLED,)),
    ("leaf", READY, "displaced"): Cell("displace", (HELD,)),
    ("leaf", READY, "debounced"): Cell("debounce", (READY, HELD)),
    ("leaf", READY, "due"): Cell("expire", (FAILED,)),
    ("leaf", READY, "leased"): Cell("lease", (RUNNING,)),
    ("leaf", READY, "stop"): Cell("cancel", (CANCELLED,)),
    ("leaf", READY, "forced"): Cell("cancel", (CANCELLED,)),
    ("leaf", RUNNING, "ok"): Cell("succeed", (SUCCEEDED,)),
    ("leaf", RUNNING, "ignored"): Cell("ignore", (SKIPPED,)),
    ("leaf", RUNNING, "failed"): Cell("fail", (READY, HELD, FAILED)),
    ("leaf", RUNNING, "handed_back"): Cell("hand_back", (READY, HELD)),
    ("leaf", RUNNING, "lost"): Cell("lose", (READY, HELD, FAILED)),
    ("leaf", RUNNING, "replaced"): Cell("replace", (RUNNING, HELD, SUCCEEDED, FAILED)),
    ("leaf", RUNNING, "stop"): Cell("tell", (STOPPING,)),
    ("leaf", RUNNING, "forced"): Cell("cancel", (CANCELLED,)),
    ("leaf", STOPPING, "ok"): Cell("succeed", (SUCCEEDED,)),
    ("leaf", STOPPING, "ignored"): Cell("ignore", (SKIPPED,)),
    ("leaf", STOPPING, "failed"): Cell("fail_stopped", (FAILED, CANCELLED)),
    ("leaf", STOPPING, "handed_back"): Cell("cancel", (CANCELLED,)),
    ("leaf", STOPPING, "lost"): Cell("cancel", (CANCELLED,)),
    ("leaf", STOPPING, "replaced"): Cell("cancel", (CANCELLED,)),
    ("leaf", STOPPING, "stop"): Cell("tell", (STOPPING,)),
    ("leaf", STOPPING, "forced"): Cell("cancel", (CANCELLED,)),
    # wait: a timer
    ("wait", WAITING, "opened"): Cell("open_wait", (HELD, FAILED)),
    ("wait", WAITING, "upstream"): Cell("skip", (SKIPPED,)),
    ("wait", WAITING, "stop"): Cell("derive", (CANCELLED,)),
    ("wait", HELD, "due"): Cell("elapse", (SUCCEEDED,)),
    ("wait", HELD, "stop"): Cell("cancel", (CANCELLED,)),
    ("wait", HELD, "forced"): Cell("cancel", (CANCELLED,)),
    # event: a step that waits for an event
    ("event", WAITING, "opened"): Cell("open_event", (HELD, SUCCEEDED, FAILED)),
    ("event", WAITING, "upstream"): Cell("skip", (SKIPPED,)),
    ("event", WAITING, "stop"): Cell("derive", (CANCELLED,)),
    ("event", HELD, "due"): Cell("look", (HELD, SUCCEEDED, FAILED, SKIPPED)),
    ("event", HELD, "stop"): Cell("cancel", (CANCELLED,)),
    ("event", HELD, "forced"): Cell("cancel", (CANCELLED,)),
    # emit: a step that sends an event
    ("emit", WAITING, "opened"): Cell("emit", (SUCCEEDED, FAILED)),
    ("emit", WAITING, "upstream"): Cell("skip", (SKIPPED,)),
    ("emit", WAITING, "stop"): Cell("derive", (CANCELLED,)),
    # approval: a step that waits for a person
    ("approval", WAITING, "opened"): Cell("open_approval", (HELD, SUCCEEDED, FAILED)),
    ("approval", WAITING, "upstream"): Cell("skip", (SKIPPED,)),
    ("approval", WAITING, "stop"): Cell("derive", (CANCELLED,)),
    ("approval", HELD, "answered"): Cell("answer", (SUCCEEDED, FAILED)),
    ("approval", HELD, "due"): Cell("lapse", (SUCCEEDED, FAILED, SKIPPED)),
    ("approval", HELD, "stop"): Cell("cancel", (CANCELLED,)),
    ("approval", HELD, "forced"): Cell("cancel", (CANCELLED,)),
    # scope: the run, a chain, group, chord, map, steps, switch, a hook, a fragment
    ("scope", WAITING, "opened"): Cell("open_scope", (RUNNING, HELD, SUCCEEDED, FAILED, SKIPPED)),
    ("scope", WAITING, "upstream"): Cell("skip", (SKIPPED,)),
    ("scope", WAITING, "stop"): Cell("derive", (CANCELLED,)),
    ("scope", HELD, "granted"): Cell("go_on_scope", (RUNNING, HELD, SUCCEEDED, FAILED, SKIPPED)),
    ("scope", HELD, "denied"): Cell("share", (SUCCEEDED, FAILED, SKIPPED, CANCELLED)),
    ("scope", HELD, "displaced"): Cell("displace_scope", (HELD,)),
    ("scope", HELD, "debounced"): Cell("debounce", (HELD,)),
    ("scope", HELD, "due"): Cell("wake_scope", (RUNNING, HELD, SUCCEEDED, FAILED, SKIPPED)),
    ("scope", HELD, "settled"): Cell("tick", (HELD,)),
    ("scope", HELD, "stop"): Cell("stop_held", (STOPPING, CANCELLED)),
    ("scope", HELD, "forced"): Cell("cut", (CANCELLED,)),
    ("scope", RUNNING, "displaced"): Cell("displace_scope", (HELD,)),
    ("scope", RUNNING, "due"): Cell("time_out", (STOPPING,)),
    ("scope", RUNNING, "settled"): Cell("tick", (RUNNING, STOPPING, SUCCEEDED, FAILED, SKIPPED, CANCELLED)),
    ("scope", RUNNING, "stop"): Cell("stop_scope", (RUNNING, STOPPING)),
    ("scope", RUNNING, "forced"): Cell("cut", (SUCCEEDED, FAILED, SKIPPED, CANCELLED)),
    ("scope", STOPPING, "settled"): Cell("tick", (STOPPING, SUCCEEDED, FAILED, SKIPPED, CANCELLED)),
    ("scope", STOPPING, "stop"): Cell("stop_scope", (STOPPING,)),
    ("scope", STOPPING, "forced"): Cell("cut", (SUCCEEDED, FAILED, SKIPPED, CANCELLED)),
}
