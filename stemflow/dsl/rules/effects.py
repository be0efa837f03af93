"""SF5: modifiers that have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.values import task_defaults
from stemflow.dsl.rules.view import View

_COMPENSATE = ("on_failure", "on_cancel")
_GROUP_RATE = ("group_rate_key", "group_rate_key_header", "group_rate_limiter_failure_mode")


def _compensates(view: View) -> bool:
    for key in _COMPENSATE:
        policy = view.root.members.get(key)
        if policy is not None and (
            policy.flawed or not isinstance(policy.value, dict) or policy.value.get("compensate")
        ):
            return True
    return any(step.path for key in (*_COMPENSATE, "catch") for step in view.having(key))


@rule("SF516", "warning")
def compensation_that_never_runs(view: View) -> Iterator[Found]:
    """`compensate` in a file that compensates neither on failure nor on cancel."""
    if not _compensates(view):
        for step in view.having("compensate"):
            yield Found(
                "compensate: nothing undoes this step, neither a failure nor a cancel of the run",
                step.node.keys["compensate"],
                "write on_failure: {compensate: true}",
            )


@rule("SF517", "warning")
def nothing_to_compensate(view: View) -> Iterator[Found]:
    """`on_failure: {compensate: true}` without a step that has `compensate`."""
    if any(step.path for step in view.having("compensate")) or view.having("workflow"):
        return
    for key in _COMPENSATE:
        policy = view.root.get(key)
        given = policy.get("compensate") if policy is not None and isinstance(policy.value, dict) else None
        if given is not None and given.value is True:
            yield Found(
                f"{key}: no step has a `compensate`",
                view.root.keys[key],
                "add compensate to the steps that can be undone",
            )


@rule("SF518", "warning")
def group_rate_without_a_limit(view: View) -> Iterator[Found]:
    """Keys of a group rate limit, and no such limit."""
    defaults = task_defaults(view)
    default = defaults is not None and "group_rate_limit" in defaults.members
    steps = [*view.undos.values(), *(step for key in _GROUP_RATE for step in view.having(key))]
    owners = {id(step.node): step.node for step in steps}
    for node in owners.values() if defaults is None else [*owners.values(), defaults]:
        if default or "group_rate_limit" in node.members:
            continue
        for key in _GROUP_RATE:
            if key in node.members:
                yield Found(
                    f"{key}: there is no `group_rate_limit` that it belongs to", node.keys[key], "add group_rate_limit"
                )


@rule("SF519", "warning")
def fail_fast_of_one_step(view: View) -> Iterator[Found]:
    """`fail_fast` in a graph of one step."""
    node = view.root.get("fail_fast")
    if node is not None and node.value is True and len(view.graphs.get("", ())) == 1:
        yield Found("fail_fast: there is only one step, so there are no others to stop", node.place, "take the key out")


@rule("SF520", "warning")
def policy_decided_by_members(view: View) -> Iterator[Found]:
    """`on_member_error` on a group or map whose members cannot fail it."""
    for step in view.having("on_member_error"):
        node = step.node.get("on_member_error") if step.path else None
        if node is None or node.value == "fail_fast":
            continue
        members = [view.steps[path] for path in view.children.get(step.path, ()) if not path.endswith(".then")]
        if members and all(one.node.text("on_error") == "continue" for one in members):
            yield Found(
                f"on_member_error: {node.value}: every member has on_error: continue, which decides first",
                node.place,
                "take one of the two out",
            )


def _above(path: str, sources: Mapping[str, list[str]]) -> Iterator[str]:
    """The steps from which edges lead to a step, over however many others."""
    pending, seen = [path], {path}
    while pending:
        for source in sources.get(pending.pop(), ()):
            if source not in seen:
                seen.add(source)
                pending.append(source)
                yield source


@rule("SF522", "warning")
def failure_of_waits(view: View) -> Iterator[Found]:
    """`run_on: failure` after steps that do not fail."""
    sources: dict[str, list[str]] = {}
    for edge in view.edges:
        sources.setdefault(edge.target, []).append(edge.source)
    for step in view.having("run_on"):
        node = step.node.get("run_on") if step.path else None
        if node is None or node.value != "failure" or step.context is None or step.context.siblings is None:
            continue
        before = (view.steps[path].kind == "wait" for path in _above(step.path, sources) if path in view.steps)
        if next(before, False) and all(before):
            yield Found(
                "run_on: failure: the steps before it are waits, which do not fail",
                node.place,
                "name the steps whose failure it is for in `needs`",
            )
