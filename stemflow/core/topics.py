"""Events: how they are stored, and which steps are woken for them.

Theory of operation. A `Topic` is one record per type of events: the number of the last event, and the nodes that wait
for one. An event is a record of its own under the next number, and a second one under its id, which makes sending
idempotent as long as the event is kept. All of them lie with the claims, next to the runs, so that one decision can
change a topic together with nodes.

* *Sending* stores the event and sets the timer of each waiting node to now. It evaluates nothing, so a process
  without tasks, encoders and keys of encryption can send.
* *Looking* is what a worker does when such a timer is due: it asks a gate for the first event after those that the
  node has seen. The expression `match` is evaluated there.
* *Beginning to wait* looks at the events that are kept, and joins the waiters if none fits. It changes the topic's
  record, as sending does; so one of the two is decided on what the other has left, and no event is missed.

The newest RETAINED events of a type are given to steps that begin to wait; all of them are kept for their ids.
"""

from __future__ import annotations

import copy

from stemflow.core.work import Work
from stemflow.model.records import FINAL, Key, Node, StoredEvent, Topic, event_id_key, event_key, topic_key

RETAINED = 1_000
"""How many events of a type a step that begins to wait looks at, at most: the newest."""


def find(w: Work, type: str) -> Topic | None:
    """The topic of a type of events, if any is kept or awaited."""
    return w.topic(topic_key(type))


def send(w: Work, type: str, id: str, body: bytes, keep_ms: int) -> bool:
    """Store an event for `keep_ms` milliseconds and wake the nodes that wait for its type; False if one of this id is
    kept."""
    known = w.event(event_id_key(type, id))
    if known is not None and known.until_ms > w.now_ms:
        return False
    topic = _edit(w, type)
    topic.last += 1
    topic.first = max(topic.first, topic.last - RETAINED + 1)
    until_ms = w.now_ms + keep_ms
    topic.until_ms = max(topic.until_ms, until_ms)
    for key, text in ((event_key(type, topic.last), body), (event_id_key(type, id), b"")):
        event = StoredEvent(key=key, number=topic.last, at_ms=w.now_ms, until_ms=until_ms, body=text)
        w.set_shared(key, event)
    _wake(w, topic)
    return True


def _wake(w: Work, topic: Topic) -> None:
    """Let a worker look at each waiter. One that has ended without leaving (its run was damaged) is left out."""
    w.want(topic.waiters)
    topic.waiters = tuple(key for key in topic.waiters if _waits(w.node(key), topic))
    for key in topic.waiters:
        node = w.node(key)
        assert node is not None
        w.edit(node).due_at_ms = w.now_ms


def _waits(node: Node | None, topic: Topic) -> bool:
    return (
        node is not None and node.state not in FINAL and node.awaits is not None and node.awaits.topic == topic.key
    )


def join(w: Work, type: str, node: Key) -> int:
    """Let `node` wait for events of this type; return the number of the last one that there is."""
    topic = _edit(w, type)
    topic.waiters = (*topic.waiters, node)
    return topic.last


def leave(w: Work, node: Node) -> None:
    """Remove `node` from the waiters. A topic without waiters and kept events is deleted."""
    assert node.awaits is not None
    topic, node.awaits = w.topic(node.awaits.topic), None
    if topic is None or node.key not in topic.waiters:
        return
    topic = copy.copy(topic)
    topic.waiters = tuple(key for key in topic.waiters if key != node.key)
    w.set_shared(topic.key, topic if topic.waiters or topic.until_ms > w.now_ms else None)


def _edit(w: Work, type: str) -> Topic:
    """The copy of a topic that this decision may change. Numbers of a new one begin at the present instant, so that
    they differ from those of an earlier topic of this type, which was deleted."""
    found = find(w, type)
    topic = copy.copy(found) if found is not None else Topic(key=topic_key(type))
    if not topic.last:
        topic.last, topic.first = w.now_ms, w.now_ms + 1
    w.set_shared(topic.key, topic)
    return topic
