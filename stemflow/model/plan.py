"""The plan: a compiled workflow, immutable and identified by its digest. A flat list of nodes; node 0 is the root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field

from stemflow.model.completion import Completion
from stemflow.model.policy import Concurrency, Options
from stemflow.model.secret_source import SecretSource
from stemflow.model.signature import (
    EVENT_KEPT_MS,
    MemberPolicy,
    OnApprovalTimeout,
    OnError,
    OnEventTimeout,
    RunOn,
    Span,
)

EdgeKind = Literal["data", "optional", "order"]
"""`data`: the result of the predecessor is needed; `optional`: it is used inside get()/has(); `order`: only its end
matters."""

ScopeKind = Literal["chain", "group", "chord", "map", "steps", "switch", "loop", "workflow", "set", "fail"]


class Edge(Struct, frozen=True, array_like=True):
    """An edge from a predecessor, given by its member index."""

    source: int
    kind: EdgeKind


class PlanNode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The common fields of leaf, wait and scope."""

    parent: int = -1
    when: str | None = None
    run_on: RunOn = "success"
    on_error: OnError = "fail"
    labels: Mapping[str, str] = {}


class Sealed(Struct, frozen=True, tag="sealed"):
    """Literal values as written by a payload encoder. `size`: the number of items, if the value is a list of items."""

    body: bytes
    size: int = 0


class LeafPlan(PlanNode, frozen=True, kw_only=True, omit_defaults=True, tag="leaf"):
    """A task call. `options` is an index into `Plan.options`."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    sealed: Sealed | None = None
    """`args` and `kwargs` together, if their encoder is not the default."""
    bind: Mapping[str, Any] | None = None
    takes_prev: bool = False
    options: int = 0
    headers: Mapping[str, str] = {}
    meta: Mapping[str, Any] = {}
    delay_ms: int = 0
    eta_at_ms: int | None = None
    undo: bool = False
    env: Mapping[str, Any] = {}
    secrets: Mapping[str, SecretSource] = {}
    """Where the values of the secrets are that `bind` and `env` may read."""
    returns: Mapping[str, Any] | None = None
    """The JSON Schema that the result must fit."""
    timeout: str | None = None
    """The template of its hard limit, in place of that of its options."""


class WaitPlan(PlanNode, frozen=True, kw_only=True, omit_defaults=True, tag="wait"):
    """A durable pause."""

    for_ms: int
    span: str | None = None
    """The template of a duration, in place of `for_ms`."""
    until: str | None = None
    """The template of the instant at which it ends, in place of `for_ms`."""


class EventPlan(PlanNode, frozen=True, kw_only=True, omit_defaults=True, tag="event"):
    """A wait for an event; see `EventSig`."""

    event_type: str
    match: str | None = None
    limit_ms: int | None = None
    limit: str | None = None
    on_timeout: OnEventTimeout = "fail"


class EmitPlan(PlanNode, frozen=True, kw_only=True, omit_defaults=True, tag="emit"):
    """Sends an event; see `EmitSig`."""

    event_type: str
    data: Any = None
    id: str | None = None
    keep_ms: int = EVENT_KEPT_MS


class ApprovalPlan(PlanNode, frozen=True, kw_only=True, omit_defaults=True, tag="approval"):
    """A wait for the answer of a person; see `ApprovalSig`."""

    by: tuple[str, ...] = ()
    message: str | None = None
    form: Mapping[str, Any] = {}
    limit_ms: int | None = None
    limit: str | None = None
    on_timeout: OnApprovalTimeout = "fail"
    on_reject: Literal["fail", "continue"] = "fail"


class HookPlan(Struct, frozen=True, array_like=True):
    """A hook: a sub-plan that a scope opens once when it is about to close in `state`; its path ends in `!` and
    `name`."""

    state: str
    name: str
    node: int


class CatchPlan(Struct, frozen=True, array_like=True):
    """A sub-plan that replaces the failure of a scope, if the error has one of the types `on` (empty: any) and the
    condition `when` holds."""

    node: int
    on: tuple[str, ...] = ()
    when: str | None = None


class ScopePlan(PlanNode, frozen=True, kw_only=True, omit_defaults=True, tag="scope"):
    """A composite. The last member of a chord is its body; the only member of a map is its template."""

    kind: ScopeKind
    members: tuple[int, ...] = ()
    names: tuple[str, ...] | None = None
    edges: tuple[tuple[Edge, ...], ...] | None = None
    """steps only: the predecessors of each member."""
    policy: MemberPolicy = "fail_fast"
    completion: Completion | None = None
    """group and map only: how many members must succeed, or may fail."""
    items: str | Span | int | tuple[Any, ...] | Sealed | None = None
    """map only: an expression, a range, the items themselves (in a fragment), or the number of items stored at
    submission."""
    var: str = "item"
    index_var: str = "index"
    spread: Literal["env", "item", "star", "chunk"] = "env"
    """map only: how an item reaches the template's first tasks; see `MapSig`."""
    matrix: Mapping[str, Any] | None = None
    """map only: a tree of lists, whose combinations are the items."""
    batch: int | str | None = None
    """map only: how many items make one, or a template that gives that number."""
    window: int | str | None = None
    """map only: how many members may be open at a time, or a template that gives that number."""
    on: str | None = None
    """The expression whose value names the case of a switch, or that decides whether a loop goes on."""
    until: bool = False
    """loop only: `on` ends it where it is true, asked after each iteration, else where it is false, asked before."""
    limit: int | str = 0
    """loop only: the largest number of iterations, or a template that gives it."""
    start: Any = None
    """The tree that gives what a loop carries into its first iteration, or the inputs of a sub-workflow."""
    form: Mapping[str, Any] | None = None
    """workflow only: input name -> its JSON Schema."""
    vars: Mapping[str, Any] | None = None
    """workflow only: its variables."""
    cases: tuple[str, ...] = ()
    """switch only: the values of the first members as texts (`case_text`); one more member is the default."""
    value: Mapping[str, Any] | None = None
    """The template that is evaluated as the scope's result; None: the result comes from its members."""
    returns: Mapping[str, Any] | None = None
    """The JSON Schema that its value must fit."""
    timeout_ms: int | None = None
    timeout: str | None = None
    """The template of a duration, in place of `timeout_ms`."""
    concurrency: Concurrency | None = None
    hooks: tuple[HookPlan, ...] = field(name="handlers", default=())
    catches: tuple[CatchPlan, ...] = ()
    """The first that fits runs when the scope is about to become FAILED; its outcome replaces that of the scope."""
    cleanup: int | None = None
    """The `finally`: the sub-plan that runs last, whatever the outcome."""
    undo: bool = False


AnyPlan = LeafPlan | WaitPlan | EventPlan | EmitPlan | ApprovalPlan | ScopePlan


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The compiled workflow. `digest` covers all other fields, and is empty in the encoded form that it is computed
    from."""

    nodes: tuple[AnyPlan, ...]
    options: tuple[Options, ...] = (Options(),)
    vars: Mapping[str, Any] = {}
    origin: str = ""
    """The task that added this plan to its run, if the plan contains encoded values."""
    digest: str = ""
