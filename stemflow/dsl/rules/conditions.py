"""SF2: conditions, items of maps, and texts that were meant as expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stemflow.dsl.foreign import NAMES
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.types import Type
from stemflow.dsl.rules.view import Step, View
from stemflow.dsl.source import Node

_BRACES = re.compile(
    r"(?<!\$)\{\{-?\s*(inputs|vars|steps|prev|item|env|secrets|run|matrix|github|workflow|tasks|dag_run|ti|ds)\b[^{}]*\}\}"
)
_SHELL = re.compile(r"\$\{(?!\{)\s*(inputs|vars|steps|prev|item|run)\.[^{}]*\}|(?<![\w$])\$(inputs|vars|steps)\.[\w.]+")
_NEVER = {
    "event.match": "no event fits, so the step waits until its timeout",
    "catch.when": "take the catch out",
    "retry.when": "write max: 0",
}
"""What a condition that is always false means, or what to write in its place."""
_PATH = re.compile(r"(inputs|vars|steps|run|item|prev|self)(\.[A-Za-z_][\w-]*|\[-?\d+\])+")


def conditions(view: View) -> Iterator[tuple[str, Node]]:
    """(key, node) of everything that decides whether something runs, except a loop."""
    for step in view.having("when"):
        when = step.node.get("when") if step.path else None
        if when is not None:
            yield "when", when
    for step in view.having("event"):
        if step.kind == "event" and step.body is not None and (match := step.body.get("match")) is not None:
            yield "event.match", match
    for step in view.having("catch"):
        catch = step.node.get("catch") if step.path else None
        for one in [] if catch is None else catch.items or [catch]:
            if (when := one.get("when")) is not None:
                yield "catch.when", when
    for step in (*view.having("retry"), *view.undos.values()):
        for retry in _retries(step):
            inner = retry.get("when")
            if inner is not None:
                yield "retry.when", inner
    defaults = view.root.get("defaults")
    task = None if defaults is None else defaults.get("task")
    default = None if task is None else task.get("retry")
    condition = None if default is None else default.get("when")
    if condition is not None:
        yield "retry.when", condition


def _loops(view: View) -> Iterator[tuple[str, Node]]:
    """The conditions of loops; one that is always the same leaves the end to `max`."""
    for step in view.steps.values():
        for key in ("while", "until") if step.kind == "loop" and step.body is not None else ():
            if step.body is not None and (condition := step.body.get(key)) is not None:
                yield f"loop.{key}", condition


def _retries(step: Step) -> Iterator[Node]:
    retry = step.node.get("retry") if step.path else None
    if retry is not None:
        yield from retry.items or [retry]


@rule("SF208")
def not_a_condition(view: View) -> Iterator[Found]:
    """A condition that is not true or false."""
    for key, node in (*conditions(view), *_loops(view)):
        found = view.type_of(node)
        if isinstance(node.value, bool) or found.kinds is None or found.kinds & {"boolean", "null"}:
            continue
        yield Found(f"{key}: expected true or false, got {found.words()}", node.place, _as_condition(node, found))


def _as_condition(node: Node, found: Type) -> str:
    text = str(node.value).strip()
    if found.values is not None:
        return "write a comparison, or true or false without quotes"
    if found.only("string"):
        return f"write {text} == 'true', or declare it as boolean"
    return f"write {text} != 0" if found.only("integer", "number") else f"write len({text}) > 0"


@rule("SF209", "warning")
def constant_condition(view: View) -> Iterator[Found]:
    """A condition that is always the same."""
    for key, node in conditions(view):
        found = view.type_of(node)
        if isinstance(node.value, bool) or found.values is None or len(found.values) != 1:
            continue
        value = found.values[0]
        if isinstance(value, bool) or value is None:
            yield Found(
                f"{key}: this is always {'true' if value else 'false'}",
                node.place,
                "take the condition out" if value else _NEVER.get(key, "take the step out, or write when: false"),
            )


@rule("SF211")
def items_are_a_list(view: View) -> Iterator[Found]:
    """A map over something that is not a list."""
    for step in view.having("map"):
        items = step.body.get("items") if step.kind == "map" and step.body is not None else None
        if items is None or isinstance(items.value, list):
            continue
        found = view.type_of(items)
        if found.kinds is None or "array" in found.kinds:
            continue
        declared = any(read.node is items and read.references for read in view.reads)
        hint = "write values(...) or keys(...) around it" if found.only("object") else "write [...] for a list"
        yield Found(
            f"map.items: expected a list, got {found.words()}", items.place, hint, "warning" if declared else "error"
        )


@rule("SF222", "warning")
def text_like_an_expression(view: View) -> Iterator[Found]:
    """A plain text that is the path of something that exists."""
    for node in plain_texts(view):
        if _PATH.fullmatch(node.value.strip()):
            yield Found(
                f"the text {node.value.strip()!r} is not evaluated",
                node.place,
                f"write ${{{{ {node.value.strip()} }}}}",
            )


@rule("SF223", "warning")
def foreign_marks(view: View) -> Iterator[Found]:
    """A placeholder of another language."""
    for node in plain_texts(view):
        found = _BRACES.search(node.value) or _SHELL.search(node.value)
        if found is not None:
            inner = found[0].strip("${}- ")
            known = NAMES.get(re.split(r"\W", inner, maxsplit=1)[0])
            yield Found(
                f"`{found[0]}` stays as it is: expressions are written ${{{{ ... }}}}",
                node.place,
                f"write ${{{{ {inner} }}}}" if known is None else known,
            )


def plain_texts(view: View) -> Iterator[Node]:
    """The texts without expressions in `args` and `outputs`."""
    pending = [
        node
        for step in (*view.having("args"), *view.having("outputs"), *view.undos.values())
        if (node := step.node.get("args" if step.path else "outputs")) is not None
    ]
    while pending:
        node = pending.pop()
        if isinstance(node.value, str):
            if "${{" not in node.value:
                yield node
            continue
        pending.extend(node.items)
        pending.extend(node.members.values())


@rule("SF224", "warning")
def items_of_nothing(view: View) -> Iterator[Found]:
    """A map over an empty list."""
    for step in view.having("map"):
        items = step.body.get("items") if step.kind == "map" and step.body is not None else None
        if items is not None and items.value == []:
            yield Found("map.items: the list is empty, so the map does nothing", items.place, "take the map out")
