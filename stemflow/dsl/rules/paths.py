"""Paths in expressions, such as `steps.pay.output`, and those that an expression tests before it reads them."""

from __future__ import annotations

import ast

from stemflow.dsl.expressions import Read
from stemflow.dsl.rules.environment import Environment
from stemflow.dsl.rules.types import ANY, Type
from stemflow.expr.plain import plain_path

Path = tuple[str, ...]


def type_of_path(text: str, read: Read, environment: Environment) -> Type | None:
    """The type of an expression that is fields of a name and nothing else; None where there may be something to report
    of it, for which its tree is needed, and for any other expression."""
    name, *fields = plain_path(text) or ("",)
    if name not in read.names:
        return None
    if name == "steps":
        found, fields = environment.step(fields[0], read) or ANY, fields[1:]
    else:
        found = environment.type_of(name, read)
    for field in fields:
        if found.maybe or (found.kinds is not None and field not in found.fields):
            return None
        if found.kinds is None:
            return ANY
        found = found.fields[field]
    return found


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
