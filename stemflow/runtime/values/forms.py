"""Values for declared inputs: those of a run, of a sub-workflow, and those that are given with an approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stemflow.dsl.inputs import check_inputs
from stemflow.errors import StemflowError


class InvalidInputs(StemflowError, ValueError):
    """Inputs of a run do not fit what its workflow declares; `messages` has a sentence for each that is wrong."""

    def __init__(self, messages: list[str]) -> None:
        self.messages = messages
        super().__init__("\n".join(messages))


def complete_form(schemas: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values for these names with defaults filled in; raises InvalidInputs."""
    values, messages = check_inputs(schemas, given)
    if messages:
        raise InvalidInputs(messages)
    return values
