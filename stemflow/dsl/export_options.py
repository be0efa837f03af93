"""Options of tasks -> keys of a workflow file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemflow.errors import StemflowError
from stemflow.model.policy import Concurrency, RetryPolicy, normalise
from stemflow.model.rates import Rate
from stemflow.units import format_duration

Document = dict[str, Any]


class CannotExport(StemflowError):
    """A signature that a workflow file cannot hold; the message says which part."""


def timeout_document(timeout_ms: int | None, template: str | None, found: Document) -> Document:
    """The timeout of a step; that of a task may have a soft limit in `found`."""
    if template is None:
        return {} if timeout_ms is None else {"timeout": format_duration(timeout_ms)}
    soft = found.get("timeout")
    return {"timeout": {**soft, "hard": template} if isinstance(soft, dict) else template}


def options_document(given: Mapping[str, Any], path: str) -> Document:
    """The options of a task by the keys of the file."""
    left = normalise(given, path)
    found: Document = {}
    for key in ("queue", "priority"):
        if key in left:
            found[key] = left.pop(key)
    limits = {key: left.pop(field, None) for key, field in (("soft", "soft_ms"), ("hard", "hard_ms"))}
    limits = {key: format_duration(value) for key, value in limits.items() if value is not None}
    if limits:
        found["timeout"] = limits if "soft" in limits else limits["hard"]
    retry = _retry(left.pop("retry", None), left.pop("max_retries", None))
    if retry:
        found["retry"] = retry
    for key, field in (("rate_limit", "rate_limits"), ("group_rate_limit", "group_rates")):
        if rates := left.pop(field, ()):
            found[key] = [_rate(one) for one in rates]
    names = {"group_rate_key": "group_key", "group_rate_key_header": "group_header",
             "group_rate_limiter_failure_mode": "group_failure"}  # fmt: skip
    for key, field in names.items():
        if (value := left.pop(field, None)) is not None:
            found[key] = value
    if left.pop("cached", False):
        found["cache"] = _cache(left)
    elif "unique" in left:
        found["unique"] = _unique(left)
    if (limited := left.pop("concurrency", None)) is not None:
        found["concurrency"] = concurrency_document(limited)
    if (expires_ms := left.pop("expires_ms", None)) is not None:
        found["expires"] = format_duration(expires_ms)
    if left:
        raise CannotExport(f"{path}: a workflow file cannot hold the options {', '.join(sorted(left))}; give them to "
                           "the task where it is registered")  # fmt: skip
    return found


def _retry(policy: RetryPolicy | None, most: int | None) -> Any:
    found: Document = {} if most is None else {"max": most}
    if policy is None:
        return found
    if policy.rules:
        return [_rule(one) for one in policy.rules]
    if policy.paced:
        usual = RetryPolicy()
        pauses = {"initial": format_duration(policy.initial_ms), "max": format_duration(policy.max_ms)}
        given = {**pauses, "factor": policy.factor, "jitter": policy.jitter}
        normal = {"initial": format_duration(usual.initial_ms), "max": format_duration(usual.max_ms),
                  "factor": usual.factor, "jitter": usual.jitter}  # fmt: skip
        found["backoff"] = {"kind": policy.backoff, **{k: v for k, v in given.items() if v != normal[k]}}
    for key in ("retry_on", "never_retry_on"):
        if names := getattr(policy, key):
            found[key] = list(names)
    if policy.when is not None:
        found["when"] = policy.when
    if policy.budget_ms is not None:
        found["budget"] = format_duration(policy.budget_ms)
    return found


def _rule(policy: RetryPolicy) -> Document:
    """One policy of a list."""
    found: Document = _retry(policy, policy.max_retries)
    if "retry_on" in found:
        found["on"] = found.pop("retry_on")
    return found


def _rate(rate: Rate) -> Document:
    found: Document = {"limit": rate.limit, "per": format_duration(rate.per_ms)}
    if rate.key:
        found["key"] = rate.key
    if rate.burst:
        found.update(burst=rate.burst, pace=True)
    return found


def _unique(left: dict[str, Any]) -> Any:
    on, key, for_ms, mode = (left.pop(one, None) for one in ("unique", "unique_by", "unique_for_ms", "unique_mode"))
    if not on:
        return False
    if key is not None and not isinstance(key, str):
        raise CannotExport("unique_by: expected an expression, got a function")
    found: Document = {} if key is None else {"key": key}
    if for_ms is not None:
        found["for"] = format_duration(for_ms)
    if mode is not None:
        found["on_conflict"] = mode
    return found or True


def _cache(left: dict[str, Any]) -> Document:
    _, key, ttl_ms, _, _ = (
        left.pop(one, None) for one in ("unique", "unique_by", "unique_for_ms", "unique_mode", "unique_key")
    )
    if key is not None and not isinstance(key, str):
        raise CannotExport("cache: key: expected an expression, got a function")
    return {"ttl": format_duration(ttl_ms), **({} if key is None else {"key": key})}


def concurrency_document(limited: Concurrency) -> Document:
    return {"key": limited.key, "limit": limited.limit}
