"""The compiler: a signature is expanded into a networkx DAG, checked by rules, and frozen into a plan.

Import from its modules: checking a workflow (`rules`) needs no graph library, compiling it (`freeze`) does.
"""
