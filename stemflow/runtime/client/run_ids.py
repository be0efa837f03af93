"""What runs have in common: keys and a partition, when one repeats another, or how they begin."""

from __future__ import annotations

from stemflow.model.plan import LeafPlan, Plan, ScopePlan
from stemflow.ports import IdSource
from stemflow.store.base import Store


def shares_keys(plan: Plan) -> bool:
    """Whether tasks of the plan meet those of other runs: in a unique key, a concurrency key or a rate limit."""
    for one in plan.options:
        if one.unique or one.concurrency is not None or one.rate_limits or one.group_rates:
            return True
    return any(isinstance(node, ScopePlan) and node.concurrency is not None for node in plan.nodes)


def begins_alike(plan: Plan) -> bool:
    """Whether runs of the plan begin alike, whatever they are called with: it is one task, whose place is in no key
    that depends on its arguments or headers."""
    leaf = plan.nodes[0]
    return len(plan.nodes) == 1 and isinstance(leaf, LeafPlan) and not leaf.undo and not shares_keys(plan)


def run_beside(ids: IdSource, store: Store, other: str) -> str:
    """A new id for a run that lies where the run `other` does; NO_RUN: where shared keys are."""
    run = ids.run_id()
    while store.partition_of(run) != store.partition_of(other):
        run = ids.run_id()
    return run
