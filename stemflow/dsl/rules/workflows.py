"""SF11 and SF31: workflows that steps call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stemflow.dsl.findings import did_you_mean
from stemflow.dsl.inputs import check_inputs
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.types import may_fit, of_schema
from stemflow.dsl.rules.view import Callee, Step, Unusable, View
from stemflow.dsl.source import Node


@rule("SF111")
def unusable_workflows(view: View) -> Iterator[Found]:
    """A workflow that is not there, has errors, or must not be called."""
    yield from _unusable(view, circle=False)


@rule("SF112")
def circles_of_workflows(view: View) -> Iterator[Found]:
    """A workflow that calls this one, perhaps through others."""
    yield from _unusable(view, circle=True)


def _unusable(view: View, circle: bool) -> Iterator[Found]:
    for _, node, ref in view.refs():
        found = view.callees.get(ref)
        if isinstance(found, Unusable) and found.circle == circle:
            yield Found(f"workflow: {found.message}", node.place, found.hint)


@rule("SF312")
def inputs_of_workflows(view: View) -> Iterator[Found]:
    """Inputs that the other workflow does not have, needs and does not get, or does not accept."""
    for step, node, ref in view.refs():
        callee = view.callee(step)
        if callee is not None:
            given = step.node.members["workflow"].entries("inputs")
            yield from _names(step, node, ref, callee, given)
            yield from _values(view, ref, callee, given)


def _names(step: Step, node: Node, ref: str, callee: Callee, given: Mapping[str, Node]) -> Iterator[Found]:
    inputs = step.node.members["workflow"].get("inputs")
    if inputs is not None and isinstance(inputs.value, str):
        return  # one expression gives all of them
    for name in given:
        if name not in callee.inputs and inputs is not None:
            yield Found(f"workflow.inputs: {ref} has no input `{name}`", inputs.keys[name],
                        did_you_mean(name, callee.inputs, "inputs"))  # fmt: skip
    for name, schema in callee.inputs.items():
        if name not in given and isinstance(schema, dict) and "default" not in schema:
            yield Found(f"workflow: {ref} needs the input `{name}`, which has no default", node.place,
                        f"write inputs: {{{name}: ...}}")  # fmt: skip


def _values(view: View, ref: str, callee: Callee, given: Mapping[str, Node]) -> Iterator[Found]:
    read = {id(one.node) for one in view.reads}
    for name, value in given.items():
        schema = callee.inputs.get(name)
        if schema is None:
            continue
        if id(value) in read:
            found, wanted = view.type_of(value), of_schema(schema)
            if not may_fit(found, wanted):
                yield Found(f"workflow.inputs.{name}: {ref} expects {wanted.words()}, and this gives {found.words()}",
                            value.place)  # fmt: skip
        elif "${{" not in str(value.value):
            for message in check_inputs({name: schema}, {name: value.value})[1]:
                yield Found(f"workflow.{message}", value.place)
