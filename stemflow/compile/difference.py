"""What two versions of a workflow do differently, however they are written."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from msgspec import structs, to_builtins

from stemflow.compile.edges import NAMES, dependencies, names_below
from stemflow.model.policy import normalise
from stemflow.model.records import child_path, parent_path
from stemflow.model.signature import AnySig, StepsSig, TaskSig
from stemflow.model.tree import members_of, walk
from stemflow.model.workflow import Workflow

_STRONGEST = ("data", "optional", "order")
_BARE = ("when", "on", "items", "unique_by")
"""Fields that hold an expression without marks."""
_MARKED = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_NOT_COMPARED = ("at", "name", "needs", "options", "decode", "declared", "bind")
_SETTINGS = (
    "name", "unique_key", "unique_for_ms", "unique_mode", "concurrency", "timeout_ms", "compensate_on",
)  # fmt: skip

_FOR_PEOPLE = ("title", "description", "examples")

Facts = dict[str, Any]
"""Dotted key -> value of a step or setting, in a form in which what does the same is equal."""


class Change(NamedTuple):
    """One difference. `what` is a step, an input, an output or a setting; `before` and `after` None: there is none."""

    kind: Literal["added", "removed", "changed", "renamed"]
    what: Literal["step", "input", "output", "var", "setting"]
    name: str
    details: tuple[tuple[str, Any, Any], ...] = ()
    """(key, before, after) of what changed; of a step that was added or removed, what it is."""


def difference(old: Workflow, new: Workflow) -> list[Change]:
    """Every difference in what the two workflows do: settings, inputs, steps, outputs."""
    before, after = _steps(old), _steps(new)
    renamed = _renames(before, after)
    rename = _renaming(renamed)
    before = {renamed.get(path, path): _renamed_facts(facts, rename) for path, facts in before.items()}
    found = [Change("renamed", "step", new_path, (("path", path, new_path),)) for path, new_path in renamed.items()]
    found += _compared("setting", {"": _settings(old)}, {"": _settings(new)})
    found += _compared("input", _named(_inputs(old)), _named(_inputs(new)))
    found += _compared("var", _named(old.vars), _named(new.vars))
    found += _compared("step", before, after)
    outputs = {name: _renamed_facts(facts, rename) for name, facts in _named(old.outputs or {}).items()}
    found += _compared("output", outputs, _named(new.outputs or {}))
    return found


def _compared(what: Any, before: Mapping[str, Facts], after: Mapping[str, Facts]) -> Iterator[Change]:
    for name in [*after, *(name for name in before if name not in after)]:
        if name not in before:
            yield Change("added", what, name, tuple((key, None, value) for key, value in after[name].items()))
        elif name not in after:
            yield Change("removed", what, name, tuple((key, value, None) for key, value in before[name].items()))
        elif details := tuple(_details(before[name], after[name])):
            yield Change("changed", what, name, details)


def _details(before: Facts, after: Facts) -> Iterator[tuple[str, Any, Any]]:
    for key in [*after, *(key for key in before if key not in after)]:
        if before.get(key) != after.get(key):
            yield key, before.get(key), after.get(key)


def _settings(workflow: Workflow) -> Facts:
    found = {key: _plain(to_builtins(getattr(workflow, key))) for key in _SETTINGS}
    return {key: value for key, value in found.items() if value not in (None, (), [])}


def _inputs(workflow: Workflow) -> dict[str, Any]:
    """The schemas of the inputs without what is for people."""
    return {
        name: {key: value for key, value in schema.items() if key not in _FOR_PEOPLE}
        if isinstance(schema, Mapping) else schema
        for name, schema in workflow.inputs.items()
    }  # fmt: skip


def _named(values: Mapping[str, Any]) -> dict[str, Facts]:
    return {name: dict(_flat("", _plain(value))) for name, value in values.items()}


# -- steps


def _steps(workflow: Workflow) -> dict[str, Facts]:
    defaults = normalise(workflow.task_defaults, "defaults.task")
    edges = dict(_edges(workflow.body))
    found = {}
    for path, sig in walk(workflow.body):
        facts = _facts(sig, defaults)
        if not path:  # those are outputs of the workflow
            facts = {key: value for key, value in facts.items() if not key.startswith("outputs.")}
        facts.update({f"after.{source}": kind for source, kind in edges.get(path, {}).items()})
        if path or facts.keys() - {"kind"}:
            found[path] = facts
    return found


def _facts(sig: AnySig, defaults: Mapping[str, Any]) -> Facts:
    """Everything about one step except its members, its name and its edges."""
    facts: Facts = {"kind": _kind(sig)}
    for one in structs.fields(type(sig)):
        value = getattr(sig, one.name)
        if one.name in _NOT_COMPARED or one.name in sig.MEMBERS or value == one.default or value in ((), {}):
            continue
        if isinstance(value, TaskSig):
            facts.update((f"{one.name}.{key}", inner) for key, inner in _facts(value, defaults).items())
        elif isinstance(value, tuple) and value and isinstance(value[0], TaskSig):
            for index, hook in enumerate(value):
                facts.update((f"{one.name}[{index}].{key}", inner) for key, inner in _facts(hook, defaults).items())
        else:
            bare = one.name in _BARE and isinstance(value, str)
            facts.update(_flat(one.name, _expression(value) if bare else _plain(to_builtins(value))))
    if isinstance(sig, TaskSig):
        if sig.bind:
            facts.update(_flat("args", _plain(to_builtins(sig.bind))))
        given = {**defaults, **normalise(sig.options, sig.task)}
        options = {option: value for option, value in given.items() if value is not None}
        facts.update(_flat("", _plain(to_builtins(options, enc_hook=repr))))
    return facts


def _kind(sig: AnySig) -> str:
    return type(sig).__name__.removesuffix("Sig").lower()


def _edges(
    sig: AnySig, path: str = "", known: frozenset[str] = NAMES
) -> Iterator[tuple[str, dict[str, str]]]:
    """(path of a step, predecessor -> the strongest kind of edge to it) in every graph."""
    members = members_of(sig)
    if isinstance(sig, StepsSig):
        names = {segment for segment, _ in members}
        for segment, member in members:
            kinds: dict[str, set[str]] = {}
            for source, kind in dependencies(member, known):
                if source in names and source != segment:
                    kinds.setdefault(source, set()).add(kind)
            strongest = {source: next(k for k in _STRONGEST if k in of) for source, of in sorted(kinds.items())}
            yield child_path(path, segment), strongest
    for segment, member in members:
        yield from _edges(member, child_path(path, segment), names_below(sig, known))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys of a nested mapping; lists are values."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif prefix or value not in (None, {}):
        yield prefix or "value", value


def _plain(value: Any) -> Any:
    """The value with its expressions in one form."""
    if isinstance(value, str):
        return _MARKED.sub(lambda found: f"${{{{ {_expression(found[1])} }}}}", value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _expression(text: str) -> str:
    """An expression in one form: without marks around it, needless spaces and parentheses."""
    bare = text.strip()
    if bare.startswith("${{") and bare.endswith("}}"):
        bare = bare[3:-2].strip()
    try:
        return ast.unparse(ast.parse(bare, mode="eval"))
    except (SyntaxError, ValueError, RecursionError):
        return bare


# -- renames


def _renames(before: Mapping[str, Facts], after: Mapping[str, Facts]) -> dict[str, str]:
    """Steps that have another name and do the same, or call the same task with the same arguments: old path -> new
    path, in the same graph. One that could be several is none."""
    gone = [path for path in before if path and path not in after]
    fresh = [path for path in after if path and path not in before]
    found: dict[str, str] = {}
    for exactly in (True, False):
        old = {path: _likeness(before, path, exactly) for path in gone if path not in found}
        new = {path: _likeness(after, path, exactly) for path in fresh if path not in found.values()}
        for path, likeness in old.items():
            same = [one for one, other in new.items() if other == likeness and parent_path(one) == parent_path(path)]
            others = [one for one, other in old.items() if other == likeness and parent_path(one) == parent_path(path)]
            if likeness and len(same) == len(others) == 1:
                found[path] = same[0]
    return {path: one for path, one in found.items() if parent_path(path) not in found}


def _likeness(steps: Mapping[str, Facts], path: str, exactly: bool) -> list[tuple[str, Facts]]:
    """What the step at `path` and those in it do, without edges; not `exactly`: only the tasks and arguments."""
    below = (path, *(one for one in steps if one.startswith((f"{path}.", f"{path}["))))
    keys = ("task", "args.") if not exactly else ("",)
    found = [
        (
            one[len(path) :],
            {key: value for key, value in steps[one].items() if key.startswith(keys) and not key.startswith("after.")},
        )
        for one in below
    ]
    return [one for one in found if one[1]]


def _renaming(renamed: Mapping[str, str]) -> Callable[[str], str]:
    names = {path[len(parent_path(path)) :].lstrip("."): new[len(parent_path(new)) :].lstrip(".")
             for path, new in renamed.items()}  # fmt: skip

    def rename(text: str) -> str:
        for old, new in names.items():
            text = re.sub(rf"\bsteps\.{re.escape(old)}(?![\w-])", f"steps.{new}", text)
        return text

    return rename


def _renamed_facts(facts: Facts, rename: Callable[[str], str]) -> Facts:
    def value_of(value: Any) -> Any:
        if isinstance(value, str):
            return rename(value)
        return [value_of(one) for one in value] if isinstance(value, list) else value

    def key_of(key: str) -> str:
        return f"after.{rename(f'steps.{key[6:]}')[6:]}" if key.startswith("after.") else key

    return {key_of(key): value_of(value) for key, value in facts.items()}
