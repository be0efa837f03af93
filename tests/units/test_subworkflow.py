"""A workflow that is written as JSON, for a run that starts later, is the same when it is read again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from stemflow import TaskRegistry
from stemflow.compile.freeze import compile_plan
from stemflow.dsl.parse import parse_workflow
from stemflow.model.policy import normalise
from stemflow.model.signature import SetSig
from stemflow.model.subworkflow import linked, text_of, workflow_of
from stemflow.model.workflow import Workflow

PAGE = (Path(__file__).parents[2] / "docs" / "workflow-file.md").read_text("utf-8")
FLOWS = [flow for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
         if (flow := parse_workflow(text, "page").workflow) is not None]  # fmt: skip
REGISTRY = TaskRegistry()


def digest(flow: Workflow) -> str:
    defaults = normalise(flow.task_defaults, "defaults")

    def options(sig: Any) -> Any:
        return REGISTRY.options_of(structs.replace(sig, declared=True), defaults)

    return compile_plan(flow.body, options, variables=flow.vars, outputs=flow.outputs).digest


@pytest.mark.parametrize("flow", FLOWS, ids=[flow.name for flow in FLOWS])
def test_a_workflow_that_is_written_and_read_has_the_same_plan(flow: Workflow) -> None:
    called = Workflow(name="other", body=SetSig(), task_defaults={"retry": {"max": 2}})
    whole = structs.replace(flow, body=linked(flow.body, lambda _: called))
    again = workflow_of(text_of(whole))
    assert digest(again) == digest(whole)
    assert structs.asdict(again) | {"body": None, "task_defaults": None} == structs.asdict(whole) | {
        "body": None, "task_defaults": None
    }  # fmt: skip
