"""A run that has ended, held against a direct evaluation of its plan: which places ran, and how each scope ended.

Written from the rules of docs/rules.md alone; it shares no code with the machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from stemflow.core.shape import Shape
from stemflow.model.plan import AnyPlan, ApprovalPlan, EventPlan, LeafPlan, ScopePlan
from stemflow.model.records import Key, Node, child_path, is_below

HOW = {"succeeded": "ok", "failed": "failed", "cancelled": "cancelled"}


def disagreements(
    nodes: Mapping[Key, Node], shapes: Mapping[str, Shape], forced: Collection[Key] = ()
) -> list[str]:
    """One run's records against what follows from how its leaves ended; at and below `forced` it was ended by force."""
    found = []
    for node in nodes.values():
        shape = shapes[node.plan]
        plan = shape.nodes[node.node]
        if isinstance(plan, LeafPlan):
            texts = _leaf(node)
        elif isinstance(plan, ScopePlan):
            texts = _Scope(node, plan, nodes, shapes, any(is_below(node.key, one) for one in forced)).disagreements()
        else:
            ends = {"succeeded", "cancelled", "failed"}
            if isinstance(plan, (EventPlan, ApprovalPlan)) and plan.on_timeout == "skip":
                ends.add("skipped")
            texts = [] if node.state in ends else ["a wait cannot end so"]
        found += [f"{node.path or 'the run'}: {text} (it is {node.state})" for text in texts]
    return found


def _leaf(node: Node) -> list[str]:
    if node.state == "succeeded" and node.result is None and node.alias is None:
        return ["it has no result"]
    if node.state == "failed" and node.kill:
        return ["it was told to stop for good, so its failure does not count"]
    if node.state == "failed" and node.error is None and node.alias is None:
        return ["it has no error"]
    return []


class _Scope:
    def __init__(
        self, node: Node, plan: ScopePlan, nodes: Mapping[Key, Node], shapes: Mapping[str, Shape], cut: bool
    ) -> None:
        self.node, self.plan, self.nodes, self.shapes = node, plan, nodes, shapes
        self.cut = cut
        """It may have been ended by force, whatever its members did; then no hook was opened for that."""
        self.members = self._members()
        self.hows: list[str] = []

    def disagreements(self) -> list[str]:
        node, plan = self.node, self.plan
        if node.alias is not None and not is_below(node.alias, node.key):
            return []  # it ended as another run did
        texts = self._follow_ups()
        if node.slot is not None and node.state == "cancelled" and node.tally is not None and not node.tally.size:
            return texts  # it was stopped while it waited for its turn
        if node.tally is None:
            return texts  # an undo map of a map that never was
        if node.error is not None and node.error.type == "Boom" and not node.tally.size:
            return texts if node.state == "failed" else ["its expression failed, so must it"]
        stopped = bool(node.tally.cancelled)
        for index, (path, member) in enumerate(self.members):
            record = self.nodes.get((node.run, path))
            ran = None if record is None else HOW.get(record.state) or _skip(record)
            expected = self._skipped(index, member)
            if expected and ran:
                texts.append(f"{path} ran, but is {expected}")
            elif not expected and not ran and not (stopped and self._is_stopped(member)):
                texts.append(f"{path} did not run")
            derived = node.tally.how(index) if stopped else expected
            self.hows.append(ran or derived or "none")
        own = plan.value is not None and node.state == "succeeded" and node.alias is None
        if own and node.result != " ".join(self.hows).encode():
            texts.append(f"its value is {node.result!r}, its members ended {self.hows}")
        # Perhaps by its timeout, which is forgotten where it is caught.
        failed = (node.alias is not None and bool(plan.catches)) or self._caught()[1] is not None
        expected_states = self._after_follow_ups({"failed"} if failed else self._states())
        if self.cut:
            expected_states.add("cancelled")
        if node.state not in expected_states:
            texts.append(f"expected {' or '.join(sorted(expected_states))} of {self.hows}")
        return texts

    def _is_stopped(self, member: AnyPlan) -> bool:
        """Whether a stop reaches a member that has not opened. One under a key may have given way before."""
        return self.cut or self.node.claim is not None or self.plan.kind != "steps" or member.run_on != "always"

    def _members(self) -> list[tuple[str, AnyPlan]]:
        node, plan, shape = self.node, self.plan, self.shapes[self.node.plan]
        found = []
        size = node.tally.size if node.tally else 0
        base = size - sum(count for _, count in node.extra)
        for index in range(base):
            name = plan.names[index] if plan.names else f"[{index}]"
            name = "then" if plan.kind == "chord" and index == len(plan.members) - 1 else name
            name = "body" if plan.kind == "workflow" else name
            name = "default" if plan.kind == "switch" and index == len(plan.cases) else name
            member = plan.members[0 if plan.kind in ("map", "loop") else index]
            found.append((child_path(node.path, name), shape.nodes[member]))
        for digest, count in node.extra:
            fragment = self.shapes[digest]
            root = fragment.nodes[0]
            assert isinstance(root, ScopePlan) and len(root.members) == count
            for member in root.members:
                found.append((child_path(node.path, f"[{len(found)}]"), fragment.nodes[member]))
        return found

    def _skipped(self, index: int, member: AnyPlan) -> str | None:
        """How the member ends without being run, or None."""
        before = [(kind, self.hows[i], self.members[i][1]) for kind, i in self._before(index)]
        if self.plan.kind == "chain":
            verdict = self._chain_rule(before)
        elif self.plan.kind == "chord":
            verdict = "upstream" if before and (self._failing() or "cancelled" in self.hows) else None
        elif self.plan.kind == "switch":
            verdict = None if self.plan.on == str(index) else "skipped"
        else:
            verdict = self._dag_rule(member, before)
        return verdict or ("skipped" if member.when == "no" else None)

    def _before(self, index: int) -> list[tuple[str, int]]:
        if self.plan.kind == "chain":
            return [("data", index - 1)] if index else []
        if self.plan.kind == "chord" and index == len(self.plan.members) - 1:
            return [("data", i) for i in range(index)]
        if self.plan.kind == "steps" and self.plan.edges:
            return [(edge.kind, edge.source) for edge in self.plan.edges[index]]
        return []

    @staticmethod
    def _chain_rule(before: list[tuple[str, str, AnyPlan]]) -> str | None:
        for _, how, source in before:
            if how == "ok" or (how == "failed" and source.on_error == "continue"):
                return None
            return "skipped" if how == "skipped" else "upstream"
        return None

    @staticmethod
    def _dag_rule(member: AnyPlan, before: list[tuple[str, str, AnyPlan]]) -> str | None:
        if not before:
            return None
        done = [(k, "ok" if how == "failed" and source.on_error == "continue" else how) for k, how, source in before]
        hows = {how for _, how in done}
        if member.run_on == "always":
            return None
        if member.run_on == "done":
            return "upstream" if "cancelled" in hows else None
        if member.run_on == "failure":
            return None if any(how == "failed" for _, how, _ in before) else "skipped"
        if member.run_on == "any_success":
            return None if "ok" in hows else "upstream" if hows & {"failed", "upstream", "cancelled"} else "skipped"
        if hows & {"failed", "upstream", "cancelled"}:
            return "upstream"
        return "skipped" if ("data", "skipped") in done else None

    def _failing(self) -> bool:
        return any(how == "failed" and not self._tolerated(index) for index, how in enumerate(self.hows))

    def _with_quorum(self, quorum: int) -> set[str]:
        assert self.plan.completion is not None
        won = [self.members[index][0] for index, how in enumerate(self.hows) if how == "ok"]
        if len(won) < quorum:
            return {"failed", "cancelled"} if self.node.stopped else {"failed"}
        if self.node.state == "cancelled" and self.node.stopped:
            return {"cancelled"}
        if self.plan.returns == {"is": "error"}:  # nothing is evaluated of what is cut off
            return {"failed", "succeeded"} if self.cut else {"failed"}
        if self.plan.completion.race and (self.node.alias is None or self.node.alias[1] not in won):
            return {f"the value of one of {won}, not of {self.node.alias}"}
        return {"succeeded"}

    def _tolerated(self, index: int) -> bool:
        limits = self.plan.completion
        if limits is not None and (limits.tolerate is not None or limits.percent is not None):
            allowed = limits.tolerate or int(len(self.hows) * (limits.percent or 0) / 100)
            return self.members[index][1].on_error != "fail" or self.hows.count("failed") <= allowed
        body = self.plan.kind == "chord" and index == len(self.plan.members) - 1
        beside = self.plan.kind in ("group", "map", "chord") and not body
        return self.members[index][1].on_error != "fail" or (beside and self.plan.policy != "fail_fast")

    def _states(self) -> set[str]:
        node, plan = self.node, self.plan
        if node.error is not None and node.error.type in ("TaskTimeout", "LoopLimit"):
            return {"failed"}
        if plan.kind == "loop" and not {"failed", "cancelled"} & set(self.hows) and len(self.hows) != int(plan.on or 0):
            return {f"{plan.on} iterations"}
        quorum = plan.completion and plan.completion.quorum
        if quorum:
            return self._with_quorum(quorum)
        if self._failing():
            return {"failed", "cancelled"} if node.kill and not node.path else {"failed"}
        if "cancelled" in self.hows or (node.kill and not node.path):
            return {"cancelled"}
        skips = {"skipped", "upstream"}
        if plan.kind in ("chain", "workflow") and skips & set(self.hows):
            return {"skipped"}
        if plan.kind == "chord" and self.hows[len(plan.members) - 1] in skips:
            return {"skipped"}
        if plan.kind == "switch" and not set(self.hows) - skips:
            return {"skipped"}
        return {"failed"} if {"is": "error"} in (plan.value, plan.returns) else {"succeeded"}

    def _after_follow_ups(self, states: set[str]) -> set[str]:
        """How it may end after a catch and the cleanup, given how it may end because of its members."""
        number, caught = self._caught()
        if "failed" in states and caught is not None:
            if self.plan.catches[number].when == "error":
                return {"its catch cannot have been chosen"}
            forced = {"failed"} if self.cut and caught.state == "cancelled" else set()
            states = {{"failed": "failed", "cancelled": "cancelled"}.get(caught.state, "succeeded")} | forced
            if self.node.stopped and self.node.kill and not self.node.path:
                states = {"cancelled"} | forced
        elif "failed" in states and number >= 0 and self._skips(self.plan.catches[number].node):
            states = {"succeeded"}
        elif "failed" in states and number >= 0 and not self.node.stopped and not self.cut:
            return states if self.plan.catches[number].when == "error" else {"a catch that fits has not run"}
        cleanup = self._follow_up("finally")
        if cleanup is not None and cleanup.state == "failed" and states & {"succeeded", "skipped"}:
            assert self.plan.cleanup is not None
            tolerated = self.shapes[self.node.plan].nodes[self.plan.cleanup].on_error != "fail"
            states = states if tolerated else {"failed"}
        return states

    def _skips(self, place: int) -> bool:
        return self.shapes[self.node.plan].nodes[place].when == "no"

    def _caught(self) -> tuple[int, Node | None]:
        """The number of the catch that fits (-1: none), and its record if it ran."""
        number = next((i for i, one in enumerate(self.plan.catches) if one.when != "no"), -1)
        return number, self._follow_up(f"catch{number + 1}" if number else "catch") if number >= 0 else None

    def _follow_up(self, name: str) -> Node | None:
        return self.nodes.get((self.node.run, child_path(self.node.path, "!" + name)))

    def _follow_ups(self) -> list[str]:
        texts = []
        cleanup = self._follow_up("finally")
        cancelled_before = self.node.tally is not None and self.node.tally.size == 0 and self.node.state == "cancelled"
        if (self.plan.cleanup is not None and self.node.tally is not None and cleanup is None and not self.cut
                and not cancelled_before and not self._skips(self.plan.cleanup)):
            texts.append("its cleanup did not run")
        if cleanup is not None and self.node.failed_at and is_below(
            (self.node.run, self.node.failed_at), cleanup.key
        ):  # fmt: skip
            return texts  # its hooks ran before its cleanup failed
        for hook in self.plan.hooks:
            path = child_path(self.node.path, "!" + hook.name)
            ran = (self.node.run, path) in self.nodes
            wanted = any(h.name == hook.name and h.state == self.node.state for h in self.plan.hooks)
            if ran != wanted and not (self.cut and wanted):
                texts.append(f"its hook {path} {'ran' if ran else 'did not run'}")
        return texts


def _skip(record: Node) -> str:
    return "skipped" if record.cause == "condition" else "upstream"
