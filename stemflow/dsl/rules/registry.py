"""The rules: one function each, with the code and severity of its findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from stemflow.dsl.findings import Position
from stemflow.dsl.rules.view import View

Severity = Literal["error", "warning"]


class Found(NamedTuple):
    """A finding of a rule; its code and severity are the rule's, unless it names a severity itself."""

    message: str
    place: Position
    hint: str | None = None
    severity: Severity | None = None


class Rule(NamedTuple):
    """A rule that looks at a whole file."""

    code: str
    severity: Severity
    check: Callable[[View], Iterator[Found]]


RULES: list[Rule] = []
"""Every rule, in the order of the modules that define them."""


def rule(
    code: str, severity: Severity = "error"
) -> Callable[[Callable[[View], Iterator[Found]]], Callable[[View], Iterator[Found]]]:
    """Register a function as the rule `code`."""

    def register(check: Callable[[View], Iterator[Found]]) -> Callable[[View], Iterator[Found]]:
        RULES.append(Rule(code, severity, check))
        return check

    return register
