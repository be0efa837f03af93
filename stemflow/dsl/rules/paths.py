"""Paths in expressions, such as `steps.pay.output`, and those that an expression tests before it reads them."""

from __future__ import annotations

import ast

from stemflow.expr.scope import CONSTANTS

Path = tuple[str, ...]


def is_plain_path(node: ast.expr) -> bool:
    """Whether the expression is fields of a name and nothing else, as most are."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id not in CONSTANTS


def path_of(node: ast.expr) -> Path | None:
    """The names and constant keys of a path; None where it is not one."""
    parts: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            parts.append(str(node.slice.value))
        else:
            return None
        node = node.value
    return (node.id, *reversed(parts))


def tested_paths(tree: ast.expr) -> set[Path]:
    """Paths that the expression itself tests: by has(), get(), a comparison with null, or as a condition."""
    found: set[Path] = set()
    for node in ast.walk(tree):
        tested: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("has", "get"):
            tested += node.args[:1]
        elif isinstance(node, ast.Compare):
            tested += [node.left, *node.comparators]
        elif isinstance(node, ast.BoolOp):
            tested += node.values
        elif isinstance(node, ast.IfExp):
            tested.append(node.test)
        found.update(path for one in tested if (path := path_of(one)) is not None)
    return found
