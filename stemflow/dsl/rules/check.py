"""Runs every rule over a file."""

from __future__ import annotations

from dataclasses import replace

from stemflow.dsl.findings import Findings
from stemflow.dsl.rules import (
    cases,
    conditions,
    effects,
    events,
    graph,
    inputs,
    policy,
    schedules,
    secret_inputs,
    security,
    style,
    tasks,
    templates,
    workflows,
)
from stemflow.dsl.rules.catalogue import CATALOGUE
from stemflow.dsl.rules.infer import Inference
from stemflow.dsl.rules.registry import RULES
from stemflow.dsl.rules.view import TaskFacts, View

FAMILIES = (
    graph, conditions, inputs, tasks, templates, workflows, cases, policy, schedules, events, effects, security,
    secret_inputs, style,
)  # fmt: skip
"""The modules of rules; to import them registers what they define."""


def check_view(view: View, known: TaskFacts | None, findings: Findings) -> None:
    """Add what the rules find; `known` None: tasks are not known."""
    inference = Inference(view, known)
    for read in view.reads:
        inference.of_read(read)
    for code, one in inference.found:
        findings.add(code, one.message, one.place, one.hint, one.severity or CATALOGUE[code].severity)
    found = frozenset(code for code, _ in inference.found)
    view = replace(view, tasks=known, type_of=inference.of_node, found=found)
    for rule in RULES:
        for one in rule.check(view):
            findings.add(rule.code, one.message, one.place, one.hint, one.severity or rule.severity)
