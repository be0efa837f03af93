"""Runs that must lie in one partition of their store: those whose tasks share keys, and a run and what repeats it."""

from __future__ import annotations

from stemflow.model.plan import Plan, ScopePlan
from stemflow.ports import IdSource
from stemflow.store.base import Store


def shares_keys(plan: Plan) -> bool:
    """Whether tasks of the plan meet those of other runs: in a unique key, a concurrency key or a rate limit."""
    for one in plan.options:
        if one.unique or one.concurrency is not None or one.rate_limits or one.group_rates:
            return True
    return any(isinstance(node, ScopePlan) and node.concurrency is not None for node in plan.nodes)


def run_beside(ids: IdSource, store: Store, other: str) -> str:
    """A new id for a run that lies where the run `other` does; HOUSE: where shared keys are."""
    run = ids.run_id()
    while not store.together(run, other):
        run = ids.run_id()
    return run
