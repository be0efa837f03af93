"""The workflows that steps of a file call: other files of its project, and registered workflows."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from msgspec import structs

from stemflow.compile.arguments import TypedTasks
from stemflow.compile.rules import check
from stemflow.dsl import Parsed, parse_workflow
from stemflow.dsl.build import MOST_STEPS
from stemflow.dsl.findings import did_you_mean
from stemflow.dsl.rules import Callee, Unusable, View
from stemflow.dsl.rules.infer import Inference
from stemflow.dsl.rules.types import ANY, Type, object_of
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.signature import TaskSig
from stemflow.model.subworkflow import linked
from stemflow.model.tree import depth, everything, walk_all
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.other_files import bounded_text, others_of, project_of

MOST_DEPTH = 64
"""How deep the composites of a workflow and of those that it calls may be nested."""

Callees = Mapping[str, Callee | Unusable]


@runtime_checkable
class KnownWorkflows(Protocol):
    """Where workflows are registered: a registry."""

    @property
    def workflows(self) -> Mapping[str, Workflow]: ...


class CalledFiles:
    """Reads the files that a file calls, each once. `folder`: that of the file."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.root = project_of(self.folder)
        self._parsed: dict[Path, Parsed | Unusable] = {}
        self._findings: dict[Path, tuple[Diagnostic, ...]] = {}
        self._flows: dict[Path, Workflow] = {}

    def callees(self, own: Path, parsed: Parsed, known: Collection[str] | None) -> Callees:
        """What is known of the workflows that the file at `own` calls, by their `ref`."""
        found = {ref: self._callee(own, ref, known) for ref in _refs(parsed)}
        return {ref: one for ref, one in found.items() if one is not None}

    def linked(self, own: Path, flow: Workflow, known: Collection[str] | None) -> Workflow:
        """The workflow of the file at `own`, none of whose callees is unusable, with those that it calls."""
        registered: Mapping[str, Workflow] = known.workflows if isinstance(known, KnownWorkflows) else {}

        def find(ref: str) -> Workflow | None:
            return self._flow(own, ref, known) if is_path(ref) else registered.get(ref)

        return structs.replace(flow, body=linked(flow.body, find))

    def _flow(self, own: Path, ref: str, known: Collection[str] | None) -> Workflow | None:
        target = self._target(own, ref)
        if isinstance(target, Unusable):
            return None
        if target not in self._flows:
            parsed = self._read(target)
            if isinstance(parsed, Unusable) or parsed.workflow is None:
                return None
            self._flows[target] = self.linked(target, parsed.workflow, known)
        return self._flows[target]

    def below(self, own: Path, parsed: Parsed) -> set[Path]:
        """The files that the file at `own` calls, directly or through others, whether they are there or not."""
        found: set[Path] = set()
        pending = [(own, parsed)]
        while pending:
            at, read = pending.pop()
            for ref in _refs(read):
                target = self._target(at, ref) if is_path(ref) else None
                if isinstance(target, Path) and target not in found:
                    found.add(target)
                    inner = self._read(target)
                    pending += [(target, inner)] if isinstance(inner, Parsed) else []
        return found

    # -- one callee

    def _callee(self, own: Path, ref: str, known: Collection[str] | None) -> Callee | Unusable | None:
        if not is_path(ref):
            return _registered(ref, known)
        target = self._target(own, ref)
        if isinstance(target, Unusable):
            return target
        way = [] if target == own else self._way(target, own)
        if way or target == own:
            names = " -> ".join(one.name for one in (own, *way, own))
            return Unusable(f"{names}: workflows that call each other never end",
                            "call one that does not lead back here, or use a loop", circle=True)  # fmt: skip
        parsed = self._read(target)
        if isinstance(parsed, Unusable):
            return parsed
        errors = [one for one in self._check(target, parsed, known) if one.severity == "error"]
        if errors:
            first = errors[0]
            more = f", and {len(errors) - 1} more errors" if len(errors) > 1 else ""
            return Unusable(f"{ref} has an error in line {first.line}: {first.code}: {first.message}{more}",
                            "`stemflow validate` shows all errors of that file")  # fmt: skip
        return self._sound(target, ref, parsed, known)

    def _sound(self, target: Path, ref: str, parsed: Parsed, known: Collection[str] | None) -> Callee | Unusable:
        assert parsed.workflow is not None and parsed.view is not None
        size = self._size(target, parsed)
        if size > MOST_STEPS:
            return Unusable(f"{ref} and the workflows that it calls have {size:,} steps, more than {MOST_STEPS:,}",
                            "write wait: false, which starts a run of its own")  # fmt: skip
        flow = self._flow(target, f"./{target.name}", known)
        if flow is not None and depth(flow.body) > MOST_DEPTH:
            return Unusable(f"{ref} and the workflows that it calls are nested deeper than {MOST_DEPTH} levels",
                            "write wait: false, which starts a run of its own")  # fmt: skip
        facts = known if isinstance(known, TypedTasks) else None
        view = self.view(target, parsed, known)
        output = ANY if view is None else Inference(view, facts).environment.whole()
        return _callee_of(parsed.workflow if flow is None else flow, output)

    def view(self, own: Path, parsed: Parsed, known: Collection[str] | None) -> View | None:
        """The file as rules see it, with what is known of its callees."""
        return parsed.view_with(self.callees(own, parsed, known))

    def _check(self, target: Path, parsed: Parsed, known: Collection[str] | None) -> tuple[Diagnostic, ...]:
        if target not in self._findings:
            self._findings[target] = findings(parsed, known, self.callees(target, parsed, known))
        return self._findings[target]

    def _size(self, own: Path, parsed: Parsed) -> int:
        """The steps of a file and of the files that it calls, each counted wherever it is called."""
        assert parsed.view is not None
        total = len(parsed.view.steps) - 1
        for _, _, ref in parsed.view.refs():
            target = self._target(own, ref) if is_path(ref) else None
            inner = self._read(target) if isinstance(target, Path) else None
            if isinstance(inner, Parsed) and isinstance(target, Path) and total <= MOST_STEPS:
                total += self._size(target, inner)
        return total

    def _way(self, start: Path, end: Path) -> list[Path]:
        """The files from `start` to the one that calls `end`; none if none of them does."""
        before: dict[Path, Path | None] = {start: None}
        pending = [start]
        while pending:
            at = pending.pop()
            parsed = self._read(at)
            for ref in [] if isinstance(parsed, Unusable) else _refs(parsed):
                target = self._target(at, ref) if is_path(ref) else None
                if target == end:
                    way = [at]
                    while (one := before[way[0]]) is not None:
                        way.insert(0, one)
                    return way
                if isinstance(target, Path) and target not in before:
                    before[target] = at
                    pending.append(target)
        return []

    # -- files

    def _target(self, own: Path, ref: str) -> Path | Unusable:
        """The file that a `ref` of the file at `own` means."""
        if os.path.isabs(ref):
            return Unusable(f"{ref}: expected a path from this file, such as ./other.yaml, got an absolute one")
        path = Path(os.path.realpath(own.parent / ref))
        if not path.is_relative_to(self.root):
            return Unusable(f"{ref} is not below the folder of the project, {self.root.name or self.root}",
                            "put the file into the project; links that lead out of it are not followed")  # fmt: skip
        return path

    def _read(self, path: Path) -> Parsed | Unusable:
        if path not in self._parsed:
            self._parsed[path] = _parsed(path)
        return self._parsed[path]


def _parsed(path: Path) -> Parsed | Unusable:
    try:
        text = bounded_text(path)
    except FileNotFoundError:
        near = sorted(one.name for one in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        return Unusable(f"there is no file {path.name}", did_you_mean(path.name, near, "files there"))
    except UnicodeDecodeError:
        return Unusable(f"{path.name} is not UTF-8 text")
    except OSError as error:
        return Unusable(f"{path.name} cannot be read: {error.strerror}")
    return parse_workflow(text, path.name, others_of(path))


def is_path(ref: str) -> bool:
    """Whether a `ref` is the path of a file, not a registered name."""
    return "/" in ref or ref.endswith((".yaml", ".yml"))


def findings(parsed: Parsed, known: Collection[str] | None, callees: Callees) -> tuple[Diagnostic, ...]:
    """All findings about a file; `known` None: no registry was named, so tasks are not looked up."""
    tasks = known if isinstance(known, TypedTasks) else None

    def built(workflow: Workflow) -> list[Diagnostic]:
        return check(workflow, parsed.locate, known)

    return parsed.check(tasks, built, callees)


def _refs(parsed: Parsed) -> dict[str, None]:
    return {} if parsed.view is None else {ref: None for _, _, ref in parsed.view.refs()}


def _registered(name: str, known: Collection[str] | None) -> Callee | Unusable | None:
    """The registered workflow of this name; None if no registry is known."""
    if not isinstance(known, KnownWorkflows):
        return None
    flow = known.workflows.get(name)
    if flow is None:
        hint = did_you_mean(name, known.workflows, "registered workflows") + "; a file is written ./other.yaml"
        return Unusable(f"no workflow is registered as `{name}`", hint)
    fields: dict[str, Any] = dict.fromkeys(flow.outputs or {}, ANY)
    return _callee_of(flow, object_of(fields, what=f"the outputs of {name}") if fields else ANY)


def _callee_of(flow: Workflow, output: Type) -> Callee:
    steps = dict(walk_all(flow.body))
    tasks = {one.task for one in everything(flow.body) if isinstance(one, TaskSig)}
    return Callee(flow.inputs, output, frozenset(path for path in steps if path), frozenset(tasks))
