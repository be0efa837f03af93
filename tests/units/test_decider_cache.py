"""What a worker has decided and not committed is seen by the same exchange alone."""

from stemflow.model.effects import Decision, Put
from stemflow.model.records import CANCELLED, NO_RUN, RUNNING, Key, Node, Record
from stemflow.runtime.commit.ahead import Ahead
from stemflow.runtime.commit.decider import Reading


def test_records_of_an_earlier_decision_are_seen_and_never_cached() -> None:
    key = ("r", "a")
    stored, decided = (Node(run="r", path="a", plan="p", node=1, state=state) for state in (RUNNING, CANCELLED))
    cache: dict[Key, Record | None] = {key: stored}
    # When a decision rests on another one of its exchange
    ahead = Ahead()
    ahead.add(Decision(puts=(Put((NO_RUN, "c"), 0, 0, None), Put(key, 0, 0, decided), Put(("r", "b"), 0, 0, None))))
    reading = Reading(cache, (), ahead)
    # Then it sees what that one has decided
    assert (reading.seen[key], reading.seen["r", "b"]) == (decided, None)
    # And decisions of other exchanges do not
    assert cache == {key: stored}
    assert Reading(cache, (), Ahead()).seen[key] is stored
