"""Steps that run one body many times: for each item of a list, or until a condition."""

from __future__ import annotations

import keyword
from collections.abc import Callable
from typing import Any, NamedTuple

from stemflow.dsl.context import Context
from stemflow.dsl.expressions import Expressions
from stemflow.dsl.findings import Findings, describe
from stemflow.dsl.source import Node
from stemflow.dsl.vocabulary import NAMES
from stemflow.expr.functions import FUNCTION_NAMES
from stemflow.expr.scope import CONSTANTS
from stemflow.model.signature import AnySig, LoopSig, MapSig

EACH = "[*]"
"""Last part of the path of what a map does for each item."""


class RepeatedBuilder(NamedTuple):
    """Builds their signatures; `step` builds the body, `common` has what a step of any kind may have."""

    findings: Findings
    expressions: Expressions
    step: Callable[[Node, Context], AnySig | None]

    def map(self, body: Node, context: Context, common: dict[str, Any]) -> MapSig[Any, Any] | None:
        do, batch = body.get("do"), body.get("batch")
        var, index_var = self._variable(body, "as", "item"), self._variable(body, "index", "index")
        if var == index_var:
            node = body.members.get("index") or body.members["as"]
            self.findings.error("SF012", f"map: `{var}` cannot be the name of the item and of its index", node.place,
                                "choose another name")  # fmt: skip
        source = self._items(body, context)
        if do is None:
            return None
        names = context.names | {var, index_var}
        each = self.step(do, context.inner(EACH, body.keys["do"], names))
        if each is None or source is None:
            return None
        size, window = self._number(batch, context), self._number(body.get("concurrency"), context)
        items, matrix = source
        if isinstance(items, tuple) and isinstance(size, int):
            items = tuple(list(items[start : start + size]) for start in range(0, len(items), size))
            size = None
        elif isinstance(items, tuple) and batch is not None and size is not None:
            self.findings.error("SF203", "map.batch: expected a plain number for items that are a list", batch.place,
                                "write the number, or make the items an expression")  # fmt: skip
        return MapSig(
            do=each, items=items, matrix=matrix, batch=size, var=var, index_var=index_var, window=window, **common
        )

    def _items(self, body: Node, context: Context) -> tuple[str | tuple[Any, ...], dict[str, Any] | None] | None:
        """The items of a map: plain values, an expression, or a matrix, which is computed here if it can be."""
        items, matrix = body.get("items"), body.get("matrix")
        if "items" in body.members and "matrix" in body.members:
            self.findings.error("SF013", f"{context.path}: expected `items` or `matrix`, got both", body.keys["matrix"])
        if "items" not in body.members and "matrix" not in body.members:
            self.findings.error("SF015", f"{context.path}: expected `items` or `matrix`, got none", context.place)
        if items is not None and isinstance(items.value, list):
            self.expressions.refuse(items, "map.items")
            return tuple(items.value), None
        if items is not None:
            source = self.expressions.condition(items, context.names, context.path)
            return None if source is None else (source, None)
        if matrix is None or not matrix.is_sound():
            return None
        self.expressions.template(matrix, context.names, context.path)
        for name, node in matrix.members.items():
            if not isinstance(node.value, list) and not (isinstance(node.value, str) and "${{" in node.value):
                self.findings.error("SF011", f"map.matrix.{name}: expected a list or an expression, got "
                                    f"{describe(node.value)}", node.place)  # fmt: skip
                return None
        return "", dict(matrix.value)

    def _number(self, node: Node | None, context: Context) -> Any:
        """A number, or the template that gives it."""
        if node is None:
            return None
        if isinstance(node.value, str) and "${{" not in node.value:
            self.findings.error("SF011", f"expected a whole number or an expression, got {describe(node.value)}",
                                node.place)  # fmt: skip
            return None
        self.expressions.template(node, context.names, context.path)
        return node.value

    def loop(self, body: Node, context: Context, common: dict[str, Any]) -> LoopSig[Any, Any] | None:
        do, limit, carry = body.get("do"), body.get("max"), body.get("carry")
        names = context.names | {"carry", "index"}
        before = self.expressions.condition(body.get("while"), names, context.path)
        after = self.expressions.condition(body.get("until"), names, context.path)
        self.expressions.template(carry, context.names, context.path)
        if "while" in body.members and "until" in body.members:
            self.findings.error("SF013", f"{context.path}: expected `while` or `until`, got both", body.keys["until"],
                                "write one condition with `and`, `or`, `not`")  # fmt: skip
        if limit is None and before is None and after is None:
            self.findings.error("SF015", f"{context.path}: expected `while`, `until` or `max`, got none", context.place)
        if do is None:
            return None
        each = self.step(do, context.inner(EACH, body.keys["do"], names))
        if each is None:
            return None
        return LoopSig(
            do=each,
            on=before if after is None else after,
            until=after is not None,
            carry=None if carry is None else carry.value,
            limit=self._number(limit, context) or 1_000,
            **common,
        )

    def _variable(self, body: Node, key: str, default: str) -> str:
        node = body.get(key)
        name = default if node is None else str(node.value)
        taken = name in NAMES or name in FUNCTION_NAMES or name in CONSTANTS or keyword.iskeyword(name)
        if node is not None and taken:
            self.findings.error("SF012", f"map.{key}: `{name}` already means something in expressions", node.place,
                                "choose another name")  # fmt: skip
        return name
