"""`defaults` of a file: what every task has, and what the tasks of a name or prefix have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ANY_BELOW = ".*"
"""The end of a pattern that is for every task whose name begins with what is before it, and a dot."""


class Layer(NamedTuple):
    """Defaults for some tasks. `options` are those of the step itself; `retry` has parameters of RetryPolicy.of, which
    the `retry` of a step completes, unless it is a list (`listed`)."""

    options: Mapping[str, Any] = {}
    retry: Mapping[str, Any] = {}
    listed: bool = False
    args: Mapping[str, Any] = {}
    env: Mapping[str, Any] = {}

    def under(self, other: Layer) -> Layer:
        """This, with `other` where it says more."""
        has_retry = "retry" in other.options
        return Layer(
            {**self.options, **other.options},
            other.retry if has_retry else self.retry,
            other.listed if has_retry else self.listed,
            {**self.args, **other.args},
            {**self.env, **other.env},
        )


def fits(pattern: str, task: str) -> bool:
    """Whether the defaults under `pattern` are for `task`."""
    return task == pattern or (pattern.endswith(ANY_BELOW) and task.startswith(pattern[:-1]))


def by_precision(patterns: Mapping[str, Any]) -> list[str]:
    """The patterns, the least precise first: prefixes by length, then names."""
    return sorted(patterns, key=lambda one: (not one.endswith(ANY_BELOW), len(one), one))
