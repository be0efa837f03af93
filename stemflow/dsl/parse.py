"""A workflow file as a whole: text -> workflow, findings, and the place of all that a later rule may speak of."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from msgspec import structs

from stemflow.dsl.build import Builder, Spot
from stemflow.dsl.cases import Case, CaseFile, read_cases, unknown_names
from stemflow.dsl.context import Context
from stemflow.dsl.expressions import SUBMITTED, WHOLE_RUN, Expressions
from stemflow.dsl.findings import Findings, Position
from stemflow.dsl.ignore import Ignores, read_ignores
from stemflow.dsl.inputs import inputs_schema, is_secret, read_inputs
from stemflow.dsl.named_types import NamedTypes
from stemflow.dsl.options import OptionReader
from stemflow.dsl.others import OtherFile, ReadOther, no_other, read_others
from stemflow.dsl.rules import Callee, TaskFacts, Unusable, View, check_view
from stemflow.dsl.rules.cases import known_to_cases
from stemflow.dsl.schedules import read_schedules
from stemflow.dsl.schema import check_shape
from stemflow.dsl.source import Node, read
from stemflow.dsl.templates import Templates, in_copies
from stemflow.dsl.vocabulary import BODIES, VALUE_OF
from stemflow.model.diagnostic import Diagnostic
from stemflow.model.secret_source import IN_INPUTS, SecretSource, of_input
from stemflow.model.signature import AnySig, StepsSig
from stemflow.model.workflow import Workflow

_KEY_PART = re.compile(r"[^.\[\]]+")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file says. `workflow` is None when reading it found an error.

    `draft` is the workflow as far as it could be built, for rules that look at what is left of a broken file.
    """

    workflow: Workflow | None
    draft: Workflow | None
    diagnostics: tuple[Diagnostic, ...]
    inputs_schema: dict[str, Any]
    cases: tuple[Case, ...]
    """Those under `tests`."""
    types: NamedTypes
    templates: Templates
    _findings: Findings
    _view: View | None
    _root: Node | None
    _spots: Mapping[str, Spot]
    _ignores: Ignores

    def check(
        self,
        tasks: TaskFacts | None,
        more: Callable[[Workflow], Iterable[Diagnostic]],
        callees: Mapping[str, Callee | Unusable] = MappingProxyType({}),
    ) -> tuple[Diagnostic, ...]:
        """Every finding about the file, in its order; `more` gives those of rules over the built workflow.

        `tasks` None: nothing is known about tasks, so rules about them are left out. `callees`: what is known of the
        workflows that steps call.
        """
        with _without_collection():
            return self._check(tasks, more, callees)

    def _check(
        self,
        tasks: TaskFacts | None,
        more: Callable[[Workflow], Iterable[Diagnostic]],
        callees: Mapping[str, Callee | Unusable],
    ) -> tuple[Diagnostic, ...]:
        findings = self._findings.copy()
        if self._view is not None:
            check_view(replace(self._view, callees=callees) if callees else self._view, tasks, findings)
        if self.draft is not None:
            for one in more(self.draft):
                place = Position(one.line, one.column, one.end_column)
                findings.add(one.code, one.message, place, one.hint, one.severity)
        found = [*in_copies(findings.by_place(), self.templates, "" if self._view is None else self._view.text)]
        kept = [one for one in found if not self._ignores.covers(one)]
        self._ignores.report_unused(found, tasks is not None, kept)
        return tuple(sorted(kept, key=lambda one: (one.line, one.column, one.code)))

    @property
    def view(self) -> View | None:
        """The file as rules see it; None when it could not be read."""
        return self._view

    def view_with(self, callees: Mapping[str, Callee | Unusable]) -> View | None:
        """The view, with what is known of the workflows that steps call."""
        return None if self._view is None else replace(self._view, callees=callees)

    def check_cases(
        self, cases: CaseFile, file: str, callees: Mapping[str, Callee | Unusable]
    ) -> tuple[Diagnostic, ...]:
        """The findings about a file of tests for this workflow; `callees` as for `check`."""
        findings, view = Findings(file), self.view_with(callees)
        if view is not None and cases.root is not None:
            for message, place, hint in unknown_names(cases.root.get("tests"), known_to_cases(view)):
                findings.error("SF310", message, place, hint)
        return tuple(sorted((*cases.diagnostics, *findings.by_place()), key=lambda one: (one.line, one.column)))

    def locate(self, path_of_step: str, key: str | None = None) -> Position:
        """Line, column and exclusive end column of a step, or of what `key` names in it.

        `key` is a dotted path (`needs[0]`, `args.x`; the key before a missing part is taken). The empty path is the
        file.
        """
        spot = self._spots.get(path_of_step)
        if spot is None:
            return Position() if self._root is None else self._root.place
        return spot.place if key is None else _inside(spot, _KEY_PART.findall(key))


def _inside(spot: Spot, parts: list[str]) -> Position:
    """The place of the value under a key: a scalar itself, else the key that leads to a collection."""
    node, place = spot.node, spot.place
    for part in parts:
        if part in node.members:
            place, node = node.keys[part], node.members[part]
        elif part.isdecimal() and int(part) < len(node.items):
            node = node.items[int(part)]
            place = node.place
        else:
            return place
    return place if isinstance(node.value, (dict, list)) else node.place


def parse_workflow(text: str, file: str, others: ReadOther = no_other) -> Parsed:
    """Read a workflow file. `file`: its path, with which the findings are labelled. `others` reads the files that it
    uses."""
    with _without_collection():
        return _parse(text, file, others, (OtherFile(text, file, file),))


@contextmanager
def _without_collection() -> Iterator[None]:
    """The tree is kept until the end; searching it for cycles again and again would take half of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _parse(text: str, file: str, others: ReadOther, chain: tuple[OtherFile, ...]) -> Parsed:
    text = text.removeprefix("\ufeff")
    findings = Findings(file)
    ignores = read_ignores(text, findings)
    root = read(text, findings)
    expressions = Expressions(text, findings)
    types = NamedTypes(findings)
    templates = Templates(findings, types)
    builder = Builder(findings, expressions, OptionReader(findings, expressions), types, templates)
    workflow, inputs, cases = None, dict[str, Any](), tuple[Case, ...]()
    if root is not None:
        check_shape(root, findings)
        if isinstance(root.value, dict):
            used = read_others(
                root.get("use"), file, others, chain, findings,
                lambda other, chain: _parse(other.text, other.file, others, chain),
            )  # fmt: skip
            for alias, parsed in used.items():
                types.take(alias, parsed.types)
                templates.take(alias, parsed.templates)
            types.read(root.get("types"))
            inputs = read_inputs(root.get("inputs"), types)
            builder.spots[""] = Spot(root, root.place)
            for template in templates.read(root.get("templates")):
                builder.template(template)
            workflow = _workflow(root, inputs, builder)
            cases = read_cases(root.get("tests"), expressions, findings)
    kept = tuple(one for one in findings.by_place() if not ignores.covers(one))
    usable = not any(one.severity == "error" for one in kept)
    view = None
    if root is not None and "" in builder.spots:
        view = View.of(text, root, inputs, expressions.reads, builder.spots, usable, types, templates)
    return Parsed(
        workflow if usable else None, workflow, kept, inputs_schema(inputs), cases,
        types, templates, findings, view, root, builder.spots, ignores,
    )  # fmt: skip


def _workflow(root: Node, inputs: dict[str, Any], builder: Builder) -> Workflow | None:
    expressions, options = builder.expressions, builder.options
    schedules = read_schedules(root.get("on"), root.text("name") or "", expressions)
    for key in ("name", "version", "description", "labels", "vars"):
        expressions.refuse(root.get(key), key)
    secrets = _secrets(root, expressions)
    builder.secrets = {**secrets, **{of_input(name): IN_INPUTS for name, one in inputs.items() if is_secret(one)}}
    defaults = root.get("defaults")
    task_defaults = options.placement(root)
    task_defaults |= {} if defaults is None else options.defaults(defaults.get("task"))
    if defaults is not None:
        options.defaults_by_task(defaults.get("tasks"))
    body = _body(root, builder)
    timeout_ms = options.duration_ms(root, "timeout")
    unique = _unique(root.get("unique"), builder)
    concurrency = options.concurrency(root, WHOLE_RUN, "")
    if body is None:
        return None
    body = _with_follow_ups(root, body, builder)
    return Workflow(
        name=root.text("name") or "",
        body=body,
        version=root.text("version"),
        description=root.text("description"),
        labels=_plain(root, "labels"),
        inputs=inputs,
        schedules=schedules,
        vars=_plain(root, "vars"),
        secrets=secrets,
        task_defaults=task_defaults,
        outputs=root.value.get("outputs"),
        timeout_ms=timeout_ms,
        concurrency=concurrency,
        compensate_on=(
            *(("failed",) if _plain(root, "on_failure").get("compensate") else ()),
            *(("cancelled",) if _plain(root, "on_cancel").get("compensate") else ()),
        ),
        **unique,
    )


def _with_follow_ups(root: Node, body: AnySig, builder: Builder) -> AnySig:
    """The body with the hooks of the run and its cleanup."""
    is_graph = isinstance(body, StepsSig)
    context = Context("", root.place, WHOLE_RUN | {"steps"} if is_graph else WHOLE_RUN)
    hooks = {
        f"{state}_hooks": builder.hook(root.get(f"on_{state}"), f"!{state}", context)
        for state in ("success", "failure", "cancel")
    }
    return structs.replace(body, **hooks, **builder.follow_ups(root, context, "steps" if is_graph else ""))


def _unique(node: Node | None, builder: Builder) -> dict[str, Any]:
    if node is None:
        return {}
    builder.expressions.template(node.get("key"), SUBMITTED, "")
    return {
        "unique_key": node.text("key"),
        "unique_for_ms": builder.options.duration_ms(node, "for"),
        "unique_mode": node.text("on_conflict") or "return_existing",
    }


def _secrets(root: Node, expressions: Expressions) -> dict[str, SecretSource]:
    """Name of a secret -> its source, as far as it is right; its name is known in any case."""
    node = root.get("secrets")
    expressions.refuse(node, "secrets")
    found: dict[str, SecretSource] = {}
    for name, one in ({} if node is None else node.members).items():
        provider = next(iter(one.members), None)
        key = None if provider is None else one.text(provider)
        if provider is not None and key is not None and one.is_sound():
            found[name] = SecretSource(provider, key)
    return found


def _plain(root: Node, key: str) -> dict[str, Any]:
    node = root.get(key)
    return {} if node is None else dict(node.value)


def _body(root: Node, builder: Builder) -> AnySig | None:
    kind = next((key for key in BODIES if key in root.members), None)
    node = None if kind is None else root.get(kind)
    if kind is None or node is None:
        return None
    names = WHOLE_RUN | {"steps"} if kind == "steps" else WHOLE_RUN
    builder.expressions.template(root.get("outputs"), names if kind == "steps" else names | {VALUE_OF[kind]}, "")
    if kind == "steps":
        fail_fast = root.get("fail_fast")
        stops = fail_fast is not None and fail_fast.value is True
        return builder.steps(node, names, root.value.get("outputs"), stops)
    place = root.keys[kind]
    return builder.kind(kind, root, node, Context("", place, names), {"at": place[:2]})
