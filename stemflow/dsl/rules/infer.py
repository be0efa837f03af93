"""The types of expressions, and what in them cannot be or can never be meant.

The tree is the one that the expression is compiled from; only what is certain is reported.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from stemflow.dsl.expressions import Read
from stemflow.dsl.findings import did_you_mean
from stemflow.dsl.rules.environment import Environment
from stemflow.dsl.rules.function_types import ARGUMENTS, RESULTS
from stemflow.dsl.rules.operators import Fault, arithmetic, comparison
from stemflow.dsl.rules.paths import Path, path_of, tested_paths, type_of_path
from stemflow.dsl.rules.pieces import Piece, pieces
from stemflow.dsl.rules.registry import Found, Severity
from stemflow.dsl.rules.types import (
    ANY,
    BOOLEAN,
    NULL,
    NUMBER,
    STRING,
    Type,
    array_of,
    object_of,
    of_value,
    union,
)
from stemflow.dsl.rules.view import TaskFacts, View
from stemflow.dsl.source import Node
from stemflow.expr.errors import ExpressionError, ExpressionLimitError, Refusal
from stemflow.expr.expression import compile_at
from stemflow.expr.limits import STEPS, Frame
from stemflow.expr.parse import Source
from stemflow.expr.pattern import matches
from stemflow.expr.scope import CONSTANTS

PATHS = (ast.Name, ast.Attribute, ast.Subscript)
CLOCK = frozenset({"now", "today"})
"""Functions whose value is not the same in every run."""
MOST_STEPS = 2_000
"""Work spent on the value of a constant expression."""


class Inference:
    """Works out the types of all expressions of a file; `found` has (code, finding)."""

    def __init__(self, view: View, tasks: TaskFacts | None = None) -> None:
        self.view = view
        self.found: list[tuple[str, Found]] = []
        self.environment = Environment(view, self.of_node, tasks)
        self._reads = {id(read.node): read for read in view.reads}
        self._types: dict[int, Type] = {}
        self._done: set[tuple[int, str]] = set()

    def of_node(self, node: Node) -> Type:
        """The type of the value that a scalar with an expression gives; anything where it cannot be read."""
        read = self._reads.get(id(node))
        if read is not None:
            return self.of_read(read)
        return ANY if isinstance(node.value, str) else of_value(node.value)

    def of_read(self, read: Read) -> Type:
        """The type of one read scalar; its findings are reported once."""
        key = id(read.node)
        if key not in self._types:
            self._types[key] = ANY  # while it is worked out
            self._types[key] = self._scalar(read)
        return self._types[key]

    def _scalar(self, read: Read) -> Type:
        found: Type | None = None
        for piece in pieces(read):
            one = type_of_path(piece.text, read, self.environment)
            if one is None or (one.is_unprintable() and not (piece.whole or read.bare)):
                one = _Expression(self, read, piece).type()
            found = one if piece.whole else STRING
        return ANY if found is None else found


class _Expression:
    """One expression; methods are named for the nodes of its tree."""

    def __init__(self, inference: Inference, read: Read, piece: Piece) -> None:
        self.inference, self.read, self.piece = inference, read, piece
        self.source = Source(piece.text, piece.offset)
        self.loops: list[dict[str, Type]] = []
        self.guarded: set[Path] = set()
        self.lenient = 0

    def type(self) -> Type:
        try:
            tree = self.source.parse()
        except ExpressionError:
            return ANY
        self.guarded = tested_paths(tree)
        before = len(self.inference.found)
        found = self.visit(tree)
        if len(self.inference.found) == before and not self._reads_anything(tree):
            found = self._evaluated(tree)
        if not self.piece.whole and not self.read.bare:
            self._interpolated(tree, found)
        return found

    def report(
        self,
        code: str,
        node: ast.expr | ast.keyword,
        message: str,
        hint: str | None = None,
        severity: Severity | None = None,
    ) -> None:
        span = self.source.span(node)
        place = self.inference.view.at(self.read, span.column, span.end)
        self.inference.found.append((code, Found(message, place, hint, severity)))

    # -- the whole

    def _reads_anything(self, tree: ast.expr) -> bool:
        names = CLOCK | self.read.names
        return any(isinstance(node, ast.Name) and node.id in names for node in ast.walk(tree))

    def _evaluated(self, tree: ast.expr) -> Type:
        """The value of an expression that reads nothing."""
        try:
            value = compile_at(self.piece.text, self.read.names, self.piece.offset)({}, MOST_STEPS)
        except ExpressionLimitError:
            return ANY
        except ExpressionError as error:
            self.report("SF218", tree, f"this expression always fails: {error.message}", error.hint)
            return ANY
        return of_value(value)

    def _interpolated(self, tree: ast.expr, found: Type) -> None:
        if found.kinds == NULL.kinds:
            self.report("SF217", tree, "null cannot be put into a text", "write get(path, '') for what replaces it")
        elif found.is_unprintable():
            self.report("SF217", tree, f"{found.words()} cannot be put into a text", "write json(...) around it")

    # -- nodes

    def visit(self, node: ast.expr) -> Type:
        if isinstance(node, PATHS):
            return self._read_path(node)
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self.visit(child)
            return ANY
        found: Type = method(node)
        return found

    def _joinedstr(self, node: ast.JoinedStr) -> Type:
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)
        return STRING

    def _constant(self, node: ast.Constant) -> Type:
        return of_value(node.value)

    def _boolop(self, node: ast.BoolOp) -> Type:
        return union([self.visit(one) for one in node.values])

    def _ifexp(self, node: ast.IfExp) -> Type:
        self.visit(node.test)
        return union([self.visit(node.body), self.visit(node.orelse)])

    def _unaryop(self, node: ast.UnaryOp) -> Type:
        found = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return BOOLEAN
        if found.never("integer", "number", "boolean"):
            self.report("SF216", node, f"expected a number after the sign, got {found.words()}")
        return found if found.only("integer") else NUMBER

    def _list(self, node: ast.List) -> Type:
        return array_of(union([self.visit(one) for one in node.elts]) if node.elts else None, len(node.elts))

    def _dict(self, node: ast.Dict) -> Type:
        fields: dict[str, Type] = {}
        closed = True
        for key, value in zip(node.keys, node.values, strict=True):
            given = self.visit(value)
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                fields[key.value] = given
            else:
                closed = False
                if key is not None:
                    self.visit(key)
        return object_of(fields, closed)

    # -- loops

    def _listcomp(self, node: ast.ListComp) -> Type:
        with_items = self._looped(node.generators, [node.elt])
        return array_of(with_items[0])

    def _generatorexp(self, node: ast.GeneratorExp) -> Type:
        return array_of(self._looped(node.generators, [node.elt])[0])

    def _dictcomp(self, node: ast.DictComp) -> Type:
        self._looped(node.generators, [node.key, node.value])
        return object_of({}, closed=False)

    def _looped(self, clauses: list[ast.comprehension], body: list[ast.expr]) -> list[Type]:
        before = len(self.loops)
        for clause in clauses:
            over = self.visit(clause.iter)
            if over.never("array", "object", "string"):
                self.report("SF216", clause.iter, f"expected a list to loop over, got {over.words()}")
            self.loops.append({})
            one = over.items if over.only("array") and over.items is not None else ANY
            for name in ast.walk(clause.target):
                if isinstance(name, ast.Name):
                    self.loops[-1][name.id] = one if name is clause.target else ANY
            for condition in clause.ifs:
                self.visit(condition)
        found = [self.visit(one) for one in body]
        del self.loops[before:]
        return found

    # -- operators

    def _binop(self, node: ast.BinOp) -> Type:
        found = arithmetic(node.op, self.visit(node.left), self.visit(node.right))
        if isinstance(found, Fault):
            self.report("SF216", node, found.message, found.hint)
            return ANY
        return found

    def _compare(self, node: ast.Compare) -> Type:
        left = self.visit(node.left)
        for operator, part in zip(node.ops, node.comparators, strict=True):
            right = self.visit(part)
            if isinstance(operator, (ast.In, ast.NotIn)):
                if right.never("array", "object", "string"):
                    self.report("SF216", part, f"expected a list, an object or a text after 'in', got {right.words()}")
            elif (fault := comparison(operator, left, right)) is not None:
                code = "SF210" if isinstance(operator, (ast.Eq, ast.NotEq)) else "SF216"
                self.report(code, node, fault.message, fault.hint)
            left = right
        return BOOLEAN

    # -- paths

    def _read_path(self, node: ast.expr) -> Type:
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Attribute):
            return self._member(node, node.value, node.attr)
        assert isinstance(node, ast.Subscript)
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            return self._member(node, node.value, node.slice.value)
        return self._index(node)

    def _name(self, node: ast.Name) -> Type:
        for loop in reversed(self.loops):
            if node.id in loop:
                return loop[node.id]
        if node.id in CONSTANTS:
            return of_value(CONSTANTS[node.id])
        if node.id not in self.read.names:
            return ANY
        return self.inference.environment.type_of(node.id, self.read)

    def _member(self, node: ast.expr, base: ast.expr, name: str) -> Type:
        if (
            isinstance(base, ast.Name)
            and base.id == "steps"
            and not self._is_loop(base.id)
            and "steps" in self.read.names
        ):
            return self.inference.environment.step(name, self.read) or ANY
        value = self.visit(base)
        self._maybe_null(node, base, value)
        if value.kinds is None:
            return ANY
        if value.never("object"):
            self._no_fields(node, value, name)
            return ANY
        if "object" not in value.kinds:
            return ANY
        if name in value.fields:
            return value.fields[name]
        if value.closed and value.only("object"):
            self._no_such_field(node, value, name)
        return ANY

    def _is_loop(self, name: str) -> bool:
        return any(name in loop for loop in self.loops)

    def _no_fields(self, node: ast.expr, value: Type, name: str) -> None:
        hint = {
            "group": "a group gives the list of its results in written order; write [0], [1], ...",
            "map": f"a map gives one result for each item; write [one.{name} for one in ...]",
        }.get(value.what)
        self.report("SF212", node, f"`.{name}`: {value.words()} has no fields", hint)

    def _no_such_field(self, node: ast.expr, value: Type, name: str) -> None:
        what = value.what or "this object"
        known = list(value.fields)
        hint = did_you_mean(name, known, "there are") if known else f"{what} is empty"
        if value.code == "SF205" and value.what == "inputs" and not known:
            hint = "declare it under `inputs`"
        near = {"outputs": "output", "result": "output", "status": "state", "code": "type"}.get(name)
        if near in known:
            hint = f"write .{near}"
        self.report(value.code, node, f"there is no `{name}` in {what}", hint)

    def _maybe_null(self, node: ast.expr, base: ast.expr, value: Type) -> None:
        if not value.maybe or self.lenient:
            return
        path = path_of(base)
        if path is not None and any(path[: len(one)] == one or one[: len(path)] == path for one in self.guarded):
            return
        self.report(
            "SF214",
            node,
            f"this reads a field of null when the step fails: {value.maybe}",
            "write get(path, default)",
            "warning",
        )

    def _index(self, node: ast.Subscript) -> Type:
        value = self.visit(node.value)
        if isinstance(node.slice, ast.Slice):
            for bound in (node.slice.lower, node.slice.upper, node.slice.step):
                if bound is not None:
                    self.visit(bound)
            return value if value.only("array", "string") else ANY
        key = self.visit(node.slice)
        if value.kinds is None:
            return ANY
        if value.never("array", "object", "string"):
            self.report("SF212", node, f"`[...]`: {value.words()} has no items")
            return ANY
        if value.only("array"):
            if key.never("integer", "boolean"):
                self.report("SF213", node.slice, f"the index of a list is a whole number, got {key.words()}")
            elif value.length is not None and key.values and isinstance(key.values[0], int):
                beyond = not -value.length <= key.values[0] < value.length
                if beyond:
                    self.report("SF213", node.slice, f"the list has {value.length} items, so [{key.values[0]}] is none")
            return value.items or ANY
        if value.only("object") and key.never("string"):
            self.report("SF213", node.slice, f"the key of an object is a text, got {key.words()}")
        return STRING if value.only("string") else ANY

    # -- calls

    def _call(self, node: ast.Call) -> Type:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("has", "get"):
            return self._lazy(node, name)
        given = [self.visit(one) for one in node.args]
        for keyword in node.keywords:
            self.visit(keyword.value)
        for wanted, value, argument in zip(ARGUMENTS.get(name, ()), given, node.args, strict=False):
            if wanted and value.never(*wanted):
                expected = Type(frozenset(wanted)).words()
                self.report("SF220", argument, f"{name}(): expected {expected}, got {value.words()}")
        if name == "matches" and len(node.args) == 2:
            self._pattern(node.args[1])
        result = RESULTS.get(name, ANY)
        if name in ("sorted", "first") and given and given[0].only("array"):
            return given[0] if name == "sorted" else (given[0].items or ANY) if len(given) == 1 else ANY
        return result

    def _lazy(self, node: ast.Call, name: str) -> Type:
        self.lenient += 1
        value = self.visit(node.args[0])
        self.lenient -= 1
        if name == "has":
            return BOOLEAN
        if len(node.args) < 2:
            return ANY
        default = self.visit(node.args[1])
        if value.kinds is None or default.kinds is None:
            return ANY
        return union([replace(value, kinds=value.certain, values=None, maybe=""), default])

    def _pattern(self, node: ast.expr) -> None:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            return
        try:
            matches(Frame({}, 0, STEPS), "", node.value)
        except Refusal as refusal:
            self.report("SF219", node, f"matches(): {refusal.message}", refusal.hint)
