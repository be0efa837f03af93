"""What a worker says of the attempts that ended: what became of each, and what happens next."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact, Failed, HandedBack, Lost
from stemflow.model.records import READY, Key, Node, Record, task_id

STORY_LINES = 50
"""The most reports, and the most records, that the log shows of a run whose reports could not be decided."""

log = logging.getLogger("stemflow.worker")


def narrate(facts: Sequence[Fact], decision: Decision, now_ms: int) -> None:
    """Log what was committed: failures, losses, refused reports; and what ended well for those who debug.

    Nothing of this is a warning: what a handler raises is the business of its run, which tells it to whoever waits.
    """
    nodes: dict[object, Node] | None = None
    for fact in facts:
        if isinstance(fact, Ended) and not isinstance(fact.outcome, (Failed, HandedBack)) and not decision.refused:
            log.debug("task %s ended: %s", task_id(fact.key), type(fact.outcome).__name__.lower())
        elif isinstance(fact, (Ended, Lost)):
            if nodes is None:
                nodes = {put.key: put.record for put in decision.puts if isinstance(put.record, Node)}
            _tell(fact, nodes.get(fact.key), fact in decision.refused, now_ms)


def story_of(facts: Sequence[Fact], records: Mapping[Key, Record | None]) -> str:
    """What was reported and what is known of the runs in question, for those who look for a fault of the engine.

    No value of a run is part of it.
    """
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


def _tell(fact: Ended | Lost, node: Node | None, refused: bool, now_ms: int) -> None:
    name = task_id(fact.key)
    if refused:
        log.info("task %s: stale report refused: its lease had been lost, another attempt counts", name)
    elif node is None:
        return
    elif isinstance(fact, Lost):
        then = "it is leased again" if node.state == READY else f"it is {node.state}"
        log.info("task %s: its worker was lost (%d so far); %s", name, node.losses, then)
    elif isinstance(fact.outcome, HandedBack):
        log.info("task %s: handed back, uncharged; it is %s", name, node.state)
    elif isinstance(fact.outcome, Failed):
        error = fact.outcome.error
        again = node.state == READY
        then = f"tried again in {max(0, node.at_ms - now_ms) / 1_000:.1f} s" if again else f"it is {node.state}"
        number = node.attempt + (not again)
        log.info("task %s: attempt %d failed (%s: %s); %s", name, number, error.type, error.message, then)
