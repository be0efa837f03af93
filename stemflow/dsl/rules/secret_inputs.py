"""SF6: inputs that are declared as secret."""

from __future__ import annotations

from collections.abc import Iterator

from stemflow.dsl.expressions import Read
from stemflow.dsl.inputs import is_secret
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.view import View

_MAY_SAY = frozenset({"secret", "type", "title", "description", "default", "examples", "required"})


@rule("SF605")
def secret_inputs_where_they_are_stored(view: View) -> Iterator[Found]:
    """A secret input outside of the arguments and variables of tasks."""
    secret = {name for name, schema in view.inputs.items() if is_secret(schema)}
    for read in view.reads if secret else ():
        if "secrets" in read.names or _is_passed_on(view, read):
            continue
        for one in read.references:
            if one.path[0] == "inputs" and len(one.path) > 1 and one.path[1] in secret:
                yield Found(
                    f"`inputs.{one.path[1]}` is secret: only `args` and `env` of tasks read it",
                    view.at(read, one.column, one.end),
                    "let a task read it, and use what that gives",
                )


def _is_passed_on(view: View, read: Read) -> bool:
    """Whether an expression is the value of a secret input of a workflow that a step calls."""
    step = view.steps.get(read.path)
    given = None if step is None or step.kind != "workflow" or step.body is None else step.body.get("inputs")
    if step is None or given is None:
        return False
    callee = view.callee(step)
    return any(
        one is read.node and (callee is None or is_secret(callee.inputs.get(name)))
        for name, one in given.members.items()
    )


@rule("SF607")
def secrets_that_cannot_be(view: View) -> Iterator[Found]:
    """A secret input that is no text, or whose value a keyword looks at."""
    for name, node in view.root.entries("inputs").items():
        where = f"inputs.{name}"
        if not isinstance(node.value, dict) or "secret" not in node.members:
            continue
        for key in node.members.keys() - _MAY_SAY:
            yield Found(f"{where}: `{key}` cannot be checked, as the value of a secret is known to workers only",
                        node.keys[key], "take it out")  # fmt: skip
        if node.text("type") not in (None, "string"):
            yield Found(f"{where}: a secret is a text", node.members["type"].place, "write type: string")
