"""The keys under which the starts of a task are counted. They are evaluated once, so a store sees only final keys."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from stemflow.core.work import Work
from stemflow.model.effects import GateError
from stemflow.model.plan import LeafPlan
from stemflow.model.policy import Options
from stemflow.model.rates import Rate
from stemflow.model.records import Node

TENANT = "tenant"
"""The header whose value is the default rate limit key."""
NOBODY = "global"
"""The default rate limit key of tasks without that header."""


def given_keys(options: Options) -> tuple[str, ...]:
    """The keys as written: one per limit, and last that of the group; an empty one is the default."""
    return (*[one.key for one in options.rate_limits], options.group_key or "")


def is_late(options: Options) -> bool:
    """Whether a key is an expression."""
    return any("${{" in key for key in given_keys(options))


def rate_key(given: str, task: str, headers: Mapping[str, str]) -> str:
    return given or f"{task}:{headers.get(TENANT) or NOBODY}"


def group_key(given: str, options: Options, headers: Mapping[str, str]) -> str:
    return f"group:{given or headers.get(options.group_header) or NOBODY}"


def limits_of(w: Work, node: Node, leaf: LeafPlan, options: Options) -> tuple[Rate, ...] | GateError:
    """All limits under which a task starts, each with its key."""
    given = w.gate(node.key, "rate_limit") if is_late(options) else given_keys(options)
    if isinstance(given, GateError):
        return given
    headers = {**w.header(node.run).headers, **leaf.headers}
    pairs = [(one, rate_key(key, leaf.task, headers)) for one, key in zip(options.rate_limits, given, strict=False)]
    shared = group_key(given[-1], options, headers)
    pairs += [(one, shared) for one in options.group_rates]
    return tuple(structs.replace(one, key=key) for one, key in pairs)
