"""Steps that hold no worker: those that wait for time, an event or a person, and those that send an event."""

from __future__ import annotations

from typing import Any, NamedTuple

from stemflow.dsl.context import Context
from stemflow.dsl.expressions import Expressions
from stemflow.dsl.findings import Findings
from stemflow.dsl.inputs import read_inputs
from stemflow.dsl.named_types import NamedTypes
from stemflow.dsl.options import OptionReader
from stemflow.dsl.source import Node
from stemflow.model.signature import EVENT_KEPT_MS, ApprovalSig, EmitSig, EventSig, WaitSig


class WaitingBuilder(NamedTuple):
    """Builds their signatures; `common` has what a step of any kind may have."""

    findings: Findings
    expressions: Expressions
    options: OptionReader
    types: NamedTypes

    def wait(self, body: Node, context: Context, common: dict[str, Any]) -> WaitSig[Any, Any] | None:
        span, until = body.get("for"), body.get("until")
        if "for" in body.members and "until" in body.members:
            self.findings.error("SF013", f"{context.path}: expected `for` or `until`, got both", body.keys["until"])
        if "for" not in body.members and "until" not in body.members:
            self.findings.error("SF015", f"{context.path}: expected `for` or `until`, got none", context.place)
        if until is not None:
            self.expressions.template(until, context.names, context.path)
            return WaitSig(for_ms=0, until=str(until.value), **common)
        if span is not None and isinstance(span.value, str) and "${{" in span.value:
            self.expressions.template(span, context.names, context.path)
            return WaitSig(for_ms=0, span=span.value, **common)
        for_ms = self.options.duration_ms(body, "for")
        return None if for_ms is None else WaitSig(for_ms=for_ms, **common)


    def _limit(self, body: Node, context: Context) -> dict[str, Any]:
        """`timeout` of a step that waits: a duration, or an expression that gives one."""
        limit = body.get("timeout")
        if limit is not None and isinstance(limit.value, str) and "${{" in limit.value:
            self.expressions.template(limit, context.names, context.path)
            return {"limit": limit.value}
        return {"limit_ms": self.options.duration_ms(body, "timeout")}

    def event(self, body: Node, context: Context, common: dict[str, Any]) -> EventSig[Any, Any] | None:
        kind = body.text("type")
        match = self.expressions.condition(body.get("match"), context.names | {"event"}, context.path)
        how = {"on_timeout": body.text("on_timeout") or "fail", **self._limit(body, context)}
        if "on_timeout" in body.members and "timeout" not in body.members:
            self.findings.error("SF015", f"{context.path}: `on_timeout` has no meaning without `timeout`",
                                body.keys["on_timeout"], "write timeout: 1h")  # fmt: skip
        return None if kind is None else EventSig(event_type=kind, match=match, **how, **common)

    def emit(self, body: Node, context: Context, common: dict[str, Any]) -> EmitSig[Any, Any] | None:
        kind, data, id = body.text("type"), body.get("data"), body.get("id")
        self.expressions.template(data, context.names, context.path)
        self.expressions.template(id, context.names, context.path)
        keep_ms = self.options.duration_ms(body, "keep")
        if kind is None:
            return None
        return EmitSig(
            event_type=kind,
            data=None if data is None else data.value,
            id=None if id is None else str(id.value),
            keep_ms=EVENT_KEPT_MS if keep_ms is None else keep_ms,
            **common,
        )

    def approval(self, body: Node, context: Context, common: dict[str, Any]) -> ApprovalSig[Any, Any]:
        message, by = body.get("message"), body.get("by")
        self.expressions.template(message, context.names, context.path)
        how: dict[str, Any] = self._limit(body, context)
        for key in ("on_timeout", "on_reject"):
            if (value := body.text(key)) is not None:
                how[key] = value
        if "on_timeout" in body.members and "timeout" not in body.members:
            self.findings.error("SF015", f"{context.path}: `on_timeout` has no meaning without `timeout`",
                                body.keys["on_timeout"], "write timeout: 1h")  # fmt: skip
        names = () if by is None or by.flawed else (by.value,) if isinstance(by.value, str) else tuple(by.value)
        return ApprovalSig(
            by=names,
            message=None if message is None else str(message.value),
            form=read_inputs(body.get("inputs"), self.types),
            **how,
            **common,
        )
