"""A kind of step is complete: rules, signature, schema, builder, freezer, explorer cases and documentation."""

from __future__ import annotations

import importlib
import re
import typing
from pathlib import Path
from typing import Any

import pytest

from stemflow.canvas import Canvas
from stemflow.compile.freeze import compile_plan
from stemflow.core.kinds import KINDS
from stemflow.dsl.parse import parse_workflow
from stemflow.dsl.schema import load_schema
from stemflow.dsl.vocabulary import KINDS as WORDS
from stemflow.model.plan import (
    AnyPlan,
    ApprovalPlan,
    EmitPlan,
    EventPlan,
    LeafPlan,
    ScopeKind,
    ScopePlan,
    WaitPlan,
)
from stemflow.model.policy import Options
from stemflow.model.signature import AnySig, SetSig
from stemflow.model.subworkflow import linked
from stemflow.model.workflow import Workflow
from tests.core.explored_cases import CASES
from tests.core.plans import Spec

ROOT = Path(__file__).parents[2]
SIGNATURES = {kind.__struct_config__.tag: kind for kind in map(typing.get_origin, typing.get_args(AnySig))}
KIND_NAMES = typing.get_args(ScopeKind)
LEAVES: dict[str, tuple[type[AnyPlan], str]] = {
    "task": (LeafPlan, "leaf"),
    "wait": (WaitPlan, "wait"),
    "event": (EventPlan, "event"),
    "emit": (EmitPlan, "emit"),
    "approval": (ApprovalPlan, "approval"),
}
"""The kinds without members: the form of their plan, and the name by which the explorer knows it."""
STEP_KINDS = (*KIND_NAMES, *LEAVES)
YAML_ONLY = {"steps": "a graph needs names", "set": "its values are expressions over a file"}
"""Kinds without a constructor of Canvas, with the reason."""


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_each_kind_of_a_plan_has_its_rules_in_a_file_of_its_name(kind: str) -> None:
    rules = KINDS[kind]  # type: ignore[index]
    module = importlib.import_module(f"stemflow.core.kinds.{kind}")
    assert type(rules).__module__ == module.__name__ and rules.name == kind


def test_there_are_rules_for_the_kinds_of_plans_and_for_no_others() -> None:
    assert set(KINDS) == set(KIND_NAMES)


def test_every_signature_and_every_word_of_a_file_is_a_kind_that_is_tested_here() -> None:
    assert set(SIGNATURES) == set(WORDS) == set(STEP_KINDS)


@pytest.mark.parametrize("kind", STEP_KINDS)
def test_each_kind_is_made_by_canvas_unless_it_needs_a_file(kind: str) -> None:
    assert hasattr(Canvas, kind) != (kind in YAML_ONLY)


@pytest.mark.parametrize("kind", STEP_KINDS)
def test_each_kind_has_a_signature_and_a_schema(kind: str) -> None:
    definitions = load_schema()["definitions"]
    assert kind in SIGNATURES
    assert kind in WORDS
    assert kind in definitions[f"{kind}_step"]["properties"]


@pytest.mark.parametrize("kind", STEP_KINDS)
def test_the_explorer_goes_through_each_kind(kind: str) -> None:
    name = LEAVES[kind][1] if kind in LEAVES else kind
    assert any(name == spec.kind for case in CASES for run in case.runs for spec in specs(run))


def specs(spec: Spec) -> list[Spec]:
    below = [*spec.members, *(follow_up for _, _, follow_up in spec.follow_ups)]
    return [spec, *(one for member in below for one in specs(member))]


def documented() -> list[str]:
    """The workflow files on the page of the format."""
    page = (ROOT / "docs" / "workflow-file.md").read_text("utf-8")
    return re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def kinds_in(text: str) -> set[str]:
    """The kinds of steps in the plan of a workflow file."""
    workflow = parse_workflow(text, "page").workflow
    assert workflow is not None
    body = linked(workflow.body, lambda _: Workflow(name="other", body=SetSig()))
    nodes: Any = compile_plan(body, lambda _: Options()).nodes
    names = {plan: kind for kind, (plan, _) in LEAVES.items()}
    return {node.kind if isinstance(node, ScopePlan) else names[type(node)] for node in nodes}


def test_each_kind_is_on_the_page_of_the_format_and_can_be_built_and_frozen_from_there() -> None:
    page = (ROOT / "docs" / "workflow-file.md").read_text("utf-8")
    found = {kind for text in documented() for kind in kinds_in(text)}
    assert found == set(STEP_KINDS)
    for kind in STEP_KINDS:
        assert f"`{kind}" in page
