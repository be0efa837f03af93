"""What a piece of source may name, and what the finished expression reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from stemflow.expr.errors import ExpressionError, Reference
from stemflow.expr.functions import FUNCTION_NAMES, INSTEAD
from stemflow.expr.parse import Source
from stemflow.expr.values import did_you_mean, listing

CONSTANTS = {"true": True, "false": False, "null": None}
NULLS = dict.fromkeys(("none", "nil", "undefined"), "write null")
LOOPS = 2


class Scope:
    """Names of one expression: those of the environment, loop variables (by slot), and references found."""

    def __init__(self, source: Source, names: Collection[str]) -> None:
        self.source = source
        self.names = names
        self.loops: list[dict[str, int]] = []
        self.slots = 0
        self.references: list[Reference] = []
        self.optional = False
        self.dates = False  # whether the value may hold dates, which leave as text

    @contextmanager
    def reading(self, *, optional: bool) -> Iterator[None]:
        """Mark the references found meanwhile as optional, or not: what they name need not exist."""
        outside, self.optional = self.optional, optional
        try:
            yield
        finally:
            self.optional = outside

    def may_give_dates(self) -> None:
        """The value of the expression may hold dates."""
        self.dates = True

    def error(
        self, node: ast.expr | ast.keyword | ast.comprehension, message: str, hint: str | None = None
    ) -> ExpressionError:
        """An error at `node`."""
        return ExpressionError(message, *self.source.span(node), hint)

    def slot(self, name: str) -> int | None:
        """The slot of the loop variable `name`, the innermost first."""
        for loop in reversed(self.loops):
            if name in loop:
                return loop[name]
        return None

    def bind(self, node: ast.Name) -> int:
        """A slot for the loop variable `node` in the innermost loop."""
        if node.id in FUNCTION_NAMES or node.id in CONSTANTS or node.id.startswith("__"):
            raise self.error(node, f"'{node.id}' cannot be the name of a loop variable", "choose another name")
        self.loops[-1][node.id] = self.slots
        self.slots += 1
        return self.slots - 1

    def refer(self, node: ast.expr) -> None:
        """Record the path at `node` if it begins with a name of the environment."""
        parts: list[str] = []
        base = node
        while not isinstance(base, ast.Name):
            if isinstance(base, ast.Attribute):
                parts.append(base.attr)
            elif isinstance(base, ast.Subscript):
                key = constant_key(base.slice)
                # What follows an index that is not constant is not part of the path.
                parts = [] if key is None else [*parts, key]
                if key is None:
                    node = base.value
            else:
                return
            base = base.value
        if self.slot(base.id) is None and base.id not in CONSTANTS:
            path = (base.id, *reversed(parts))
            self.references.append(Reference(path, self.optional, *self.source.span(node)))

    def unknown(self, node: ast.Name) -> ExpressionError:
        """What to say of a name that is not available."""
        if node.id in FUNCTION_NAMES:
            return self.error(node, f"'{node.id}' is a function", f"call it: {node.id}(...)")
        known = [*self.names, *(name for loop in self.loops for name in loop)]
        hint = self._dashed(node) or NULLS.get(node.id.lower()) or did_you_mean(node.id, known)
        hint = hint or "put quotes around it if it is a text"
        return self.error(node, f"unknown name '{node.id}'; available here: {listing(known)}", hint)

    def _dashed(self, node: ast.Name) -> str | None:
        """The hint for `steps.my-step`, which reads as a subtraction."""
        before = re.search(r"\.([\w-]+)-$", self.source.text[: self.source.span(node).column - self.source.offset])
        return f"write ['{before[1]}-{node.id}'] for the key" if before else None

    def unknown_function(self, node: ast.expr, name: str) -> ExpressionError:
        """What to say of a call of something that is not in the table."""
        hint = INSTEAD.get(name) or did_you_mean(name, FUNCTION_NAMES)
        return self.error(
            node, f"there is no function '{name}'", hint or f"there are: {' '.join(sorted(FUNCTION_NAMES))}"
        )


def constant_key(node: ast.expr) -> str | None:
    """A constant index as written in a reference's path."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = constant_key(node.operand)
        return None if inner is None else f"-{inner}"
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
        return str(node.value)
    return None
