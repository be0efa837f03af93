"""Members that a running task adds to its own fan-in: the group, map or chord header around it."""

from __future__ import annotations

from stemflow.core.kinds import rules_of
from stemflow.core.members import open_members
from stemflow.core.work import StaleView, Work
from stemflow.model.plan import Plan, ScopePlan
from stemflow.model.records import RUNNING, Node


def join_fan_in(w: Work, node: Node, added: tuple[Plan, ...]) -> None:
    """Let the members of each fragment (whose root is a group) join the fan-in of `node`, in the commit that ends
    it."""
    for plan in added:
        scope = _fan_in_of(w, node)
        if scope is not None and scope.state == RUNNING:
            _add_members(w, w.edit(scope), plan)


def _fan_in_of(w: Work, node: Node) -> Node | None:
    """The nearest enclosing scope of which `node` is, or is in, a parallel member; not a body or hook."""
    while node.path and node.index >= 0:
        scope = w.node(w.parent_key(node))
        if scope is None:
            return None
        if scope.tally is None:
            raise StaleView(scope.key, f"a scope, of which {node.path} is a member")
        plan = w.scope_of(scope)
        if rules_of(plan).may_join(plan, node.index):
            return scope
        node = scope
    return None


def _add_members(w: Work, scope: Node, plan: Plan) -> None:
    w.add_plan(scope.run, plan)
    root = plan.nodes[0]
    assert isinstance(root, ScopePlan) and scope.tally is not None
    first = scope.tally.size
    scope.extra = (*scope.extra, (plan.digest, len(root.members)))
    scope.tally.size += len(root.members)
    open_members(w, scope, range(first, scope.tally.size))
