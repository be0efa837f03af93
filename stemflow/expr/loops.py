"""Comprehensions: lists, objects, and generators inside a call, at most one loop inside another."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from stemflow.expr.errors import Refusal, Span
from stemflow.expr.limits import Frame
from stemflow.expr.node import FAULTS, Evaluator, NodeCompiler, explain
from stemflow.expr.scope import LOOPS
from stemflow.expr.values import describe, elements

T = TypeVar("T")
Binder = Callable[[Frame, Any], None]
Rows = Callable[[Frame], Iterator[None]]


class _Clause(NamedTuple):
    """One `for target in items if conditions`; each turn costs `weight` steps."""

    items: Evaluator
    bind: Binder
    conditions: list[Evaluator]
    weight: int
    span: Span


class LoopCompiler(NodeCompiler):
    """The part of the compiler that repeats."""

    def list_loop(self, node: ast.ListComp) -> Evaluator:
        """`[element for x in list]`."""
        rows, element = self._loop(node, lambda: self.compile(node.elt))
        return lambda frame: [element(frame) for _ in rows(frame)]

    def generator(self, node: ast.GeneratorExp) -> Evaluator:
        """`element for x in list`, inside a call."""
        rows, element = self._loop(node, lambda: self.compile(node.elt))
        return lambda frame: (element(frame) for _ in rows(frame))

    def dict_loop(self, node: ast.DictComp) -> Evaluator:
        """`{key: value for x in list}`."""
        rows, (key, value) = self._loop(node, lambda: (self.key(node.key), self.compile(node.value)))
        return lambda frame: {key(frame): value(frame) for _ in rows(frame)}

    def _loop(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, body: Callable[[], T]) -> tuple[Rows, T]:
        """The closure that walks the clauses, and the body compiled where their variables are known."""
        if len(self.scope.loops) + len(node.generators) > LOOPS:
            message = f"loops are nested deeper than {LOOPS} levels"
            raise self.scope.error(node, message, "split it over two steps")
        depth = len(self.scope.loops)
        clauses = [self._clause(generator, _cost(node)) for generator in node.generators]
        compiled = body()
        del self.scope.loops[depth:]
        return _rows(clauses), compiled

    def _clause(self, node: ast.comprehension, weight: int) -> _Clause:
        if node.is_async:
            raise self.scope.error(node, "an expression cannot wait", "write 'for' alone")
        items, span = self.compile(node.iter), self.scope.source.span(node.iter)
        self.scope.loops.append({})
        bind = self._binder(node.target)
        conditions = [self.compile(condition) for condition in node.ifs]

        def visited(frame: Frame) -> Any:
            try:
                return elements(items(frame))
            except FAULTS as fault:
                raise explain(fault, span) from None

        return _Clause(visited, bind, conditions, weight, span)

    def _binder(self, target: ast.expr) -> Binder:
        if isinstance(target, ast.Name):
            slot = self.scope.bind(target)

            def bind(frame: Frame, value: Any) -> None:
                frame.slots[slot] = value

            return bind
        if isinstance(target, (ast.Tuple, ast.List)):
            return self._unpacker(target)
        raise self.scope.error(target, "expected the name of a loop variable", "write 'for x in list'")

    def _unpacker(self, target: ast.Tuple | ast.List) -> Binder:
        names = [name for name in target.elts if isinstance(name, ast.Name)]
        if len(names) < len(target.elts):
            raise self.scope.error(target, "expected names of loop variables", "write 'for a, b in list'")
        slots = [self.scope.bind(name) for name in names]
        span = self.scope.source.span(target)

        def bind(frame: Frame, value: Any) -> None:
            if not isinstance(value, (list, str)) or len(value) != len(slots):
                got = f"{describe(value)} of {len(value)}" if isinstance(value, (list, str)) else describe(value)
                raise Refusal(f"expected a list of {len(slots)} to unpack, got {got}").at(span)
            for slot, part in zip(slots, value, strict=True):
                frame.slots[slot] = part

        return bind


def _cost(node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> int:
    """Steps of one turn: its size stands for the work that it does."""
    body: list[ast.expr] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    for generator in node.generators:
        body += generator.ifs
    return 1 + sum(isinstance(part, ast.expr) for root in body for part in ast.walk(root)) // 4


def _rows(clauses: list[_Clause]) -> Rows:
    """Bind the loop variables to one combination after the other."""
    clause, *inner = clauses
    items, bind, conditions, weight, span = clause
    below = _rows(inner) if inner else None

    def rows(frame: Frame) -> Iterator[None]:
        for value in items(frame):
            try:
                frame.charge(weight)
            except Refusal as refusal:
                raise refusal.at(span) from None
            bind(frame, value)
            if all(condition(frame) for condition in conditions):
                if below is None:
                    yield
                else:
                    yield from below(frame)

    return rows
