"""Freezing: compile a checked signature into a plan, a flat list of nodes identified by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

import msgspec
from msgspec import structs

from stemflow.compile.desugar import SINGLE, desugar, desugar_run, desugared_follow_ups
from stemflow.compile.edges import NAMES, check_names
from stemflow.compile.graph import graph_of, reversed_edges
from stemflow.errors import OptionError
from stemflow.expr import ExpressionError, parse_condition
from stemflow.model.plan import (
    AnyPlan,
    ApprovalPlan,
    CatchPlan,
    Edge,
    EdgeKind,
    EmitPlan,
    EventPlan,
    HookPlan,
    LeafPlan,
    Plan,
    PlanNode,
    ScopePlan,
    WaitPlan,
)
from stemflow.model.policy import Options
from stemflow.model.records import CANCELLED, FAILED, SELF, SUCCEEDED, child_path
from stemflow.model.signature import (
    AnySig,
    ApprovalSig,
    ChainSig,
    ChordSig,
    EmitSig,
    EventSig,
    FailSig,
    GroupSig,
    LoopSig,
    MapSig,
    SetSig,
    StepsSig,
    SwitchSig,
    TaskSig,
    WaitSig,
    WorkflowSig,
)
from stemflow.model.step_names import BODY
from stemflow.model.tree import members_of

if TYPE_CHECKING:
    import networkx as nx

Composite = (
    ChainSig[Any, Any]
    | GroupSig[Any, Any]
    | ChordSig[Any, Any]
    | MapSig[Any, Any]
    | StepsSig[Any, Any]
    | SwitchSig[Any, Any]
    | LoopSig[Any, Any]
    | WorkflowSig[Any, Any]
    | SetSig[Any, Any]
    | FailSig[Any, Any]
)
OptionsOf = Callable[[TaskSig[Any, Any]], Options]
"""Returns the effective options of a call; the caller knows the registry and the defaults."""

_HOOKS = {"!success": SUCCEEDED, "!failure": FAILED, "!cancel": CANCELLED}
"""The path segment of a hook -> the state that it is for."""

_EDGE_KINDS: tuple[EdgeKind, ...] = ("data", "optional", "order")


def compile_plan(sig: AnySig, options_of: OptionsOf, **given: Any) -> Plan:
    """The plan of `compile_tree` alone, for callers that need no tree."""
    return compile_tree(sig, options_of, **given)[0]


def compile_tree(
    sig: AnySig,
    options_of: OptionsOf,
    *,
    variables: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    compensate_on: Sequence[str] = (),
    inline_items: bool = False,
    run_hooks: bool = False,
) -> tuple[Plan, AnySig]:
    """Compile a signature into a plan, and the desugared tree that has one signature for each node of the plan.

    Raises CycleError and OptionError.

    `outputs` is the tree that becomes the value of the whole. `compensate_on` names the final states (failed,
    cancelled) after which what has succeeded is undone. `inline_items`: lists that maps go over stay in the plan, as
    a fragment's must. `run_hooks`: hooks of the root are those of the run, also where it is a group.
    """
    plain = desugar_run(sig) if run_hooks else desugar(sig)
    check_names(plain)
    if (compensate_on or outputs is not None) and isinstance(plain, SINGLE):
        plain = ChainSig(steps=(plain,))
    freezer = _Freezer(graph_of(plain), options_of, inline_items)
    freezer.add(plain, "", -1, fed=False)
    if outputs is not None:
        freezer.nodes[0] = structs.replace(freezer.nodes[0], value=outputs)
    if compensate_on:
        freezer.add_undo(plain, compensate_on, "", 0)
    return _sealed(freezer, variables or {}), plain


def compile_task(sig: TaskSig[Any, Any], options_of: OptionsOf) -> Plan:
    """The plan of a single task. Its arguments are the run's inputs, so one plan serves every call."""
    freezer = _Freezer(None, options_of)
    bare: TaskSig[Any, Any] = TaskSig(
        task=sig.task,
        args=sig.args,
        kwargs=sig.kwargs,
        options=sig.options,
        countdown_ms=sig.countdown_ms,
        eta_at_ms=sig.eta_at_ms,
        declared=sig.declared,
    )
    freezer.add(bare, "", -1, fed=False)
    freezer.nodes[0] = structs.replace(freezer.nodes[0], args=(), kwargs={}, bind=None)
    return _sealed(freezer, {})


def _sealed(freezer: _Freezer, variables: Mapping[str, Any]) -> Plan:
    plan = Plan(nodes=tuple(freezer.nodes), options=tuple(freezer.options), vars=variables)
    return named(plan)


def _condition(source: str | None, where: str) -> str | None:
    """The condition of a step or catch; raises OptionError, which begins with `where`, if it is no expression."""
    if source is not None:
        try:
            parse_condition(source, NAMES)
        except ExpressionError as error:
            raise OptionError(f"{where}: {error.message}") from None
    return source


def named(plan: Plan) -> Plan:
    """The plan with its digest, which covers all other fields."""
    bare = structs.replace(plan, digest="")
    return structs.replace(plan, digest=hashlib.sha256(msgspec.msgpack.encode(bare)).hexdigest()[:32])


def _own_fields(sig: AnySig, plan: type[PlanNode]) -> dict[str, Any]:
    """The fields that a plan node of this type has in addition to the common ones; its signature has the same."""
    return {name: getattr(sig, name) for name in plan.__struct_fields__ if name not in PlanNode.__struct_fields__}


class _Freezer:
    """Collects the nodes and the distinct options; the children of a node come after it."""

    def __init__(self, graph: nx.DiGraph[str] | None, options_of: OptionsOf, inline_items: bool = False) -> None:
        self.graph = graph
        self.options_of = options_of
        self.inline_items = inline_items
        self.nodes: list[AnyPlan] = []
        self.options: dict[Options, int] = {}

    def add(self, sig: AnySig, path: str, parent: int, *, fed: bool) -> int:
        """Append `sig` and everything below it. `fed`: the first tasks get a value before their own arguments."""
        place = len(self.nodes)
        if sig.at is None:  # that of a file was read with it
            _condition(sig.when, f"{path or 'the canvas'}: when")
        common: dict[str, Any] = {
            "parent": parent, "when": sig.when, "run_on": sig.run_on, "on_error": sig.on_error, "labels": sig.labels,
        }  # fmt: skip
        match sig:
            case TaskSig():
                self.nodes.append(self.leaf(sig, common, fed))
            case WaitSig():
                self.nodes.append(WaitPlan(for_ms=sig.for_ms, span=sig.span, until=sig.until, **common))
            case EventSig():
                self.nodes.append(EventPlan(**_own_fields(sig, EventPlan), **common))
            case EmitSig():
                self.nodes.append(EmitPlan(**_own_fields(sig, EmitPlan), **common))
            case ApprovalSig():
                self.nodes.append(ApprovalPlan(**_own_fields(sig, ApprovalPlan), **common))
            case _:
                self._add_scope(sig, path, place, common, fed)
        return place

    def leaf(self, sig: TaskSig[Any, Any], common: Mapping[str, Any], fed: bool) -> LeafPlan:
        return LeafPlan(
            task=sig.task,
            args=sig.args,
            kwargs=sig.kwargs,
            bind=sig.bind,
            takes_prev=fed and sig.bind is None and not sig.immutable,
            options=self.options.setdefault(self.options_of(sig), len(self.options)),
            headers=sig.headers,
            meta=sig.meta,
            delay_ms=sig.countdown_ms,
            eta_at_ms=sig.eta_at_ms,
            env=sig.env,
            secrets=sig.secrets,
            returns=sig.returns,
            timeout=sig.timeout,
            **common,
        )

    def _add_scope(self, sig: Composite, path: str, place: int, common: Mapping[str, Any], fed: bool) -> None:
        self.nodes.append(ScopePlan(kind="chain"))
        members = members_of(sig)
        places = []
        for index, (segment, member) in enumerate(members):
            follows = isinstance(sig, ChainSig) and index > 0
            gathers = isinstance(sig, ChordSig) and index == len(members) - 1
            given = isinstance(sig, LoopSig) or (isinstance(sig, MapSig) and sig.spread != "env")
            gets = fed or follows or gathers or given
            if isinstance(sig, WorkflowSig):  # the task that starts its run gets the inputs
                gets = not sig.wait
            child = self.add(member, child_path(path, segment), place, fed=gets)
            places.append(child)
        fields: dict[str, Any] = {"members": tuple(places), **common}
        fields |= {"timeout_ms": sig.timeout_ms, "timeout": sig.timeout, "concurrency": sig.concurrency,
                   "returns": sig.returns}  # fmt: skip
        if any(member.name for _, member in members):
            fields["names"] = tuple(segment for segment, _ in members)
        fields.update(self._kind_fields(sig, path))
        fields.update(self._follow_ups(sig, path, place))
        self.nodes[place] = ScopePlan(**fields)
        if isinstance(sig, WorkflowSig) and sig.wait:
            self._complete_workflow(sig, path, places[0])

    def _complete_workflow(self, sig: WorkflowSig[Any, Any], path: str, body: int) -> None:
        """What a workflow says of its whole body: its outputs, and its compensation."""
        if sig.outputs is not None:
            self.nodes[body] = structs.replace(self.nodes[body], value=sig.outputs)
        if sig.compensate_on:
            assert sig.body is not None
            self.add_undo(sig.body, sig.compensate_on, child_path(path, BODY), body)

    def _kind_fields(self, sig: Composite, path: str) -> dict[str, Any]:
        match sig:
            case ChainSig():
                return {"kind": "chain"}
            case GroupSig():
                return {"kind": "group", "policy": sig.policy, "completion": sig.completion}
            case ChordSig():
                return {"kind": "chord", "policy": sig.policy}
            case StepsSig():
                policy = "fail_fast" if sig.fail_fast else "collect"
                return {"kind": "steps", "policy": policy, "edges": self._edges(sig, path), "value": sig.outputs}
            case MapSig():
                inline = self.inline_items or not {"*", "!"}.isdisjoint(path)
                items = len(sig.items) if isinstance(sig.items, tuple) and not inline else sig.items
                names = {"var": sig.var, "index_var": sig.index_var, "spread": sig.spread, "names": None}
                return {"kind": "map", "items": items, "window": sig.window, "policy": sig.policy,
                        "completion": sig.completion, "matrix": sig.matrix, "batch": sig.batch, **names}  # fmt: skip
            case SwitchSig():
                return {"kind": "switch", "on": sig.on, "cases": sig.keys}
            case LoopSig():
                fields = {"kind": "loop", "on": sig.on, "until": sig.until, "limit": sig.limit, "start": sig.carry}
                return {**fields, "names": None}
            case WorkflowSig():
                if sig.body is None:
                    raise OptionError(
                        f"{path}: expected the workflow {sig.ref}, which was not looked up; read the file with "
                        "load_workflow, with known_tasks=registry for workflows by their registered name"
                    )
                return {"kind": "workflow", "start": sig.given, "form": sig.form, "vars": sig.vars, "names": None}
            case SetSig():
                return {"kind": "set", "value": sig.values}
            case FailSig():
                return {"kind": "fail", "value": {"message": sig.message, "type": sig.error_type, "data": sig.data}}
            case _:
                assert_never(sig)

    def _edges(self, sig: StepsSig[Any, Any], path: str) -> tuple[tuple[Edge, ...], ...]:
        assert self.graph is not None
        paths = [child_path(path, step.name or "") for step in sig.steps]
        index = {p: i for i, p in enumerate(paths)}
        found = []
        for target in paths:
            sources = [source for source in self.graph.predecessors(target) if source in index]
            edges = [
                Edge(index[source], kind)
                for source in sources
                for kind in _EDGE_KINDS
                if kind in self.graph.edges[source, target]["kinds"]
            ]
            found.append(tuple(sorted(edges, key=lambda edge: (edge.source, edge.kind))))
        return tuple(found)

    def _follow_ups(self, sig: AnySig, path: str, place: int) -> dict[str, Any]:
        """The fields of a scope that name what runs after its members."""
        places = {segment: self.add(one, path + segment, place, fed=True) for segment, one in desugared_follow_ups(sig)}
        catches = [at for segment, at in places.items() if segment.startswith("!catch")]
        return {
            "catches": tuple(
                CatchPlan(at, on.types, _condition(on.when, "catch: when"))
                for at, on in zip(catches, sig.catch_on, strict=True)
            ),
            "hooks": tuple(HookPlan(_HOOKS[one], one[1:], at) for one, at in places.items() if one in _HOOKS),
            "cleanup": places.get("!finally"),
        }

    # -- compensation

    def add_undo(self, sig: AnySig, states: Sequence[str], path: str, at: int) -> None:
        """Add the reversed graph of the scope at `path` under `!undo`: each step is undone after its successors."""
        place = self._undo(sig, path, at)
        scope = self.nodes[at]
        assert isinstance(scope, ScopePlan)
        if place is not None:
            hooks = tuple(HookPlan(state, "undo", place) for state in states)
            self.nodes[at] = structs.replace(scope, hooks=(*hooks, *scope.hooks))

    def _undo(self, sig: AnySig, path: str, parent: int) -> int | None:
        """Add the undo node of `sig`; None if there is nothing to undo in it."""
        place = len(self.nodes)
        if isinstance(sig, TaskSig):
            if sig.compensate is None:
                return None
            self.nodes.append(
                self.leaf(sig.compensate, {"parent": parent, "on_error": "continue", "undo": True}, False)
            )
            return place
        self.nodes.append(ScopePlan(kind="steps"))
        members = []
        if sig.compensate is not None:
            common = {"parent": place, "on_error": "continue", "undo": True}
            members.append((SELF, child_path(path, SELF), len(self.nodes)))
            self.nodes.append(self.leaf(sig.compensate, common, False))
        for segment, member in members_of(sig):
            child = self._undo(member, child_path(path, segment), place)
            if child is not None:
                members.append((segment, child_path(path, segment), child))
        if not members:
            del self.nodes[place:]
            return None
        fields: dict[str, Any] = {"parent": parent, "on_error": "continue", "undo": True}
        if isinstance(sig, (MapSig, LoopSig)):
            window = sig.window if isinstance(sig, MapSig) and not isinstance(sig.window, str) else 1
            fields |= {"kind": "map", "members": (members[0][2],), "policy": "ignore", "window": window}
        else:
            fields |= self._undo_edges(members)
        self.nodes[place] = ScopePlan(**fields)
        return place

    def _undo_edges(self, members: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
        assert self.graph is not None
        index = {path: i for i, (_, path, _) in enumerate(members)}
        after = reversed_edges(self.graph, index)
        edges = [tuple(Edge(index[later], "order") for later in after[path]) for path in index]
        if members[0][0] == SELF:  # it is undone as a whole first
            edges = [(), *((Edge(0, "order"), *some) for some in edges[1:])]
        names = tuple(segment for segment, _, _ in members)
        return {"kind": "steps", "policy": "collect", "members": tuple(m[2] for m in members),
                "names": names, "edges": tuple(edges)}  # fmt: skip
