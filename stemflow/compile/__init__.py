"""The compiler: it checks a signature by rules, expands it into a networkx graph, and freezes it into a plan.

Import from its modules: checking a workflow (`rules`) needs no graph library, compiling it (`freeze`) does.
"""
