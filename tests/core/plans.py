"""A small builder of plans, and the outcomes that each task of the explored plans may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from stemflow.model.facts import Failed, Ignored, Ok, Outcome, Replaced
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
    ScopePlan,
    WaitPlan,
)
from stemflow.model.policy import Concurrency, Options
from stemflow.model.records import ErrorInfo

PLAIN = Options()
BOOM = ErrorInfo("Boom", "it went wrong")


@dataclass(frozen=True)
class Spec:
    """A place of a plan before it has a number: `fields` go to its plan node, `members` and `follow_ups` below it."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    members: tuple[Spec, ...] = ()
    follow_ups: tuple[tuple[str, str, Spec], ...] = ()
    """(state, name, what runs); the states `catch` and `finally` make a catch and the cleanup."""
    options: Options = PLAIN

    def on(self, state: str, follow_up: Spec, name: str | None = None) -> Spec:
        """Open `follow_up` when this is about to close in `state`."""
        follow_ups = (*self.follow_ups, (state, name or state, follow_up))
        return Spec(self.kind, self.fields, self.members, follow_ups, self.options)

    def catch(self, follow_up: Spec, when: str | None = None) -> Spec:
        """`when`: `no` if it is not for the error, `error` if its condition fails."""
        return self.on("catch", follow_up, when or "yes")

    def finally_(self, follow_up: Spec) -> Spec:
        return self.on("finally", follow_up)

    def but(self, **fields: Any) -> Spec:
        return Spec(self.kind, {**self.fields, **fields}, self.members, self.follow_ups, self.options)


def leaf(task: str = "ok", *, options: Options | None = None, **fields: Any) -> Spec:
    return Spec("leaf", {"task": task, **fields}, options=options or PLAIN)


def wait(**fields: Any) -> Spec:
    return Spec("wait", {"for_ms": 1_000, **fields})


def event(match: str = "yes", **fields: Any) -> Spec:
    """`match`: `yes`, `no`, `even` for events with an even number, or `error`."""
    return Spec("event", {"event_type": "t", "match": match, **fields})


def emit(id: str = "e", **fields: Any) -> Spec:
    """`id`: of the event, or `error`."""
    return Spec("emit", {"event_type": "t", "id": id, **fields})


def approval(**fields: Any) -> Spec:
    return Spec("approval", fields)


def chain(*members: Spec, **fields: Any) -> Spec:
    return Spec("chain", fields, members)


def group(*members: Spec, **fields: Any) -> Spec:
    return Spec("group", fields, members)


def chord(*header: Spec, body: Spec, **fields: Any) -> Spec:
    return Spec("chord", fields, (*header, body))


def map_(template: Spec, items: int | str, **fields: Any) -> Spec:
    return Spec("map", {"items": items, **fields}, (template,))


def switch(on: str, *cases: Spec, default: Spec | None = None, **fields: Any) -> Spec:
    """`on` is the index of the case that is taken, `-1` for none, or `error`."""
    keys = tuple(str(index) for index in range(len(cases)))
    fields = {"on": on, "cases": keys, **fields}
    return Spec("switch", fields, (*cases, *(() if default is None else (default,))))


def loop(template: Spec, times: str, limit: int | str = 9, **fields: Any) -> Spec:
    """`times`: how many iterations its condition allows, or `error`."""
    return Spec("loop", {"on": times, "limit": limit, **fields}, (template,))


def workflow(body: Spec, given: str = "fine", **fields: Any) -> Spec:
    """`given`: `fine`, or `error` for inputs that cannot be had."""
    return Spec("workflow", {"start": given, **fields}, (body,))


def set_(value: str = "fine", **fields: Any) -> Spec:
    """`value`: `fine`, or `error` for an expression that fails."""
    return Spec("set", {"value": {"is": value}, **fields})


def fail(**fields: Any) -> Spec:
    return Spec("fail", {"value": {"is": "error"}, **fields})


def steps(after: dict[str, tuple[Spec, str]], **fields: Any) -> Spec:
    """`{"c": (leaf(), "a b? c-")}`: data edges; `?` marks an optional edge, `-` one that is only for order."""
    names = tuple(after)
    edges = tuple(
        tuple(Edge(names.index(word.rstrip("?-")), _edge_kind(word)) for word in words.split())
        for _, words in after.values()
    )
    fields = {"policy": "collect", "names": names, "edges": edges, **fields}
    return Spec("steps", fields, tuple(spec for spec, _ in after.values()))


def _edge_kind(word: str) -> EdgeKind:
    return "optional" if word[-1] == "?" else "order" if word[-1] == "-" else "data"


def build(spec: Spec, digest: str) -> Plan:
    """Number the places of `spec`, the root first."""
    nodes: list[AnyPlan] = []
    options: list[Options] = []
    _add(spec, -1, nodes, options)
    return Plan(nodes=tuple(nodes), options=tuple(options) or (PLAIN,), digest=digest)


def _add(spec: Spec, parent: int, nodes: list[AnyPlan], options: list[Options]) -> int:
    place = len(nodes)
    if spec.kind == "leaf":
        if spec.options not in options:
            options.append(spec.options)
        nodes.append(LeafPlan(parent=parent, options=options.index(spec.options), **spec.fields))
    elif spec.kind == "wait":
        nodes.append(WaitPlan(parent=parent, **spec.fields))
    elif spec.kind in ("event", "emit", "approval"):
        kinds = {"event": EventPlan, "emit": EmitPlan, "approval": ApprovalPlan}
        nodes.append(kinds[spec.kind](parent=parent, **spec.fields))
    else:
        nodes.append(ScopePlan(parent=parent, kind=spec.kind, **spec.fields))  # type: ignore[arg-type]
        members = tuple(_add(member, place, nodes, options) for member in spec.members)
        after = [(state, name, _add(below, place, nodes, options)) for state, name, below in spec.follow_ups]
        scope = nodes[place]
        assert isinstance(scope, ScopePlan)
        nodes[place] = structs.replace(
            scope,
            members=members,
            hooks=tuple(HookPlan(*one) for one in after if one[0] not in ("catch", "finally")),
            catches=tuple(CatchPlan(at, (), when) for state, when, at in after if state == "catch"),
            cleanup=next((at for state, _, at in after if state == "finally"), None),
        )
    return place


# -- what tasks may do

OK = Ok(b"1")
FAIL = Failed(BOOM)
FINAL_FAIL = Failed(BOOM, verdict="final")

OUTCOMES: dict[str, Sequence[Outcome]] = {
    "ok": (OK,),
    "bad": (FINAL_FAIL,),
    "maybe": (OK, FINAL_FAIL),
    "flaky": (OK, FAIL, Failed(BOOM, verdict="again", after_ms=5), FINAL_FAIL),
    "any": (OK, FINAL_FAIL, Ignored()),
    "ignored": (Ignored(),),
    "replace": (OK, Replaced(build(chain(leaf("maybe"), leaf("ok")), "fragment-chain"))),
    "replace_group": (Replaced(build(group(leaf("maybe"), leaf("ok")), "fragment-group")),),
    "replace_empty": (
        Replaced(build(group(), "fragment-empty")),
        Replaced(build(map_(leaf("ok"), "error"), "fragment-gone")),
    ),
    "replace_same_key": (
        Replaced(build(chain(leaf("ok", options=Options(unique=True, unique_by="k"))), "fragment-same-key")),
    ),
    "replace_limited": (
        Replaced(build(chain(leaf("ok"), concurrency=Concurrency("c")), "fragment-limited")),
        Replaced(build(group(concurrency=Concurrency("c")), "fragment-limited-empty")),
    ),
    "add": (OK, Ok(b"1", added=(build(group(leaf("maybe"), leaf("ok")), "fragment-added"),))),
}
"""Task name -> what its attempts may report, apart from being handed back or lost. The first one needs no luck."""

FRAGMENTS: dict[str, Plan] = {
    plan.digest: plan
    for outcomes in OUTCOMES.values()
    for outcome in outcomes
    for plan in ((outcome.plan,) if isinstance(outcome, Replaced) else outcome.added if isinstance(outcome, Ok) else ())
}
"""Digest -> the sub-graphs that tasks bring with them."""
