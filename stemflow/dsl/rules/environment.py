"""The types of the names that an expression may use, by its place in the file."""

from __future__ import annotations

from collections.abc import Callable

from stemflow.dsl.expressions import FAILURE, Read
from stemflow.dsl.inputs import is_secret
from stemflow.dsl.rules.types import (
    ANY,
    BOOLEAN,
    INTEGER,
    NULL,
    NUMBER,
    STRING,
    Type,
    array_of,
    object_of,
    of_schema,
    of_value,
    or_null,
    union,
)
from stemflow.dsl.rules.view import Step, TaskFacts, View
from stemflow.dsl.source import Node
from stemflow.dsl.templates import HOME
from stemflow.dsl.vocabulary import STEP_STATES
from stemflow.model.records import child_path, parent_path

RUN = object_of({"id": STRING, "name": STRING, "created_at_ms": INTEGER}, what="run")
ERROR = object_of({"type": STRING, "qualname": STRING, "message": STRING, "data": ANY}, what="error")
TICK = object_of(
    {"at": STRING, "start": STRING, "end": STRING, "previous": STRING, "late_ms": INTEGER, "kind": STRING}, what="tick"
)
STATE = Type(frozenset({"string"}), STEP_STATES)


EVENT = object_of({"id": STRING, "type": STRING, "data": ANY, "time": STRING}, what="event")


class Environment:
    """Types of names, worked out when they are asked for and kept.

    `infer` gives the type of the expression in a node.
    """

    def __init__(self, view: View, infer: Callable[[Node], Type], tasks: TaskFacts | None = None) -> None:
        self.view, self.infer, self.tasks = view, infer, tasks
        self._outputs: dict[str, Type] = {}
        self._busy: set[str] = set()
        self._items: dict[str, Type] = {}
        self.inputs = object_of(
            {
                name: STRING if is_secret(schema) else of_schema(schema, "SF205", f"inputs.{name}")
                for name, schema in view.inputs.items()
            },
            closed=_is_readable(view, "inputs"),
            code="SF205",
            what="inputs",
        )
        values = view.root.get("vars")
        known = values.value if values is not None and isinstance(values.value, dict) else {}
        self.vars = object_of(
            {name: of_value(value, "SF206", f"vars.{name}") for name, value in known.items()},
            closed=_is_readable(view, "vars"),
            code="SF206",
            what="vars",
        )

    @property
    def secrets(self) -> Type:
        """The type of `secrets`."""
        return object_of(dict.fromkeys(self.view.root.entries("secrets"), STRING), code="SF606", what="secrets")

    def type_of(self, name: str, read: Read) -> Type:
        """The type of `name` in the expression `read`."""
        match name:
            case "inputs":
                return self.inputs
            case "vars":
                return self.vars
            case "secrets":
                return self.secrets
            case "params":
                return self._params(read.path)
            case "run":
                return RUN
            case "tick":
                return TICK
            case "error":
                follow_up = self.view.ended_around(read.path)
                failed = follow_up is not None and follow_up[1].startswith(("catch", "failure"))
                if failed or read.names >= FAILURE:
                    return ERROR
                return or_null(ERROR, "it is null unless the step failed")
            case "steps":
                return object_of({}, closed=False)
            case "self":
                return self._self(read)
            case "event":
                return self._event(read)
            case "prev":
                return self._before(read)
            case "results":
                return self._results(read.path)
            case "attempt" if read.names >= FAILURE:
                return INTEGER
            case "elapsed" if read.names >= FAILURE:
                return NUMBER
            case "args" | "headers":
                return object_of({}, closed=False)  # defaults of the task's own parameters are arguments too
        return self._loop_variable(name, read.path)

    def _params(self, path: str) -> Type:
        """The parameters of the template around an expression."""
        name = path.removeprefix(f"{HOME}.").partition(".")[0].partition("[")[0].partition("!")[0]
        template = self.view.templates.known.get(name)
        schemas = {} if template is None else template.params
        fields = {name: of_schema(schema, "SF205", f"params.{name}") for name, schema in schemas.items()}
        return object_of(fields, closed=template is not None, code="SF205", what="params")

    def _self(self, read: Read) -> Type:
        """`self`: in a compensation the step that is undone, in a follow-up the step after which it runs."""
        of = self.view.ended_around(read.path) if "error" in read.names else None
        if of is None:
            return object_of({"output": self.output(read.path, of_itself=True)}, what="self")
        return object_of({"output": ANY, "state": STATE, "error": ANY}, what="self")

    def step(self, name: str, read: Read) -> Type | None:
        """The type of `steps.NAME`; None where there is no such step, which another rule reports."""
        found = self.view.owner(read.path, name)
        if found is None:
            return None
        path = found[1]
        own = {"output": self.output(path), "state": STATE, "error": ANY, "members": ANY}
        return object_of(own, code="SF105", what=f"steps.{name}")

    def output(self, path: str, of_itself: bool = False) -> Type:
        """The type of the output of the step at `path`; what forgives its failure may leave null."""
        if path in self._busy:
            return ANY
        if path not in self._outputs:
            self._busy.add(path)
            step = self.view.steps.get(path)
            caught = [one for one in self.view.follow_ups.get(path, ()) if "!catch" in one[len(path) :]]
            found = ANY if step is None else self._output(step)
            self._outputs[path] = union([found, *map(self.output, caught)]) if caught else found
            self._busy.discard(path)
        step, found = self.view.steps.get(path), self._outputs[path]
        if of_itself or step is None or step.node.text("on_error") != "continue" or not path:
            return found
        return or_null(found, f"`{step.label}` has on_error: continue, so its output is null after a failure")

    def _output(self, step: Step) -> Type:
        declared = self._declared(step)
        if declared is not None:
            return declared
        children = self.view.children.get(step.path, [])
        if step.node.value.get("race") is True:
            return union(self.output(one) for one in children) if children else ANY
        match step.kind:
            case "task":
                return self._result(step.node.text("task"))
            case "chain":
                if step.body is not None and step.body.items:
                    return self.output(child_path(step.path, f"[{len(step.body.items) - 1}]"))
            case "chord":
                return self.output(child_path(step.path, "then"))
            case "group":
                count = len(children)
                whole = step.body is not None and count == len(step.body.items) + len(step.body.members)
                return array_of(
                    union(self._member(step, one) for one in children) if children else None,
                    count if whole else None,
                    "group",
                )
            case "steps":
                return self._graph(step.node.get("outputs"))
            case "map":
                return array_of(self._member(step, child_path(step.path, "[*]")), None, "map")
            case "workflow":
                return self._called(step)
            case "event" | "emit":
                return self._may_be_null(step, EVENT)
            case "approval":
                return self._approval(step)
            case "switch":
                if step.body is not None and "default" in step.body.members and children:
                    return union(self.output(one) for one in children)
            case "set":
                if step.body is not None and step.body.is_sound():
                    values = {name: self._output_value(one) for name, one in step.body.members.items()}
                    return object_of(values, what=f"the values of `{step.label}`")
        return ANY

    def _called(self, step: Step) -> Type:
        """The value of a sub-workflow; of one that is not waited for, its run id."""
        wait = None if step.body is None else step.body.get("wait")
        if wait is not None and wait.value is False:
            return object_of({"run_id": STRING}, what=f"the output of `{step.label}`")
        callee = self.view.callee(step)
        return ANY if callee is None else callee.output

    def whole(self) -> Type:
        """The value of the whole file, for a workflow that calls it."""
        outputs, body = self.view.root.get("outputs"), self.view.steps.get("")
        if outputs is not None:
            return self._graph(outputs)
        return ANY if body is None else NULL if body.kind == "steps" else self._output(body)

    def _event(self, read: Read) -> Type:
        """`event` in `match` of an event; elsewhere it is the item of a map with that name."""
        step = self.view.steps.get(read.path)
        if read.names == frozenset({"event"}):
            return EVENT  # of on.event
        return EVENT if step is not None and step.kind == "event" else self._loop_variable("event", read.path)

    def _may_be_null(self, step: Step, found: Type) -> Type:
        how = None if step.body is None else step.body.text("on_timeout")
        why = f"`{step.label}` has on_timeout: continue, so its output is null when no event came"
        return or_null(found, why) if how == "continue" else found

    def _approval(self, step: Step) -> Type:
        """The value of an approval; its inputs have the types of the form."""
        form = None if step.body is None else step.body.get("inputs")
        members = form.members if form is not None and form.is_sound() else {}
        schemas = {name: self.view.types.schema(one) for name, one in members.items()}
        inputs = {name: of_schema(schema, "SF206", f"inputs.{name}") for name, schema in schemas.items()}
        approved = step.body is None or (
            step.body.text("on_timeout") != "approve" and step.body.text("on_reject") != "continue"
        )
        sound = approved and (form is None or form.is_sound())
        known = object_of(inputs if approved else {}, closed=sound, what=f"the inputs of `{step.label}`")
        by = STRING if approved else or_null(STRING, f"`{step.label}` may end although nobody has approved")
        own = {"approved": BOOLEAN, "by": by, "note": STRING, "at": STRING, "inputs": known}
        return object_of(own, what=f"the answer of `{step.label}`")

    def _graph(self, outputs: Node | None) -> Type:
        """The value of a graph inside a step: its outputs."""
        if outputs is None or not isinstance(outputs.value, dict):
            return ANY
        return object_of({name: self._output_value(one) for name, one in outputs.members.items()}, what="the outputs")

    def _output_value(self, node: Node) -> Type:
        return self.infer(node) if isinstance(node.value, str) and "${{" in node.value else ANY

    def _member(self, step: Step, path: str) -> Type:
        """What one member adds to the list of a group or map."""
        member = self.view.steps.get(path)
        if (
            step.node.text("on_member_error") in ("collect", "ignore")
            or not {"quorum", "tolerate"}.isdisjoint(step.node.members)
            or member is None
            or "when" in member.node.members
        ):
            return ANY
        return self.output(path)

    def _declared(self, step: Step) -> Type | None:
        """The type of what the step says that it returns; None if it says nothing."""
        returns = step.node.get("returns") if step.path else None
        if returns is None or not returns.is_sound():
            return None
        what = step.node.text("task") or f"`{step.label}`"
        return of_schema(self.view.types.schema(returns), "SF307", f"the result of {what}", exact=True)

    def _result(self, task: str | None) -> Type:
        if task is None or self.tasks is None:
            return ANY
        schema = self.tasks.result_schema(task)
        return ANY if schema is None else of_schema(schema, "SF307", f"the result of {task}", exact=True)

    def _before(self, read: Read) -> Type:
        """`prev`: what the step before gives, in the nearest chain or chord around the expression."""
        path = read.path
        if not path:
            root = self.view.steps.get("")
            return ANY if root is None else self._output(root)
        while path:
            scope = parent_path(path)
            step = self.view.steps.get(scope)
            index = path[len(scope) :].strip("[]")
            if step is not None and step.kind == "chain" and index.isdecimal() and int(index) > 0:
                return self.output(child_path(scope, f"[{int(index) - 1}]"))
            path = scope
        return ANY

    def _results(self, path: str) -> Type:
        """`results`: the list of what the members of the nearest header give."""
        if not path:
            root = self.view.steps.get("")
            return ANY if root is None else self._output(root)
        while path:
            scope = parent_path(path)
            step = self.view.steps.get(scope)
            if step is not None and step.kind == "chord" and path == child_path(scope, "then"):
                members = [one for one in self.view.children.get(scope, []) if one != path]
                given = union(self._member(step, one) for one in members) if members else None
                return array_of(given, None, "group")
            path = scope
        return ANY

    def _loop_variable(self, name: str, path: str) -> Type:
        while path:
            scope = parent_path(path)
            step = self.view.steps.get(scope)
            if step is not None and step.kind == "loop" and name in ("carry", "index"):
                return ANY if name == "carry" else INTEGER
            if step is not None and step.kind == "map" and step.body is not None:
                if name == (step.body.text("index") or "index"):
                    return INTEGER
                if name == (step.body.text("as") or "item"):
                    return self._item(step)
            path = scope
        return ANY

    def _item(self, step: Step) -> Type:
        if step.path not in self._items:
            self._items[step.path] = ANY  # while it is worked out
            items = None if step.body is None else step.body.get("items")
            matrix = None if step.body is None else step.body.get("matrix")
            if step.body is not None and "batch" in step.body.members:
                found = None
            elif matrix is not None and isinstance(matrix.value, dict):
                lists = {
                    name: (of_value(one.value) if isinstance(one.value, list) else self.infer(one)).items or ANY
                    for name, one in matrix.members.items()
                }
                found = object_of(lists, what="the item of a matrix")
            elif items is not None and isinstance(items.value, list):
                found = of_value(items.value).items
            elif items is not None:
                found = self.infer(items).items
            else:
                found = None
            self._items[step.path] = found or ANY
        return self._items[step.path]


def _is_readable(view: View, key: str) -> bool:
    """Whether the mapping under `key` is sound, so that what is not in it does not exist."""
    node = view.root.members.get(key)
    return node is None or (node.is_sound() and isinstance(node.value, dict))
