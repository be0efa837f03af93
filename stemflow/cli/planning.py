"""What a workflow would do, computed from its graph, its inputs and the skip rule of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stemflow.compile.desugar import desugar
from stemflow.compile.edges import dependencies
from stemflow.core.skip_rule import Source, admitted
from stemflow.expr import ExpressionError, parse_condition
from stemflow.model.plan import EdgeKind
from stemflow.model.policy import RetryPolicy, normalise
from stemflow.model.signature import (
    AnySig,
    ApprovalSig,
    ChainSig,
    ChordSig,
    EmitSig,
    EventSig,
    GroupSig,
    MapSig,
    StepsSig,
    SwitchSig,
    TaskSig,
    WaitSig,
)
from stemflow.model.tree import members_of, walk
from stemflow.model.workflow import Workflow

_KNOWN = ("inputs", "vars")
_STRONGEST: tuple[EdgeKind, ...] = ("data", "order", "optional")


@dataclass(slots=True)
class PlannedStep:
    """One step of the workflow's graph. `holds` and `items` are None where the inputs do not decide them.

    `end` is how it would end: `ok`, `failed`, `skipped` (by a condition) or `upstream`; `worst_ms` None: no limit.
    """

    sig: AnySig
    kind: str
    waits: tuple[tuple[str, EdgeKind], ...]
    condition: str | None = None
    holds: bool | None = None
    items: int | None = None
    worst_ms: int | None = None
    end: str = "ok"
    failed_before: bool = False
    """Whether a step further up fails, and not with `on_error: continue`."""


class Planner:
    """The steps of a workflow in an order in which they may run. A body that is no graph counts as one step `body`."""

    def __init__(self, workflow: Workflow, inputs: Mapping[str, Any]) -> None:
        self.workflow = workflow
        self._env = {"inputs": dict(inputs), "vars": dict(workflow.vars)}
        body = desugar(workflow.body)
        found = {step.name or "": step for step in body.steps} if isinstance(body, StepsSig) else {"body": body}
        self.steps = {name: self._planned(step, found) for name, step in found.items()}
        self.order = self._ordered()

    def _planned(self, sig: AnySig, siblings: Mapping[str, AnySig]) -> PlannedStep:
        kinds: dict[str, set[str]] = {}
        for source, kind in dependencies(sig):
            if source in siblings and siblings[source] is not sig:
                kinds.setdefault(source, set()).add(kind)
        waits = tuple((name, next(k for k in _STRONGEST if k in found)) for name, found in kinds.items())
        step = PlannedStep(sig, type(sig).__name__.removesuffix("Sig").lower(), waits, sig.when)
        if sig.when is not None:
            step.holds = self._evaluated(sig.when, bool)
        if isinstance(sig, MapSig):
            fixed = isinstance(sig.items, tuple)
            if sig.matrix is None and sig.batch is None:
                step.items = len(sig.items) if fixed else self._evaluated(str(sig.items), len)  # type: ignore[arg-type]
        step.worst_ms = self._worst(sig, step.items)
        return step

    def _evaluated(self, expression: str, read: Any) -> Any:
        """The value of an expression over inputs and vars alone; None where it needs more."""
        try:
            found = parse_condition(expression, _KNOWN)
            return read(found(self._env))
        except (ExpressionError, TypeError):
            return None

    def _ordered(self) -> list[str]:
        order: list[str] = []
        waiting = dict(self.steps)
        while waiting:
            ready = [name for name, step in waiting.items() if all(source not in waiting for source, _ in step.waits)]
            order += ready
            for name in ready:
                del waiting[name]
        return order

    def settle(self, failing: str | None) -> None:
        """Work out how each step ends; conditions that the inputs do not decide count as true."""
        for name in self.order:
            step = self.steps[name]
            sources: list[Source] = [
                (kind, self.steps[source].end, self.steps[source].sig.on_error)
                for source, kind in step.waits
            ]
            step.failed_before = any(
                before.failed_before or (before.end == "failed" and before.sig.on_error != "continue")
                for before in (self.steps[source] for source, _ in step.waits)
            )
            cause = admitted(step.sig.run_on, sources, step.failed_before)
            if cause is not None:
                step.end = cause
            elif step.holds is False:
                step.end = "skipped"
            else:
                step.end = "failed" if name == failing else "ok"

    def undone(self) -> list[str]:
        """The steps that a failed run would undo, the last first; none unless the workflow compensates on failure."""
        failed = [step for step in self.steps.values() if step.end == "failed" and step.sig.on_error == "fail"]
        if not failed or "failed" not in self.workflow.compensate_on:
            return []
        done = [name for name in reversed(self.order) if self.steps[name].end == "ok"]
        return [name for name in done if _has_undo(self.steps[name].sig)]

    def longest(self) -> list[str]:
        """The path through the graph that takes longest, by worst-case time where it is known, else by steps."""
        known = self.worst_case_ms() is not None
        best: dict[str, tuple[float, list[str]]] = {}
        for name in self.order:
            before = max((best[source] for source, _ in self.steps[name].waits), default=(0.0, []), key=lambda b: b[0])
            own = float(self.steps[name].worst_ms or 0) if known else 1.0
            best[name] = (before[0] + own, [*before[1], name])
        return max(best.values(), default=(0.0, []), key=lambda found: (found[0], len(found[1])))[1]

    def worst_case_ms(self) -> int | None:
        """The longest time of any path; None where a step has no limit."""
        ends: dict[str, int] = {}
        for name in self.order:
            step = self.steps[name]
            if step.worst_ms is None:
                return None
            ends[name] = step.worst_ms + max((ends[source] for source, _ in step.waits), default=0)
        return max(ends.values(), default=0)

    def _worst(self, sig: AnySig, items: int | None) -> int | None:
        """The longest that a step may take once it has started, in ms; None without a limit."""
        limits = [] if isinstance(sig, TaskSig) or sig.timeout_ms is None else [sig.timeout_ms]
        inner = self._worst_inside(sig, items)
        if inner is not None:
            limits.append(inner)
        return min(limits) if limits else None

    def _worst_inside(self, sig: AnySig, items: int | None) -> int | None:
        if isinstance(sig, WaitSig):
            return sig.for_ms if sig.span is None and sig.until is None else None
        if isinstance(sig, (EventSig, ApprovalSig)):
            return sig.limit_ms
        if isinstance(sig, EmitSig):
            return 0
        if isinstance(sig, TaskSig):
            return self._worst_task(sig)
        members = [self._worst(member, None) for _, member in members_of(sig)]
        times = [one for one in members if one is not None]
        if not times or len(times) < len(members):
            return None
        if isinstance(sig, MapSig):
            turns = None if items is None else -(-items // sig.window) if isinstance(sig.window, int) else 1
            return None if turns is None else turns * times[0]
        if isinstance(sig, ChainSig):
            return sum(times)
        if isinstance(sig, ChordSig):
            return max(times[:-1], default=0) + times[-1]
        return max(times) if isinstance(sig, (GroupSig, SwitchSig)) else None

    def _worst_task(self, sig: TaskSig[Any, Any]) -> int | None:
        options = normalise({**self.workflow.task_defaults, **sig.options}, "plan")
        hard = options.get("hard_ms", options.get("hard_time_limit_ms"))
        retries = options.get("max_retries")
        if not isinstance(hard, int) or not isinstance(retries, int):
            return None
        policy = options.get("retry", RetryPolicy())
        delays = sum(_delays(one, one.max_retries or 0) for one in policy.rules) or _delays(policy, retries)
        return round((retries + 1) * hard + delays)


def _delays(policy: RetryPolicy, retries: int) -> float:
    """The longest that the delays of so many retries take together, in milliseconds."""
    return sum(min(policy.initial_ms * policy.factor**i, policy.max_ms) for i in range(min(retries, 1_000)))


def _has_undo(sig: AnySig) -> bool:
    return any(one.compensate is not None for _, one in walk(sig))
