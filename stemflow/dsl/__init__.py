"""The workflow file: YAML text -> `model.workflow.Workflow`, with a place for everything that can be wrong."""

from stemflow.dsl.inputs import check_inputs
from stemflow.dsl.parse import Parsed, parse_workflow
from stemflow.dsl.schema import load_schema

__all__ = ["Parsed", "check_inputs", "load_schema", "parse_workflow"]
