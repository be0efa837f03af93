"""From a checked tree to closures: what an expression may contain is what has a method here."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection
from typing import Any

from stemflow.expr.access import AccessCompiler
from stemflow.expr.calls import CallCompiler
from stemflow.expr.errors import ExpressionError, Refusal, Span
from stemflow.expr.limits import Frame, number
from stemflow.expr.loops import LoopCompiler
from stemflow.expr.node import FAULTS, Evaluator, constant, explain
from stemflow.expr.operators import BINARY, COMPARE, Binary, affirm, join_parts, negate, text_of
from stemflow.expr.parse import Source
from stemflow.expr.texts import check_format, formatted
from stemflow.expr.values import describe

_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("functions cannot be defined in an expression", "write [... for x in list]"),
    ast.NamedExpr: ("an expression cannot assign", "use a step of kind 'set'"),
    ast.Set: ("there are no sets in JSON", "write a list: [a, b]"),
    ast.SetComp: ("there are no sets in JSON", "write [... for x in list]"),
    ast.Tuple: ("there are no tuples in JSON", "write a list: [a, b]"),
    ast.Starred: ("'*' cannot unpack a list here", "write list + list"),
    ast.Await: ("an expression cannot wait", "use a step of kind 'wait'"),
    ast.Yield: ("an expression cannot yield", "write [... for x in list]"),
    ast.YieldFrom: ("an expression cannot yield", "write [... for x in list]"),
    ast.BitOr: ("'|' is not an operator here", "write 'or', or merge(a, b) for objects"),
    ast.BitAnd: ("'&' is not an operator here", "write 'and'"),
    ast.BitXor: ("'^' is not an operator here", "write '**' for a power, '!=' for exclusive or"),
    ast.LShift: ("'<<' is not an operator here", "write a * 2**b"),
    ast.RShift: ("'>>' is not an operator here", "write a // 2**b"),
    ast.MatMult: ("'@' is not an operator here", "put quotes around a text"),
    ast.Invert: ("'~' is not an operator here", "write 'not'"),
    ast.GeneratorExp: ("a loop in (...) is allowed only inside a call", "write [... for x in list]"),
}


class Compiler(AccessCompiler, CallCompiler, LoopCompiler):
    """One expression on its way to a closure; `scope` gathers what it reads."""

    def __init__(self, source: Source, names: Collection[str]) -> None:
        super().__init__(source, names)
        self._methods: dict[type[ast.expr], Callable[[Any], Evaluator]] = {
            ast.Constant: self._constant,
            ast.Name: self.path,
            ast.Attribute: self.path,
            ast.Subscript: self.path,
            ast.BinOp: self._binary,
            ast.UnaryOp: self._unary,
            ast.BoolOp: self._boolean,
            ast.Compare: self._compare,
            ast.IfExp: self._choice,
            ast.JoinedStr: self._text,
            ast.List: self._list,
            ast.Dict: self._dict,
            ast.Call: self.call,
            ast.ListComp: self.list_loop,
            ast.DictComp: self.dict_loop,
        }

    def compile(self, node: ast.expr) -> Evaluator:
        method = self._methods.get(type(node))
        if method is None:
            raise self._refused(node, node)
        return method(node)

    def _refused(self, node: ast.expr, what: ast.AST) -> ExpressionError:
        message, hint = _REFUSED.get(
            type(what),
            (f"{type(what).__name__} has no place in an expression", "see the page on expressions"),
        )
        return self.scope.error(node, message, hint)

    def _constant(self, node: ast.Constant) -> Evaluator:
        value = node.value
        if value is not None and not isinstance(value, (bool, int, float, str)):
            raise self.scope.error(node, f"a {type(value).__name__} literal is not JSON", "write a text or a number")
        if isinstance(value, (int, float)):
            try:
                number(value)
            except Refusal as refusal:
                raise refusal.at(self.scope.source.span(node)) from None
        return constant(value)

    def _binary(self, node: ast.BinOp) -> Evaluator:
        work = BINARY.get(type(node.op))
        if work is None:
            raise self._refused(node, node.op)
        return _two(work, self.compile(node.left), self.compile(node.right), self.scope.source.span(node))

    def _unary(self, node: ast.UnaryOp) -> Evaluator:
        value = self.compile(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda frame: not value(frame)
        if isinstance(node.op, ast.Invert):
            raise self._refused(node, node.op)
        work = negate if isinstance(node.op, ast.USub) else affirm
        span = self.scope.source.span(node)

        def unary(frame: Frame) -> Any:
            try:
                return work(frame, value(frame))
            except FAULTS as fault:
                raise explain(fault, span) from None

        return unary

    def _boolean(self, node: ast.BoolOp) -> Evaluator:
        *others, last = [self.compile(part) for part in node.values]
        stops_at = isinstance(node.op, ast.Or)

        def boolean(frame: Frame) -> Any:
            for part in others:
                value = part(frame)
                if bool(value) is stops_at:
                    return value
            return last(frame)

        return boolean

    def _compare(self, node: ast.Compare) -> Evaluator:
        for operator, side in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, (ast.Is, ast.IsNot)) and not _is_single(side):
                raise self.scope.error(node, "'is' compares only with null, true and false", "write '=='")
        first, *rest = [self.compile(side) for side in (node.left, *node.comparators)]
        span = self.scope.source.span(node)
        works = [COMPARE[type(operator)] for operator in node.ops]
        if len(works) == 1:
            return _two(works[0], first, rest[0], span)
        links = list(zip(works, rest, strict=True))

        def chained(frame: Frame) -> Any:
            left = first(frame)
            for work, side in links:
                right = side(frame)
                try:
                    if not work(frame, left, right):
                        return False
                except FAULTS as fault:
                    raise explain(fault, span) from None
                left = right
            return True

        return chained

    def _choice(self, node: ast.IfExp) -> Evaluator:
        test, yes, no = self.compile(node.test), self.compile(node.body), self.compile(node.orelse)
        return lambda frame: yes(frame) if test(frame) else no(frame)

    def _list(self, node: ast.List) -> Evaluator:
        parts = [self.compile(part) for part in node.elts]
        return lambda frame: [part(frame) for part in parts]

    def _dict(self, node: ast.Dict) -> Evaluator:
        pairs: list[tuple[Evaluator, Evaluator]] = []
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise self.scope.error(value, "'**' cannot unpack an object here", "write merge(a, b)")
            pairs.append((self.key(key), self.compile(value)))
        return lambda frame: {key(frame): value(frame) for key, value in pairs}

    def key(self, node: ast.expr) -> Evaluator:
        """The key of an object, which must be a text."""
        value, span = self.compile(node), self.scope.source.span(node)

        def key(frame: Frame) -> Any:
            found = value(frame)
            if isinstance(found, str):
                return found
            message = f"expected a text as the key of an object, got {describe(found)}"
            raise ExpressionError(message, *span, 'write f"{key}"')

        return key

    def _text(self, node: ast.JoinedStr) -> Evaluator:
        parts = [self._part(part) for part in node.values]
        span = self.scope.source.span(node)

        def text(frame: Frame) -> Any:
            try:
                return join_parts(frame, [part(frame) for part in parts])
            except FAULTS as fault:
                raise explain(fault, span) from None

        return text

    def _part(self, node: ast.expr) -> Evaluator:
        if not isinstance(node, ast.FormattedValue):
            return self.compile(node)
        if node.conversion != -1:
            raise self.scope.error(node, "conversions such as '!r' and '=' are not supported", "write json(value)")
        value, spec, span = self.compile(node.value), self._format(node), self.scope.source.span(node.value)

        def part(frame: Frame) -> Any:
            try:
                found = value(frame)
                return formatted(frame, found, spec) if spec else text_of(found, whole=False)
            except FAULTS as fault:
                raise explain(fault, span) from None

        return part

    def _format(self, node: ast.FormattedValue) -> str:
        if not isinstance(node.format_spec, ast.JoinedStr) or not node.format_spec.values:
            return ""
        spec = node.format_spec.values[0]
        if len(node.format_spec.values) > 1 or not isinstance(spec, ast.Constant) or not isinstance(spec.value, str):
            raise self.scope.error(node.value, "the format must be constant", "write a format such as '.2f'")
        try:
            check_format(spec.value)
        except Refusal as refusal:
            raise refusal.at(self.scope.source.span(node.value)) from None
        return spec.value


def _two(work: Binary, left: Evaluator, right: Evaluator, span: Span) -> Evaluator:
    def binary(frame: Frame) -> Any:
        try:
            return work(frame, left(frame), right(frame))
        except FAULTS as fault:
            raise explain(fault, span) from None

    return binary


def _is_single(node: ast.expr) -> bool:
    """None, True or False, in either spelling."""
    if isinstance(node, ast.Name):
        return node.id in ("null", "true", "false")
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))
