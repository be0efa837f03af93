"""Names, fields, indexes and slices; `get` and `has`, which read a path without insisting on it."""

from __future__ import annotations

import ast
from typing import Any

from stemflow.expr.errors import ExpressionError, Span
from stemflow.expr.functions import LAZY
from stemflow.expr.limits import Frame
from stemflow.expr.node import FAULTS, Evaluator, NodeCompiler, constant, explain
from stemflow.expr.scope import CONSTANTS
from stemflow.expr.values import MISSING, cut, field, index, soft_field, soft_index

PATHS = (ast.Name, ast.Attribute, ast.Subscript)


class AccessCompiler(NodeCompiler):
    """The part of the compiler that reads data."""

    def path(self, node: ast.expr) -> Evaluator:
        """A whole path: it is one reference, whatever it passes through."""
        self.scope.refer(node)
        strict = self._strict(node)
        keys = self.plain_keys(node)
        return _plain_path(keys, strict) if keys is not None else strict

    def plain_keys(self, node: ast.expr) -> tuple[str, ...] | None:
        """The keys of a path of fields below a name of the environment; None for any other path."""
        keys: list[str] = []
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Attribute):
                keys.append(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) \
                    and isinstance(node.slice.value, str):  # fmt: skip
                keys.append(node.slice.value)
            else:
                return None
            node = node.value
        if not keys or self.scope.slot(node.id) is not None or node.id in CONSTANTS:
            return None
        return (node.id, *reversed(keys))

    def _strict(self, node: ast.expr) -> Evaluator:
        if isinstance(node, ast.Name):
            return self._name(node, required=True)
        span = self._member_span(node)
        if isinstance(node, ast.Attribute):
            return _strict_field(self._strict(node.value), self._attribute(node), span)
        if isinstance(node, ast.Subscript):
            value = self._strict(node.value)
            if isinstance(node.slice, ast.Slice):
                return self._slice(value, node.slice, span)
            return _strict_index(value, self.compile(node.slice), span)
        return self.compile(node)

    def _attribute(self, node: ast.Attribute) -> str:
        if node.attr.startswith("__"):
            raise self.scope.error(node, f"'.{node.attr}' is not a field of JSON data", "fields are keys of objects")
        return node.attr

    def _member_span(self, node: ast.expr) -> Span:
        """The `.field` or `[index]` itself: what is before it is correct."""
        span = self.scope.source.span(node)
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            return Span(min(self.scope.source.span(node.value).end, span.end - 1), span.end)
        return span

    def _name(self, node: ast.Name, required: bool) -> Evaluator:
        name, span, slot = node.id, self.scope.source.span(node), self.scope.slot(node.id)
        if slot is not None:
            return lambda frame: frame.slots[slot]
        if name in CONSTANTS:
            return constant(CONSTANTS[name])
        if name not in self.scope.names or name.startswith("__"):
            raise self.scope.unknown(node)
        if not required:
            return lambda frame: frame.env.get(name, MISSING)

        def read(frame: Frame) -> Any:
            try:
                return frame.env[name]
            except KeyError:
                message = f"'{name}' has no value here"
                raise ExpressionError(message, *span, f"write get({name}, default)") from None

        return read

    def _slice(self, value: Evaluator, bounds: ast.Slice, span: Span) -> Evaluator:
        parts = [
            constant(None) if bound is None else self.compile(bound)
            for bound in (bounds.lower, bounds.upper, bounds.step)
        ]

        def sliced(frame: Frame) -> Any:
            try:
                return cut(frame, value(frame), *(part(frame) for part in parts))
            except FAULTS as fault:
                raise explain(fault, span) from None

        return sliced

    def lazy(self, node: ast.Call, name: str) -> Evaluator:
        """`has(path)` and `get(path, default)`."""
        most = 1 if name == "has" else 2
        if node.keywords or not 1 <= len(node.args) <= most:
            raise self.scope.error(node, f"{name}() got arguments that it does not take", f"write {LAZY[name]}")
        target = node.args[0]
        if not isinstance(target, PATHS) or (isinstance(target, ast.Name) and target.id in CONSTANTS):
            raise self.scope.error(target, f"{name}() takes a path first", f"write {name}(steps.ship.output)")
        outside = self.scope.optional
        with self.scope.reading(optional=True):
            value = self._lenient_path(target, outside)
            default = self.compile(node.args[1]) if len(node.args) == 2 else constant(None)

        def has(frame: Frame) -> bool:
            found = value(frame)
            return found is not MISSING and found is not None

        def get(frame: Frame) -> Any:
            found = value(frame)
            return default(frame) if found is MISSING or found is None else found

        return has if name == "has" else get

    def _lenient_path(self, node: ast.expr, outside: bool) -> Evaluator:
        self.scope.refer(node)
        return self._lenient(node, outside)

    def _lenient(self, node: ast.expr, outside: bool) -> Evaluator:
        if isinstance(node, ast.Name):
            return self._name(node, required=False)
        if isinstance(node, ast.Attribute):
            value, name = self._lenient(node.value, outside), self._attribute(node)
            return lambda frame: soft_field(value(frame), name)
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            value = self._lenient(node.value, outside)
            key = self._lenient_key(node.slice, outside)
            return lambda frame: soft_index(value(frame), key(frame))
        # What is not a path insists on what it reads, as it would outside of get() and has().
        with self.scope.reading(optional=outside):
            return self.compile(node)

    def _lenient_key(self, node: ast.expr, outside: bool) -> Evaluator:
        if isinstance(node, PATHS):
            return self._lenient_path(node, outside)
        return self._lenient(node, outside)


def _plain_path(keys: tuple[str, ...], strict: Evaluator) -> Evaluator:
    """Reads the whole path in one loop; `strict` is asked where that fails, and says what is wrong."""

    def read(frame: Frame) -> Any:
        value: Any = frame.env
        try:
            for key in keys:
                value = value[key]
        except (KeyError, TypeError, IndexError):
            return strict(frame)
        return value

    return read


def _strict_field(value: Evaluator, name: str, span: Span) -> Evaluator:
    def read(frame: Frame) -> Any:
        found = value(frame)
        if type(found) is dict and name in found:
            return found[name]
        try:
            return field(found, name)
        except FAULTS as fault:
            raise explain(fault, span) from None

    return read


def _strict_index(value: Evaluator, key: Evaluator, span: Span) -> Evaluator:
    def read(frame: Frame) -> Any:
        try:
            return index(value(frame), key(frame))
        except FAULTS as fault:
            raise explain(fault, span) from None

    return read
