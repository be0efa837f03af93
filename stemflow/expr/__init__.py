"""Expressions on JSON data: Python's expression syntax without Python's objects.

A source text is parsed by `ast`, checked node by node and compiled to closures; nothing outside the node types
and functions listed here exists for it, and no attribute of a Python object is ever read.
"""

from stemflow.expr.errors import ExpressionError, ExpressionLimitError, Reference
from stemflow.expr.expression import Expression, compile_expression
from stemflow.expr.functions import FUNCTION_NAMES
from stemflow.expr.limits import STEPS
from stemflow.expr.template import Template, parse_condition, parse_template

__all__ = [
    "FUNCTION_NAMES",
    "STEPS",
    "Expression",
    "ExpressionError",
    "ExpressionLimitError",
    "Reference",
    "Template",
    "compile_expression",
    "parse_condition",
    "parse_template",
]
