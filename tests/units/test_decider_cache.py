"""What a worker has decided and not committed is seen by the same exchange alone."""

from stemflow.model.records import CANCELLED, RUNNING, Key, Node, Record
from stemflow.runtime.commit.decider import Reading


def test_records_of_an_earlier_decision_are_seen_and_never_cached() -> None:
    key = ("r", "a")
    stored, decided = (Node(run="r", path="a", plan="p", node=1, state=state) for state in (RUNNING, CANCELLED))
    cache: dict[Key, Record | None] = {key: stored}
    # When a decision rests on another one of its exchange
    reading = Reading(cache, (), {key: decided, ("r", "b"): None})
    # Then it sees what that one has decided
    assert (reading.seen[key], reading.seen["r", "b"]) == (decided, None)
    # And decisions of other exchanges do not
    assert cache == {key: stored}
    assert Reading(cache, (), {}).seen[key] is stored
