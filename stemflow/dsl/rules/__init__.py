"""The rules of the checker: SF1 graph, SF2 expressions, SF3 types, SF4 tasks, SF5 policy, SF6 security, SF7 style.

A rule is a function over a `View`, registered with its code and severity. What is wrong with the shape of the file
(SF0) and with the text of an expression (SF201 to SF204) is found while the file is read.
"""

from stemflow.dsl.rules.check import check_view
from stemflow.dsl.rules.view import Callee, TaskFacts, Unusable, View

__all__ = ["Callee", "TaskFacts", "Unusable", "View", "check_view"]
