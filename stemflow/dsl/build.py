"""Tree -> signature: every step of the file becomes a node of `stemflow.model.signature`.

What the schema has refused is left out, so that all other findings are still reported; the signature is used
only when nothing was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stemflow.dsl.build_repeated import RepeatedBuilder
from stemflow.dsl.build_waiting import WaitingBuilder
from stemflow.dsl.context import Context
from stemflow.dsl.expressions import Expressions, Names
from stemflow.dsl.findings import Findings, Position
from stemflow.dsl.inputs import read_schema
from stemflow.dsl.named_types import NamedTypes
from stemflow.dsl.options import OptionReader
from stemflow.dsl.schema import keys_of
from stemflow.dsl.source import Node
from stemflow.dsl.templates import HOME, KNOWN_INSIDE, Template, Templates, Use
from stemflow.dsl.vocabulary import COMPLETION, KINDS, MEMBER_POLICY
from stemflow.model.completion import Completion, completion_of_tolerance
from stemflow.model.records import child_path
from stemflow.model.secret_source import SecretSource, input_of
from stemflow.model.signature import (
    FAIL_TYPE,
    AnySig,
    CatchOn,
    ChainSig,
    ChordSig,
    FailSig,
    GroupSig,
    SetSig,
    StepsSig,
    SwitchSig,
    TaskSig,
    WorkflowSig,
)
from stemflow.model.step_names import DEFAULT_CASE, case_name

MOST_STEPS = 10_000
MOST_NESTING = 32
THEN = "then"
"""Last part of the path of a chord's body."""
INNER_OUTPUTS = "!outputs"
"""Last part of the path under which the expressions in the outputs of an inner graph are kept."""
ENDED: Names = frozenset({"self", "error"})
"""The names by which what runs after a step reads how that step ended."""


class Spot(NamedTuple):
    """Position of a step: its mapping, the name or the value that leads to it, and what surrounds it."""

    node: Node
    place: Position
    context: Context | None = None


@dataclass(slots=True)
class Builder:
    """Builds the steps of one file and remembers the place of each."""

    findings: Findings
    expressions: Expressions
    options: OptionReader
    types: NamedTypes
    templates: Templates
    spots: dict[str, Spot] = field(default_factory=dict)
    secrets: Mapping[str, SecretSource] = field(default_factory=dict)
    """Those of the file, by name."""

    @property
    def waiting(self) -> WaitingBuilder:
        """Builds the steps that hold no worker while they wait, and those that send events."""
        return WaitingBuilder(self.findings, self.expressions, self.options, self.types)

    @property
    def repeated(self) -> RepeatedBuilder:
        """Builds maps and loops, whose body runs many times."""
        return RepeatedBuilder(self.findings, self.expressions, self.step)

    def steps(self, node: Node, names: Names, outputs: Any, fail_fast: bool) -> StepsSig[Any, Any]:
        """The body `steps`: a graph of named steps."""
        root = Context("", node.place, names)
        return StepsSig(
            steps=self._named(node, root, names), outputs=outputs, fail_fast=fail_fast, at=node.place[:2]
        )  # fmt: skip

    def _named(self, node: Node, around: Context, names: Names) -> tuple[AnySig, ...]:
        """The steps of a graph."""
        siblings = frozenset(node.members)
        found = []
        for name, member in node.members.items():
            found.append(self.step(member, around.inner(name, node.keys[name], names, name, siblings)))
        return _present(found)

    def step(self, node: Node, context: Context) -> AnySig | None:
        """A step of any kind; None when it is not one (which the schema has reported)."""
        if node.flawed or not isinstance(node.value, dict):
            return None
        self.spots[context.path] = Spot(node, context.place, context)
        if not self._within_limits(context):
            return None
        if "template" in node.members:
            return self._copied(node, context)
        kind = next((kind for kind in KINDS if kind in node.members), None)
        body = node.get(kind) if kind is not None else None
        if kind is None or body is None:
            return None
        common = self._common(node, context, kind)
        found = self.kind(kind, node, body, context, common)
        shared = {} if kind == "task" or found is None else self.options.placement(node)
        return found.with_options(**shared) if found is not None and shared else found  # type: ignore[return-value]

    def _copied(self, node: Node, context: Context) -> AnySig | None:
        """A step that names a template: the step of the template, at the path of this one."""
        self.expressions.template(node.get("args"), context.names | {"secrets"}, context.path)
        template = self.templates.of(node)
        copy = None if template is None else self.templates.copy(node, template, context)
        if template is None or copy is None:
            return None
        kind = next((kind for kind in KINDS if kind in copy.members), None)
        for key in node.members.keys() - {"template", "args"} if kind is not None else ():
            if key not in keys_of(str(kind)) and key in keys_of("template"):
                message = f"{context.path}: `{key}` has no meaning next to `{kind}`, which `{template.name}` is"
                self.findings.error("SF014", message, node.keys[key])
        self.templates.uses.append(Use(context.path, template, node.get("args")))
        del self.spots[context.path]
        return self.step(copy, context)

    def template(self, template: Template) -> None:
        """Check a template of the file in its own place, and keep what its copies need to know."""
        first = len(self.expressions.reads)
        do = template.node.members["do"]
        context = Context(child_path(HOME, template.name), template.node.keys["do"], KNOWN_INSIDE)
        if self.step(do, context) is None:
            template.usable = False
        template.reads = {id(read.node): read for read in self.expressions.reads[first:]}
        inside = (spot.context for path, spot in self.spots.items() if path.startswith(context.path))
        template.steps = frozenset[str]().union(*(one.siblings or () for one in inside if one is not None))

    def kind(self, kind: str, node: Node, body: Node, context: Context, common: dict[str, Any]) -> AnySig | None:
        """The signature of `node`, whose key `kind` holds `body`."""
        build: dict[str, Callable[[], AnySig | None]] = {
            "task": lambda: self._task(node, context, common),
            "steps": lambda: self._graph(node, body, context, common),
            "chain": lambda: ChainSig(steps=self._chain(body, context), **common),
            "group": lambda: GroupSig(members=self._members(body, context), **common),
            "chord": lambda: self._chord(body, context, common),
            "map": lambda: self.repeated.map(body, context, common),
            "switch": lambda: self._switch(body, context, common),
            "loop": lambda: self.repeated.loop(body, context, common),
            "workflow": lambda: self._workflow(body, context, common),
            "set": lambda: self._set(body, context, common),
            "fail": lambda: self._fail(body, context, common),
            "event": lambda: self.waiting.event(body, context, common),
            "emit": lambda: self.waiting.emit(body, context, common),
            "approval": lambda: self.waiting.approval(body, context, common),
            "wait": lambda: self.waiting.wait(body, context, common),
        }
        return build[kind]()

    def _within_limits(self, context: Context) -> bool:
        count = len(self.spots) - 1  # the file itself is a spot
        if count == MOST_STEPS + 1:
            self.findings.error("SF003", f"the file has more than {MOST_STEPS:,} steps", context.place,
                                "use a map over a list")  # fmt: skip
        if context.depth == MOST_NESTING + 1:
            self.findings.error("SF003", f"steps are nested deeper than {MOST_NESTING} levels", context.place,
                                "make steps of the inner ones and refer to their output")  # fmt: skip
        return count <= MOST_STEPS and context.depth <= MOST_NESTING

    # -- what every kind may have

    def _common(self, node: Node, context: Context, kind: str) -> dict[str, Any]:
        common: dict[str, Any] = {"at": context.place[:2]}
        if context.name is not None:
            common["name"] = context.name
        when = self.expressions.condition(node.get("when"), context.names, context.path)
        if when is not None:
            common["when"] = when
        for key, target in (("run_on", "run_on"), ("on_error", "on_error"), ("on_member_error", "policy")):
            value = node.text(key)
            if value is not None and (key != "on_member_error" or kind in MEMBER_POLICY):
                common[target] = value
        if kind in COMPLETION:
            completion = self._completion(node)
            if completion is not None:
                common["completion"] = completion
        labels = node.get("labels")
        if labels is not None:
            self.expressions.refuse(labels, "labels")
            common["labels"] = {name: one.value for name, one in labels.members.items() if not one.flawed}
        returns = read_schema(node.get("returns"), "returns", self.types)
        if returns is not None:
            common["returns"] = returns
        needs = node.get("needs")
        if needs is not None:
            common["needs"] = self._needs(needs, node, context)
        common |= self.follow_ups(node, context, kind)
        undo = node.get("compensate")
        if undo is not None:
            self.spots[f"{context.path}!compensate"] = Spot(undo, node.key_place("compensate"))
            within = context._replace(names=context.names | {"self"}, name=None, place=undo.place)
            common["compensate"] = self._task(undo, within, {"at": undo.place[:2]})
        if "task" not in node.members:
            timeout = node.text("timeout")
            if timeout is not None and "${{" in timeout:
                self.expressions.template(node.get("timeout"), context.names, context.path)
                common["timeout"] = timeout
            elif (timeout_ms := self.options.duration_ms(node, "timeout")) is not None:
                common["timeout_ms"] = timeout_ms
            concurrency = self.options.concurrency(node, context.names, context.path)
            if concurrency is not None:
                common["concurrency"] = concurrency
        return common

    def _completion(self, node: Node) -> Completion | None:
        """`race`, `quorum` or `tolerate` of a group or map; the rule SF523 finds what cannot be meant."""
        race, quorum, tolerate = (node.get(key) for key in ("race", "quorum", "tolerate"))
        if race is not None and race.value is True:
            return Completion(quorum=1, race=True)
        if quorum is not None:
            return Completion(quorum=quorum.value)
        return None if tolerate is None else completion_of_tolerance("", tolerate.value)

    def follow_ups(self, node: Node, context: Context, kind: str) -> dict[str, Any]:
        """Catches and the cleanup of a step or of the file, which see what its members see, and how it ended."""
        inner = context._replace(names=context.names | ENDED | ({"steps"} if kind == "steps" else frozenset()))
        catch, cleanup = node.get("catch"), node.get("finally")
        found: dict[str, Any] = {}
        pairs = [] if catch is None else self._catches(catch, node.keys["catch"], inner)
        if pairs:
            found["catches"], found["catch_on"] = zip(*pairs, strict=True)
        if cleanup is not None:
            found["cleanup"] = self.step(cleanup, inner.inner("!finally", node.keys["finally"], inner.names))
        return found

    def _catches(self, node: Node, place: Position, context: Context) -> list[tuple[AnySig, CatchOn]]:
        found = []
        for number, one in enumerate(node.items if isinstance(node.value, list) else [node]):
            on, do, path = one.get("on"), one.get("do"), "!catch" if number == 0 else f"!catch{number + 1}"
            when = self.expressions.condition(one.get("when"), context.names, context.path + path)
            if do is None:
                continue
            body = self.step(do, context.inner(path, one.keys.get("do", place), context.names))
            if body is not None:
                types = () if on is None else self.options.class_names(on, "catch.on")
                found.append((body, CatchOn(types, when)))
        return found

    def hook(self, node: Node | None, segment: str, context: Context) -> tuple[AnySig, ...]:
        """The step of a hook of the file."""
        do = None if node is None else node.get("do")
        if node is None or do is None:
            return ()
        names = context.names | ENDED
        return _present([self.step(do, context.inner(segment, node.keys["do"], names))])

    def _needs(self, needs: Node, node: Node, context: Context) -> tuple[str, ...]:
        if context.siblings is None:
            self.findings.error("SF017", f"{context.path}: `needs` belongs to the steps of `steps` themselves",
                                node.key_place("needs"), "put it on the step around this one")  # fmt: skip
            return ()
        return tuple(one.value for one in needs.items if not one.flawed)

    # -- the kinds

    def _task(self, node: Node, context: Context, common: dict[str, Any]) -> TaskSig[Any, Any]:
        self.expressions.refuse(node.get("task"), "task")
        task = node.text("task") or ""
        defaults = self.options.layer_of(task)
        args = {**defaults.args, **self._values(node.get("args"), context)}
        env = {**defaults.env, **self._values(node.get("env"), context)}
        return TaskSig(
            task=task,
            bind=args,
            options=self.options.read(node, context.names, context.path, defaults),
            env=env,
            secrets=self._readable(f"{args}{env}") if self.secrets else {},
            timeout=self.options.hard_limit(node, context.names, context.path),
            **common,
        )

    def _readable(self, text: str) -> dict[str, SecretSource]:
        """The secrets that expressions in this text may read."""
        words = {True: "secrets" in text, False: "inputs" in text}
        return {name: source for name, source in self.secrets.items() if words[input_of(name) is None]}

    def _values(self, node: Node | None, context: Context) -> dict[str, Any]:
        """The arguments or variables of a task, whose values may hold expressions and read secrets."""
        self.expressions.template(node, context.names | {"secrets"}, context.path)
        return {} if node is None else node.value

    def _chain(self, body: Node, context: Context) -> tuple[AnySig, ...]:
        found = []
        for i, item in enumerate(body.items):
            # One value comes before a step, and it is either `prev` or `results`.
            names = context.names - {"results"} | {"prev"} if i else context.names
            found.append(self.step(item, context.inner(f"[{i}]", item.place, names)))
        return _present(found)

    def _members(self, body: Node, context: Context) -> tuple[AnySig, ...]:
        listed = [
            self.step(item, context.inner(f"[{i}]", item.place, context.names)) for i, item in enumerate(body.items)
        ]
        named = [
            self.step(item, context.inner(name, body.keys[name], context.names, name))
            for name, item in body.members.items()
        ]
        return _present([*listed, *named])

    def _chord(self, body: Node, context: Context, common: dict[str, Any]) -> ChordSig[Any, Any] | None:
        header, then = body.get("group"), body.get("then")
        members = () if header is None else self._members(header, context)
        if header is not None and THEN in header.members:
            self.findings.error("SF012", f"{context.path}: a member of a chord cannot be called `{THEN}`, its body is",
                                header.keys[THEN], "choose another name")  # fmt: skip
        if then is None:
            return None
        names = context.names - {"prev"} | {"results"}
        after = self.step(then, context.inner(THEN, body.keys["then"], names))
        return None if after is None else ChordSig(header=members, body=after, **common)

    def _graph(self, node: Node, body: Node, context: Context, common: dict[str, Any]) -> StepsSig[Any, Any]:
        names = context.names | {"steps"}
        outputs, fail_fast = node.get("outputs"), node.get("fail_fast")
        self.expressions.template(outputs, names, child_path(context.path, INNER_OUTPUTS))
        return StepsSig(
            steps=self._named(body, context, names),
            outputs=None if outputs is None else outputs.value,
            fail_fast=fail_fast is not None and fail_fast.value is True,
            **common,
        )

    def _switch(self, body: Node, context: Context, common: dict[str, Any]) -> SwitchSig[Any, Any] | None:
        on = self.expressions.condition(body.get("on"), context.names, context.path)
        cases, default = body.get("cases"), body.get("default")
        found: dict[str, AnySig] = {}
        for i, (key, item) in enumerate({} if cases is None else cases.members.items()):
            assert cases is not None
            name = case_name(key)
            if key == DEFAULT_CASE:
                self.findings.error("SF012", f"{context.path}: a case cannot be called `{key}`", cases.keys[key],
                                    "put `default` next to `cases`")  # fmt: skip
            step = self.step(item, context.inner(name or f"[{i}]", cases.keys[key], context.names, name))
            if step is not None:
                found[key] = step
        otherwise = None
        if default is not None:
            otherwise = self.step(default, context.inner(DEFAULT_CASE, body.keys["default"], context.names))
        if on is None:
            return None
        return SwitchSig(on=on, keys=tuple(found), cases=tuple(found.values()), default=otherwise, **common)

    def _workflow(self, body: Node, context: Context, common: dict[str, Any]) -> WorkflowSig[Any, Any] | None:
        ref, given, wait = body.text("ref"), body.get("inputs"), body.get("wait")
        self.expressions.refuse(body.get("ref"), "workflow.ref")
        self.expressions.template(given, context.names, context.path)
        if ref is None:
            return None
        waited = wait is None or wait.value is True
        return WorkflowSig(ref=ref, given={} if given is None else given.value, wait=waited, **common)

    def _set(self, body: Node, context: Context, common: dict[str, Any]) -> SetSig[Any, Any]:
        self.expressions.template(body, context.names, context.path)
        return SetSig(values=body.value, **common)

    def _fail(self, body: Node, context: Context, common: dict[str, Any]) -> FailSig[Any, Any]:
        self.expressions.template(body, context.names, context.path)
        given = body.value if isinstance(body.value, dict) else {"message": body.value}
        error_type = given.get("type", FAIL_TYPE)
        return FailSig(message=given.get("message", ""), error_type=error_type, data=given.get("data"), **common)


def _present(found: list[AnySig | None]) -> tuple[AnySig, ...]:
    return tuple(one for one in found if one is not None)
