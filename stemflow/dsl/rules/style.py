"""SF7: what is right and could be simpler."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stemflow.dsl.rules.conditions import conditions
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.view import View
from stemflow.model.records import parent_path

_WITH_BOOLEAN = re.compile(r"(==|!=|\bis\b)\s*(true|false|True|False)\s*$")


def _read_names(view: View, root: str) -> tuple[set[str], bool]:
    """The members of `root` that expressions read, and whether one reads it as a whole."""
    names: set[str] = set()
    whole = False
    for read in view.reads:
        for one in read.references:
            if one.path[0] == root:
                if len(one.path) > 1:
                    names.add(one.path[1])
                else:
                    whole = True
    return names, whole


@rule("SF701", "warning")
def unused_inputs(view: View) -> Iterator[Found]:
    """An input that nothing reads."""
    yield from _unused(view, "inputs", "input")


@rule("SF702", "warning")
def unused_vars(view: View) -> Iterator[Found]:
    """A variable that nothing reads."""
    yield from _unused(view, "vars", "variable")


def _unused(view: View, key: str, what: str) -> Iterator[Found]:
    node = view.root.get(key)
    names, whole = _read_names(view, key)
    misspelt = not view.found.isdisjoint({"SF205", "SF206"})
    if node is None or whole or not isinstance(node.value, dict) or not view.whole or misspelt:
        return
    for name in node.members:
        if name not in names:
            yield Found(f"the {what} `{name}` is never read", node.keys[name], f"read {key}.{name}, or take it out")


@rule("SF703", "warning")
def needs_twice(view: View) -> Iterator[Found]:
    """`needs` names a step that a reference already waits for."""
    data = {(edge.target, edge.source) for edge in view.edges if edge.kind == "data"}
    for edge in view.edges:
        if edge.kind == "order" and (edge.target, edge.source) in data:
            name = edge.source[len(parent_path(edge.source)) :].lstrip(".")
            yield Found(
                f"needs: the reference to steps.{name} already waits for `{name}`", edge.place, "take it out of `needs`"
            )


@rule("SF704", "warning")
def marks_around_a_condition(view: View) -> Iterator[Found]:
    """`${{ }}` around an expression that is written bare."""
    for key, node in conditions(view):
        text = node.value.strip() if isinstance(node.value, str) else ""
        if text.startswith("${{") and text.endswith("}}"):  # with text around it, it is an error
            yield Found(
                f"{key}: this key is an expression already, so the ${{{{ }}}} can go",
                node.place,
                f"write {node.value.strip().removeprefix('${{').removesuffix('}}').strip()}",
            )


@rule("SF705", "warning")
def compared_with_true(view: View) -> Iterator[Found]:
    """A condition that is compared with true or false."""
    for key, node in conditions(view):
        found = _WITH_BOOLEAN.search(node.value) if isinstance(node.value, str) else None
        if found is None or " and " in node.value or " or " in node.value:
            continue
        left = node.value[: found.start()].strip()
        straight = (found[2].lower() == "true") == (found[1] != "!=")
        yield Found(
            f"{key}: a condition needs no comparison with {found[2]}",
            node.place,
            f"write {left}" if straight else f"write not {left}",
        )


@rule("SF707", "warning")
def hidden_variables(view: View) -> Iterator[Found]:
    """A map whose item has the name of that of the map around it."""
    for step in view.having("map"):
        if step.kind != "map" or step.body is None:
            continue
        for key in ("as", "index"):
            name = step.body.text(key)
            for outer in view.above(step.path) if name is not None else ():
                if (
                    outer.kind == "map"
                    and outer.body is not None
                    and name in (outer.body.text("as"), outer.body.text("index"))
                ):
                    yield Found(
                        f"map.{key}: `{name}` hides the variable of `{outer.label}`",
                        step.body.members[key].place,
                        "choose another name",
                    )
                    break


@rule("SF708", "warning")
def composite_of_one(view: View) -> Iterator[Found]:
    """A chain with a single step."""
    for step in view.having("chain"):
        if step.path and step.kind == "chain" and step.body is not None and len(step.body.items) == 1:
            yield Found("chain: it has one step", step.node.keys["chain"], "write the step itself")
