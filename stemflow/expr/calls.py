"""Calls of the fixed table of functions."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Final

from stemflow.expr.dates import instant_of
from stemflow.expr.errors import ExpressionError, Reference
from stemflow.expr.functions import DATE_FUNCTIONS, FUNCTION_NAMES, FUNCTIONS, LAZY, Function
from stemflow.expr.limits import Frame
from stemflow.expr.node import FAULTS, Evaluator, NodeCompiler, explain
from stemflow.expr.values import field, listing

CLOCK: Final = ("run", "created_at_ms")
"""The path that `now()` and `today()` read: the same in every attempt and replay of a run."""


class CallCompiler(NodeCompiler):
    """The part of the compiler that calls."""

    def call(self, node: ast.Call) -> Evaluator:
        """A call by name; anything else that is called has no name in the table."""
        name = self._called(node)
        if name in LAZY:
            return self.lazy(node, name)
        function = FUNCTIONS[name]
        self._check_arguments(node, name, function)
        arguments = [self._argument(argument) for argument in node.args]
        keywords = [(str(keyword.arg), self._argument(keyword.value)) for keyword in node.keywords]
        span = self.scope.source.span(node)
        work = self._with_clock(node, name, function) if function.clock else function.call
        if name in DATE_FUNCTIONS:
            self.scope.may_give_dates()

        def call(frame: Frame) -> Any:
            try:
                return work(
                    frame,
                    *[argument(frame) for argument in arguments],
                    **{keyword: value(frame) for keyword, value in keywords},
                )
            except FAULTS as fault:
                error = explain(fault, span)
                raise type(error)(f"{name}(): {error.message}", *span, error.hint) from None

        return call

    def _with_clock(self, node: ast.Call, name: str, function: Function) -> Callable[..., Any]:
        """The function with the instant of the run in front of its arguments; it is a reference to the run."""
        if "run" not in self.scope.names:
            message = f"{name}() reads the run's clock, and there is no run here"
            raise self.scope.error(node, message, f"available here: {listing(self.scope.names)}")
        self.scope.references.append(Reference(CLOCK, False, *self.scope.source.span(node)))
        work = function.call

        def with_clock(frame: Frame, *arguments: Any) -> Any:
            at_ms = field(field(frame.env, CLOCK[0]), CLOCK[1])
            return work(frame, instant_of(at_ms), *arguments)

        return with_clock

    def _called(self, node: ast.Call) -> str:
        called = node.func
        if isinstance(called, ast.Name):
            if called.id in FUNCTION_NAMES:
                return called.id
            raise self.scope.unknown_function(called, called.id)
        if isinstance(called, ast.Attribute):
            hint = "call functions by name, as in len(value)"
            if called.attr in FUNCTION_NAMES:
                hint = f"write {called.attr}(value)"
            raise self.scope.error(node, f"values have no methods such as '.{called.attr}()'", hint)
        raise self.scope.error(node, "only a function of the table can be called", "write its name before '('")

    def _argument(self, node: ast.expr) -> Evaluator:
        return self.generator(node) if isinstance(node, ast.GeneratorExp) else self.compile(node)

    def _check_arguments(self, node: ast.Call, name: str, function: Function) -> None:
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                raise self.scope.error(argument, "'*' cannot unpack a list here", f"write {function.usage}")
        for keyword in node.keywords:
            if keyword.arg not in function.keywords:
                what = f"'{keyword.arg}='" if keyword.arg else "'**'"
                raise self.scope.error(keyword, f"{name}() takes no argument {what}", f"write {function.usage}")
        given = len(node.args)
        if given < function.least or (function.most is not None and given > function.most):
            raise self._miscounted(node, name, function)

    def _miscounted(self, node: ast.Call, name: str, function: Function) -> ExpressionError:
        expected = str(function.least)
        if function.most is None:
            expected = f"at least {expected}"
        elif function.most != function.least:
            expected = f"{expected} to {function.most}"
        message = (
            f"{name}() takes {expected} argument{'' if expected in ('1', 'at least 1') else 's'}, got {len(node.args)}"
        )
        return self.scope.error(node, message, f"write {function.usage}")
