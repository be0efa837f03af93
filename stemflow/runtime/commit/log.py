"""Log lines about attempts that ended, with structured fields: `run_id`, `task_id`, `task`, `attempt`, `state`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from stemflow.model.effects import DeadLetter, Decision
from stemflow.model.facts import Ended, Fact, Failed, HandedBack, Lost
from stemflow.model.records import FAILED, READY, Key, Node, Record, task_id

STORY_LINES = 50
"""The most reports, and the most records, that the log shows of a run whose reports could not be decided."""

log = logging.getLogger("stemflow.worker")
failures = logging.getLogger("stemflow.failures")
"""Tasks that failed for good, at ERROR with their traceback."""


def log_commit(facts: Sequence[Fact], decision: Decision, now_ms: int) -> None:
    """Log a commit: final failures at ERROR, retries, losses and late reports at INFO, successes at DEBUG."""
    nodes: dict[object, Node] | None = None
    for fact in facts:
        if isinstance(fact, Ended) and not isinstance(fact.outcome, (Failed, HandedBack)) and not decision.refused:
            if log.isEnabledFor(logging.DEBUG):
                ended = type(fact.outcome).__name__.lower()
                log.debug("task %s ended: %s", task_id(fact.key), ended, extra=_fields(fact, None, ended))
        elif isinstance(fact, (Ended, Lost)):
            if nodes is None:
                nodes = {put.key: put.record for put in decision.puts if isinstance(put.record, Node)}
            letter = next((one for one in decision.dead if one.key == fact.key), None)
            _log_end(fact, nodes.get(fact.key), letter, fact in decision.refused, now_ms)


def story_of(facts: Sequence[Fact], records: Mapping[Key, Record | None]) -> str:
    """The reports, and the cached records of their runs, as text for debugging the engine. Contains no values."""
    runs = {fact.key[0] for fact in facts}
    lines = [f"  reported: {_fact(fact)}" for fact in facts[:STORY_LINES]]
    known = [record for key, record in records.items() if key[0] in runs and isinstance(record, Node)]
    lines += [
        f"  known: {task_id(one.key)} {one.state}, revision {one.rev}, delivery {one.delivery}, attempt {one.attempt}"
        for one in known[:STORY_LINES]
    ]
    left_out = max(0, len(facts) - STORY_LINES) + max(0, len(known) - STORY_LINES)
    return "\n".join([*lines, f"  and {left_out} more"] if left_out else lines)


def _fact(fact: Fact) -> str:
    text = f"{type(fact).__name__} {task_id(fact.key)}"
    if isinstance(fact, Ended):
        return f"{text}: {type(fact.outcome).__name__} under delivery {fact.token}"
    return f"{text} under delivery {fact.token}" if isinstance(fact, Lost) else text


def _log_end(fact: Ended | Lost, node: Node | None, letter: DeadLetter | None, refused: bool, now_ms: int) -> None:
    name = task_id(fact.key)
    if refused:
        log.info("task %s: late report refused: its lease had expired, another attempt counts", name,
                 extra=_fields(fact, node, "refused"))  # fmt: skip
        return
    if node is None:
        return
    fields = _fields(fact, node, node.state)
    if node.state == FAILED:
        _log_failure(fact, node, letter, fields)
    elif isinstance(fact, Lost):
        then = "it is leased again" if node.state == READY else f"it is {node.state}"
        log.info("task %s: its worker was lost (%d so far); %s", name, node.losses, then, extra=fields)
    elif isinstance(fact.outcome, HandedBack):
        log.info("task %s: returned to the queue, uncharged; it is %s", name, node.state, extra=fields)
    elif isinstance(fact.outcome, Failed):
        error = fact.outcome.error
        again = node.state == READY
        then = f"tried again in {max(0, node.at_ms - now_ms) / 1_000:.1f} s" if again else f"it is {node.state}"
        fields |= {"error_type": error.type}
        log.info("task %s: attempt %d failed (%s: %s); %s", name, node.attempt + (not again), error.type,
                 error.message, then, extra=fields)  # fmt: skip


def _log_failure(fact: Ended | Lost, node: Node, letter: DeadLetter | None, fields: dict[str, Any]) -> None:
    """A task that failed for good. The traceback is text, which formatters print as that of an exception."""
    error = node.error or (letter.error if letter is not None else None)
    attempt = node.attempt + 1
    task = f" ({letter.task})" if letter is not None and letter.task else ""
    said = "no error was recorded" if error is None else f"{error.type}: {error.message}"
    text = f"task {task_id(fact.key)}{task} failed for good in attempt {attempt}: {said}"
    if not failures.isEnabledFor(logging.ERROR):
        return
    fields |= {
        "task": letter.task if letter is not None else None,
        "reason": letter.reason if letter is not None else None,
        "error_type": error.type if error is not None else None,
    }
    record = failures.makeRecord(failures.name, logging.ERROR, __file__, 0, "%s", (text,), None, extra=fields)
    record.exc_text = (error.traceback or None) if error is not None else None
    failures.handle(record)


def _fields(fact: Ended | Lost, node: Node | None, state: str) -> dict[str, Any]:
    """The structured fields of a line, for formatters that write JSON. `attempt` counts from 0, as in TaskContext."""
    run, path = fact.key
    attempt = None if node is None else node.attempt
    return {"run_id": run, "task_id": task_id(fact.key), "path": path, "attempt": attempt, "state": state}
