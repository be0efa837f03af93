"""Putting arguments in place of the parameters that an expression reads, on its tree and not on its text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from stemflow.expr.parse import Source
from stemflow.expr.scope import CONSTANTS
from stemflow.expr.template import CLOSE, OPEN, closing

_PATHS = (ast.Attribute, ast.Subscript)
_MISSING = object()


class CannotSubstitute(Exception):
    """An argument that cannot be in the place where the parameter is read; the message is a sentence about it."""


def is_constant(value: Any) -> bool:
    """Whether a tree holds no expression."""
    if isinstance(value, str):
        return OPEN not in value
    if isinstance(value, dict):
        return all(map(is_constant, value.values()))
    return not isinstance(value, list) or all(map(is_constant, value))


def names_read(value: Any) -> frozenset[str]:
    """The names that the expressions of a tree begin with, and `steps.NAME` for each step. Raises ExpressionError."""
    if isinstance(value, dict):
        return frozenset().union(*map(names_read, value.values()))
    if isinstance(value, list):
        return frozenset().union(*map(names_read, value))
    found: set[str] = set()
    for node in (node for tree in _trees(value) for node in ast.walk(tree)):
        if isinstance(node, ast.Name) and node.id not in CONSTANTS:
            found.add(node.id)
        elif isinstance(node, _PATHS) and isinstance(node.value, ast.Name) and node.value.id == "steps":
            found.add(f"steps.{_key(node)}")
    return frozenset(found)


def parameter_alone(text: str, root: str) -> str | None:
    """NAME, if the text is `${{ root.NAME }}` and nothing else; the argument itself can be in its place then."""
    if not _fills(text):
        return None
    return _parameter(Source(text.strip()[len(OPEN) : -len(CLOSE)]).parse(), root)


def with_arguments(text: str, bare: bool, root: str, given: Mapping[str, Any]) -> str:
    """The text, or bare expression, in which each `root.NAME` is replaced by `given[NAME]`, a tree of a template.

    Raises CannotSubstitute, ExpressionError.
    """
    if bare:
        start = text.find(OPEN)
        inner = text if start < 0 else text[start + len(OPEN) : closing(text, start)]
        return _replaced(Source(inner).parse(), root, given)

    def piece(tree: ast.expr) -> str:
        name = _parameter(tree, root)
        if name is not None and isinstance(given.get(name), str):
            return str(given[name])
        return f"{OPEN} {_replaced(tree, root, given)} {CLOSE}"

    return _pieces(text, piece)


def _fills(text: str) -> bool:
    """Whether a text is one expression and nothing else."""
    alone = text.strip()
    return alone.startswith(OPEN) and closing(alone, 0) + len(CLOSE) == len(alone)


def _pieces(text: str, piece: Callable[[ast.expr], str]) -> str:
    parts, done = [], 0
    while (start := text.find(OPEN, done)) >= 0:
        end = closing(text, start)
        parts += [text[done:start], piece(Source(text[start + len(OPEN) : end]).parse())]
        done = end + len(CLOSE)
    return "".join([*parts, text[done:]])


def _trees(value: Any) -> list[ast.expr]:
    found: list[ast.expr] = []
    if isinstance(value, str):
        _pieces(value, lambda tree: found.append(tree) or "")  # type: ignore[func-returns-value]
    return found


def _replaced(tree: ast.expr, root: str, given: Mapping[str, Any]) -> str:
    trees = {name: _tree(name, value) for name, value in given.items()}
    loops = {
        target.id
        for clause in ast.walk(tree) if isinstance(clause, ast.comprehension)
        for target in ast.walk(clause.target) if isinstance(target, ast.Name)
    }  # fmt: skip
    for name, value in given.items():
        hidden = loops & names_read(value)
        if hidden:
            raise CannotSubstitute(f"`{root}.{name}` reads `{min(hidden)}`, which a loop in this expression hides")
    try:
        return ast.unparse(_Replace(root, given, trees).visit(deepcopy(tree)))
    except ValueError as error:  # quotes in an f-string, before Python 3.12
        raise CannotSubstitute(f"the arguments cannot be put into this expression: {error}") from None


class _Replace(ast.NodeTransformer):
    def __init__(self, root: str, given: Mapping[str, Any], trees: Mapping[str, Callable[[], ast.expr]]) -> None:
        self.root, self.given, self.trees = root, given, trees

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`has` and `get` want a path, which a plain value has not: they are answered here."""
        if isinstance(node.func, ast.Name) and node.func.id in ("has", "get") and node.args:
            value = self._known(node.args[0])
            name = _parameter(node.args[0], self.root)
            if value is None and name is not None and name in self.given:
                if isinstance(self.given[name], str):
                    return self._evaluated(node, node.func.id, name)
                value = (self.given[name],)  # a list or an object that is written out
            if value is not None and node.func.id == "has":
                return ast.Name("false" if value[0] in (_MISSING, None) else "true")
            if value is not None and value[0] not in (_MISSING, None):
                return literal(value[0])
            if value is not None:
                return self.visit(node.args[1]) if len(node.args) > 1 else ast.Name("null")
        return self.generic_visit(node)

    def _evaluated(self, node: ast.Call, function: str, name: str) -> ast.AST:
        """`has` or `get` of a parameter whose argument is an expression or a text around some."""
        if not _fills(self.given[name]):
            return ast.Name("true") if function == "has" else self.trees[name]()
        if isinstance(self.trees[name](), (ast.Name, *_PATHS)):
            return self.generic_visit(node)
        there = ast.Compare(self.trees[name](), [ast.NotEq()], [ast.Name("null")])
        if function == "has":
            return there
        default = self.visit(node.args[1]) if len(node.args) > 1 else ast.Name("null")
        return ast.IfExp(there, self.trees[name](), default)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self._path(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        return self._path(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id != self.root:
            return node
        return ast.Dict([ast.Constant(name) for name in self.trees], [tree() for tree in self.trees.values()])

    def _path(self, node: ast.Attribute | ast.Subscript) -> ast.AST:
        name = _parameter(node, self.root)
        return self.trees[name]() if name is not None and name in self.trees else self.generic_visit(node)

    def _known(self, node: ast.expr) -> tuple[Any] | None:
        """The value at a path into a plain argument, in a tuple; None where it is not known."""
        name = _parameter(node, self.root)
        if name is not None:
            value = self.given.get(name, _MISSING)
            return (value,) if value is _MISSING or is_constant(value) else None
        if not isinstance(node, _PATHS) or (key := _key(node)) is None:
            return None
        inside = self._known(node.value)
        if inside is None:
            return None
        try:
            return (inside[0][key],)
        except (KeyError, IndexError, TypeError):
            return (_MISSING,)


def _key(node: ast.Attribute | ast.Subscript) -> Any:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.slice.value if isinstance(node.slice, ast.Constant) else None


def _parameter(node: ast.AST, root: str) -> str | None:
    """NAME, if the node is `root.NAME`."""
    if isinstance(node, _PATHS) and isinstance(node.value, ast.Name) and node.value.id == root:
        key = _key(node)
        return key if isinstance(key, str) else None
    return None


def _tree(name: str, value: Any) -> Callable[[], ast.expr]:
    """Makes the tree of an argument, each time a new one."""
    return lambda: literal(value, name)


def literal(value: Any, name: str = "") -> ast.expr:
    """The tree of an expression that gives `value`, whose texts may hold expressions. Raises CannotSubstitute."""
    match value:
        case None | True | False:
            return ast.Name({None: "null", True: "true", False: "false"}[value])
        case dict():
            return ast.Dict([ast.Constant(key) for key in value], [literal(one, name) for one in value.values()])
        case list():
            return ast.List([literal(one, name) for one in value])
        case str() if OPEN in value:
            if _fills(value):
                return Source(value.strip()[len(OPEN) : -len(CLOSE)]).parse()
            raise CannotSubstitute(f"`{name}` is a text around expressions, and the template reads it in an expression")
        case int() | float() if value < 0:
            return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)
