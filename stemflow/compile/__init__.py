"""The compiler: a signature is expanded into a networkx DAG, checked by rules, and frozen into a plan."""

from stemflow.compile.desugar import desugar
from stemflow.compile.freeze import compile_plan, compile_task
from stemflow.compile.graph import CycleError, graph_of, members_of
from stemflow.compile.rules import check

__all__ = ["CycleError", "check", "compile_plan", "compile_task", "desugar", "graph_of", "members_of"]
