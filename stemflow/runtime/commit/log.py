"""What a worker says of the attempts that ended: what became of each, and what happens next."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from stemflow.model.effects import Decision
from stemflow.model.facts import Ended, Fact, Failed, HandedBack, Lost
from stemflow.model.records import READY, Node, task_id

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
