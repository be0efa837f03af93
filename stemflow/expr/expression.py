"""One compiled expression."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from stemflow.expr.compiler import Compiler
from stemflow.expr.dates import as_json
from stemflow.expr.errors import Reference, Span
from stemflow.expr.limits import STEPS, Frame, check_result
from stemflow.expr.node import FAULTS, Evaluator, explain
from stemflow.expr.parse import Source
from stemflow.expr.plain import plain_path, plain_reference
from stemflow.expr.scope import CONSTANTS

# These give back data as they found it: there is nothing new to measure.
_PASSING = (ast.Name, ast.Attribute, ast.Subscript)


class Expression:
    """A compiled expression: call it with an environment of JSON data; what it gives back may share parts with that.

    `references` are the paths that it reads; columns count from the start of the scalar that holds it.
    """

    __slots__ = ("_dates", "_evaluate", "_keys", "_passing", "_slots", "_span", "references", "source")

    def __init__(
        self,
        source: str,
        references: tuple[Reference, ...],
        evaluate: Evaluator,
        slots: int,
        span: Span,
        passing: bool,
        dates: bool,
        keys: tuple[str, ...] | None,
    ) -> None:
        self.source = source
        self.references = references
        self._evaluate = evaluate
        self._slots = slots
        self._span = span
        self._passing = passing and not dates
        self._dates = dates
        self._keys = keys

    def __call__(self, env: Mapping[str, Any], steps: int = STEPS) -> Any:
        """The value of the expression; raise ExpressionError, ExpressionLimitError beyond `steps` steps."""
        if self._keys is not None:
            # A path of fields, which most expressions are: no budget is needed to read it.
            try:
                value: Any = env
                for key in self._keys:
                    value = value[key]
                return value
            except (KeyError, TypeError):
                pass  # evaluated below, which says what is wrong
        try:
            value = self._evaluate(Frame(env, self._slots, steps))
            if self._dates:
                value = as_json(value)
            if not self._passing:
                check_result(value)
        except FAULTS as fault:
            raise explain(fault, self._span) from None
        return value

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"


def compile_expression(source: str, names: Collection[str]) -> Expression:
    """Compile `source`, which may use `names`; raise ExpressionError with the place of what is wrong."""
    return compile_at(source, frozenset(names), 0)


@lru_cache(maxsize=4096)
def compile_at(source: str, names: frozenset[str], offset: int) -> Expression:
    """Compile `source`, which begins `offset` characters into its scalar."""
    keys = plain_path(source)
    if keys is None or keys[0] not in names or keys[0] in CONSTANTS:
        return _of_tree(source, names, offset)
    reference, span = plain_reference(source, keys, offset)

    def evaluate(frame: Frame) -> Any:
        # The keys do not lead to a value: the tree says why, or reads what is not a field.
        return _of_tree(source, names, offset)._evaluate(frame)

    return Expression(source.strip(), (reference,), evaluate, 0, span, True, False, keys)


@lru_cache(maxsize=4096)
def _of_tree(source: str, names: frozenset[str], offset: int) -> Expression:
    origin = Source(source, offset)
    tree = origin.parse()
    compiler = Compiler(origin, names)
    try:
        evaluate = compiler.compile(tree)
    except RecursionError as fault:
        raise explain(fault, origin.whole()) from None
    scope = compiler.scope
    passing = isinstance(tree, _PASSING)
    references = _guarded(scope.references)
    keys = compiler.plain_keys(tree)
    return Expression(source.strip(), references, evaluate, scope.slots, origin.whole(), passing, scope.dates, keys)


def _guarded(references: list[Reference]) -> tuple[Reference, ...]:
    """The references; those to a step that the same expression tests with `has` or `get` are optional, too."""
    tested = {one.path[:2] for one in references if one.optional and len(one.path) > 1 and one.path[0] == "steps"}
    return tuple(replace(one, optional=True) if one.path[:2] in tested else one for one in references)
