"""What every compiled node is, and how a fault inside it becomes an error with a place."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any

from stemflow.expr.errors import ExpressionError, ExpressionLimitError, Refusal, Span
from stemflow.expr.limits import Frame
from stemflow.expr.parse import Source
from stemflow.expr.scope import Scope

Evaluator = Callable[[Frame], Any]

# What Python itself raises when an operation does not fit its values; each leaves as an ExpressionError.
FAULTS = (Refusal, TypeError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError)


class NodeCompiler(ABC):
    """What the parts of the compiler need of the whole."""

    def __init__(self, source: Source, names: Collection[str]) -> None:
        self.scope = Scope(source, names)

    @abstractmethod
    def compile(self, node: ast.expr) -> Evaluator:
        """The closure that evaluates `node`."""

    @abstractmethod
    def key(self, node: ast.expr) -> Evaluator:
        """The closure that evaluates `node` as the key of an object."""

    @abstractmethod
    def lazy(self, node: ast.Call, name: str) -> Evaluator:
        """The closure of `has(path)` or `get(path, default)`."""

    @abstractmethod
    def generator(self, node: ast.GeneratorExp) -> Evaluator:
        """The closure of `... for x in list` as the argument of a call, evaluated as far as it is read."""


def constant(value: Any) -> Evaluator:
    """A closure that gives `value`."""
    return lambda frame: value


def explain(fault: Exception, span: Span) -> ExpressionError:
    """The public error for what went wrong while evaluating the node at `span`."""
    if isinstance(fault, Refusal):
        return fault.at(span)
    if isinstance(fault, ZeroDivisionError):
        return ExpressionError("division by zero", *span)
    if isinstance(fault, OverflowError):
        return ExpressionError("the number is too large", *span)
    if isinstance(fault, (RecursionError, MemoryError)):
        return ExpressionLimitError("the values are nested too deeply or too large to work on", *span)
    # Messages of TypeError and ValueError name types, and at most a bad argument such as a format.
    return ExpressionError(f"the values do not fit the operation: {fault}", *span)
