"""What an editor is shown of a workflow file: findings, completions, hovers, definitions, renames, symbols."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stemflow.cli.lsp.cursor import Cursor, cursor_at
from stemflow.cli.lsp.schemas import described, first_line, resolved, schema_at, type_words
from stemflow.dsl.fixes import Edit, edit_of, suggestion
from stemflow.dsl.rules.environment import ERROR, RUN, STATE
from stemflow.dsl.rules.infer import Inference
from stemflow.dsl.rules.types import Type
from stemflow.dsl.rules.view import Callee, Step, View
from stemflow.dsl.source import Node
from stemflow.expr.functions import FUNCTION_NAMES
from stemflow.model.diagnostic import Diagnostic
from stemflow.runtime.catalog.lock import LockedTasks
from stemflow.runtime.client.workflow_files import WorkflowFile

_STEP_REFERENCE = re.compile(r"\bsteps\.([A-Za-z_][\w-]*)")
_INPUT_REFERENCE = re.compile(r"\b(inputs|vars)\.([A-Za-z_]\w*)")


class Completion(NamedTuple):
    """A word that may be written; `kind` is `key`, `value`, `field`, `function`, `step` or `task`."""

    label: str
    kind: str
    detail: str = ""


class Span(NamedTuple):
    """A part of a line: line and columns from 0, in characters; the end is exclusive."""

    line: int
    start: int
    end: int


class Symbol(NamedTuple):
    """A step, input or other named part of the file."""

    name: str
    detail: str
    span: Span
    last_line: int
    children: tuple[Symbol, ...] = ()


class Document:
    """One version of a file. `last`: the version before it that could be read, for a text that is being typed."""

    def __init__(
        self,
        text: str,
        name: str,
        tasks: Collection[str] | None,
        last: Document | None = None,
        path: Path | None = None,
    ) -> None:
        self.text, self.name, self.tasks = text, name, tasks
        self.file = WorkflowFile.of(text, name, path)
        own = self.file.view(tasks)
        self.is_current = own is not None
        self.view: View | None = own if own is not None else None if last is None else last.view
        self.view_text: str = text if own is not None or last is None else last.view_text

    def findings(self) -> tuple[Diagnostic, ...]:
        """The findings of `validate`."""
        return self.file.checked(self.tasks).found

    def actions(self, line: int) -> Iterator[tuple[str, Edit]]:
        """(title, edit) of the certain fixes and of the suggestions for the findings on a line."""
        for found in self.findings():
            if found.line - 1 != line:
                continue
            edit = edit_of(found, self.text)
            if edit is not None:
                yield f"Fix {found.code}: {found.hint or found.message}", edit
            edit = suggestion(found, self.text)
            if edit is not None:
                yield f"Write `{edit.text}`", edit

    # -- completion

    def completions(self, line: int, column: int) -> list[Completion]:
        """What may be written at a place."""
        cursor = cursor_at(self.text, line, column)
        if cursor.in_expression:
            return list(self._in_expression(cursor, line))
        if cursor.key is not None:
            return list(self._values(cursor))
        if cursor.path[-1:] == ("args",):
            return list(self._arguments(cursor))
        if cursor.path[-2:] == ("workflow", "inputs"):
            return list(self._inputs_of_called(cursor))
        schema = schema_at(cursor.path, self._value)
        present = set(self._value(cursor.path) or ())
        return [
            Completion(key, "key", described(inner))
            for key, inner in schema.get("properties", {}).items()
            if key not in present or key == cursor.word
        ]

    def _values(self, cursor: Cursor) -> Iterator[Completion]:
        if cursor.key == "task":
            for name in sorted(self.tasks or ()):
                yield Completion(name, "task", first_line(self._task(name).get("description", "")))
            return
        if cursor.key == "template":
            known = {} if self.view is None else self.view.templates.known
            yield from (Completion(name, "value", one.node.text("description") or "") for name, one in known.items())
            return
        if cursor.key == "needs":
            graph = self._graph(cursor.path)
            own = next((part for part in reversed(cursor.path) if part in graph), None)
            yield from (Completion(name, "step") for name in sorted(graph) if name != own)
            return
        inner = resolved(schema_at(cursor.path, self._value).get("properties", {}).get(cursor.key or "", {}))
        yield from (Completion(str(value), "value") for value in inner.get("enum", ()))
        if inner.get("type") == "boolean":
            yield from (Completion(word, "value") for word in ("true", "false"))

    def _arguments(self, cursor: Cursor) -> Iterator[Completion]:
        step = self._value(cursor.path[:-1]) or {}
        template = None if self.view is None else self.view.templates.known.get(str(step.get("template")))
        yield from _parameters({} if template is None else template.params)
        schema = self._task(str(step.get("task", "")))
        for name, inner in schema.get("properties", {}).items():
            needed = " (required)" if name in schema.get("required", ()) else ""
            yield Completion(name, "key", f"{type_words(inner)}{needed}")

    def _inputs_of_called(self, cursor: Cursor) -> Iterator[Completion]:
        """The inputs of the workflow that the step calls, in another file."""
        ref = (self._value(cursor.path[:-1]) or {}).get("ref")
        callee = None if self.view is None else self.view.callees.get(str(ref))
        if isinstance(callee, Callee):
            yield from _parameters(callee.inputs)

    def _task(self, name: str) -> Mapping[str, Any]:
        """The JSON Schema of the arguments of a task."""
        if isinstance(self.tasks, LockedTasks):
            found = self.tasks.tasks.get(name)
            return {} if found is None else found.declaration.schema
        schema = getattr(self.tasks, "schema", None)
        known = schema is not None and self.tasks is not None and name in self.tasks
        return schema(name) if known and schema is not None else {}

    def _graph(self, path: tuple[str | int, ...]) -> set[str]:
        """The names of the steps of the innermost graph around a place."""
        for end in range(len(path), 0, -1):
            if path[end - 1] == "steps":
                return set(self._value(path[:end]) or ())
        return set()

    def _in_expression(self, cursor: Cursor, line: int) -> Iterator[Completion]:
        head, dot, _ = cursor.word.rpartition(".")
        if not dot:
            step = self._step_at(line)
            names = {"inputs", "vars", "run"} if step is None or step.context is None else set(step.context.names)
            yield from (Completion(name, "field") for name in sorted(names))
            yield from (Completion(name, "function") for name in sorted(FUNCTION_NAMES))
            return
        if head == "steps":
            graph = self._graph(cursor.path) or self._graph(("steps",))
            yield from (Completion(name, "step") for name in sorted(graph))
            return
        found = self._type_of_path(head.split("."), line)
        if found is not None:
            yield from (Completion(name, "field", inner.words()) for name, inner in found.fields.items())

    def _type_of_path(self, parts: list[str], line: int) -> Type | None:
        """The type of a field path as it is written, such as `steps.pay.output`."""
        if self.view is None:
            return None
        environment = Inference(self.view, self._facts()).environment
        found: Type | None
        match parts[0]:
            case "inputs":
                found = environment.inputs
            case "vars":
                found = environment.vars
            case "secrets":
                found = environment.secrets
            case "run":
                found = RUN
            case "error":
                found = ERROR
            case "steps" if len(parts) > 1:
                step = self._step_at(line)
                owner = self.view.owner("" if step is None else step.path, parts[1])
                if owner is None:
                    return None
                own = {"output": environment.output(owner[1]), "state": STATE, "error": ERROR, "members": Type()}
                found, parts = Type(frozenset({"object"}), fields=own), parts[1:]
            case _:
                return None
        for part in parts[1:]:
            found = None if found is None else found.fields.get(part)
        return found

    def _facts(self) -> Any:
        return self.tasks if hasattr(self.tasks, "result_schema") else None

    def _value(self, path: tuple[str | int, ...]) -> Any:
        value: Any = None if self.view is None else self.view.root.value
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    # -- places

    def _step_at(self, line: int) -> Step | None:
        """The innermost step whose text has the line."""
        best: Step | None = None
        for step in () if self.view is None else self.view.steps.values():
            first, last = self._lines_of(step)
            if step.path and first <= line <= last:
                best = step
        return best

    def _lines_of(self, step: Step) -> tuple[int, int]:
        return step.place.line - 1, self._line_of(max(step.node.end - 1, step.node.start))

    def _line_of(self, offset: int) -> int:
        return self.view_text.count("\n", 0, offset)

    def hover(self, line: int, column: int) -> str | None:
        """Markdown about what is at a place: a task, the type of a field path, a step."""
        text = self._line(line)
        for found in re.finditer(r"task:\s*[\"']?([^\s,\"'}]+)", text):
            if found.start(1) <= column <= found.end(1):
                return self._task_words(found[1])
        for found in re.finditer(r"[A-Za-z_][\w.-]*", text):
            if found.start() <= column <= found.end() and "." in found[0]:
                end = found[0].find(".", max(column - found.start(), 0))
                parts = (found[0] if end < 0 else found[0][:end]).split(".")
                known = self._type_of_path(parts, line)
                if known is not None:
                    return f"`{'.'.join(parts)}`: {known.words()}"
        span = self._name_at(line, column)
        if span is not None and span[0] == "step" and self.view is not None:
            step = next((one for one in self.view.steps.values() if one.path.endswith(span[1])), None)
            return None if step is None else f"step `{step.path}` ({step.kind})"
        return None

    def _task_words(self, name: str) -> str | None:
        schema = self._task(name)
        if not schema:
            return None
        parameters = ", ".join(
            f"{one}: {type_words(inner)}" for one, inner in schema.get("properties", {}).items()
        )  # fmt: skip
        about = schema.get("description", "")
        return f"```\n{name}({parameters})\n```" + (f"\n\n{about}" if about else "")

    def _line(self, line: int) -> str:
        lines = self.text.split("\n")
        return lines[line] if line < len(lines) else ""

    def task_at(self, line: int, column: int) -> str | None:
        """The task whose name is at a place."""
        found = next((one for one in re.finditer(r"task:\s*[\"']?([^\s,\"'}]+)", self._line(line))
                      if one.start(1) <= column <= one.end(1)), None)  # fmt: skip
        return None if found is None else found[1]

    def definition(self, line: int, column: int) -> Span | None:
        """Where the step or input is defined whose name is at a place."""
        found = self._name_at(line, column)
        if found is None or self.view is None:
            return None
        what, name, _ = found
        if what != "step":
            holder = self.view.root.members.get(what)
            place = None if holder is None else holder.keys.get(name)
        else:
            step = self._owner(name, line)
            place = None if step is None else step.place
        return None if place is None else Span(place.line - 1, place.column - 1, place.end_column - 1)

    def _owner(self, name: str, line: int) -> Step | None:
        """The step that a name means at a line."""
        if self.view is None:
            return None
        around = self._step_at(line)
        owner = self.view.owner("" if around is None else around.path, name)
        return None if owner is None else self.view.steps.get(owner[1])

    def _name_at(self, line: int, column: int) -> tuple[str, str, Span] | None:
        """(`step`, `inputs` or `vars`; name; where) of the name at a place: a key, an item of `needs`, a reference."""
        text = self._line(line)
        for found in _INPUT_REFERENCE.finditer(text):
            if found.start() <= column <= found.end(2):
                return found[1], found[2], Span(line, found.start(2), found.end(2))
        for found in _STEP_REFERENCE.finditer(text):
            if found.start() <= column <= found.end(1):
                return "step", found[1], Span(line, found.start(1), found.end(1))
        if self.view is None or not self.is_current:
            return None
        for node in self._needs():
            place = node.place
            if place.line - 1 == line and place.column - 1 <= column < place.end_column:
                return "step", str(node.value), Span(line, place.column - 1, place.end_column - 1)
        for step in self.view.steps.values():
            place = step.place
            named = step.context is not None and step.context.name is not None
            if named and place.line - 1 == line and place.column - 1 <= column < place.end_column:
                return "step", _last(step.path), Span(line, place.column - 1, place.end_column - 1)
        return None

    def _needs(self) -> Iterator[Node]:
        for step in () if self.view is None else self.view.steps.values():
            needs = step.node.get("needs")
            yield from (() if needs is None else needs.items)

    def rename(self, line: int, column: int, new: str) -> list[tuple[Span, str]] | None:
        """The edits that give the step at a place another name: its key, `needs`, references and test cases.

        None where there is no step, the name cannot be one, or is taken.
        """
        found = self._name_at(line, column)
        if found is None or found[0] != "step" or self.view is None or not self.is_current:
            return None
        step = self._owner(found[1], line)
        if step is None or not re.fullmatch(r"[A-Za-z_][\w-]*", new):
            return None
        scope = step.path[: -len(found[1])].rstrip(".")
        if new in self.view.graphs.get(scope, ()):
            return None
        edits = [Span(step.place.line - 1, step.place.column - 1, step.place.end_column - 1)]
        for other in self.view.steps.values():
            needs = other.node.get("needs")
            if needs is not None and other.path.rpartition(".")[0] == scope:
                edits += [
                    Span(item.place.line - 1, item.place.column - 1, item.place.end_column - 1)
                    for item in needs.items if item.value == found[1] and item.place.line
                ]  # fmt: skip
        for read in self.view.reads:
            owner = self.view.owner(read.path, found[1])
            if owner is not None and owner[1] == step.path:
                edits += self._references(read.node, found[1])
        return [(span, new) for span in dict.fromkeys(edits)]

    def _references(self, node: Node, name: str) -> Iterator[Span]:
        raw = self.text[node.start : node.end]
        for found in _STEP_REFERENCE.finditer(raw):
            if found[1] == name:
                offset = node.start + found.start(1)
                line = self.text.count("\n", 0, offset)
                start = offset - (self.text.rfind("\n", 0, offset) + 1)
                yield Span(line, start, start + len(name))

    # -- symbols

    def symbols(self) -> list[Symbol]:
        """The inputs and steps of the file, as a tree."""
        if self.view is None or not self.is_current:
            return []
        inputs = self.view.root.members.get("inputs")
        listed = [] if inputs is None else [
            Symbol(name, "input", Span(place.line - 1, place.column - 1, place.end_column - 1), place.line - 1)
            for name, place in inputs.keys.items()
        ]  # fmt: skip
        return [*listed, *(self._symbol(path) for path in self.view.children.get("", ()))]

    def _symbol(self, path: str) -> Symbol:
        assert self.view is not None
        step = self.view.steps[path]
        place, (_, last) = step.place, self._lines_of(step)
        detail = f"{step.kind} {step.node.text('task') or ''}".strip()
        children = tuple(self._symbol(child) for child in self.view.children.get(path, ()))
        span = Span(place.line - 1, place.column - 1, max(place.end_column - 1, place.column))
        return Symbol(_last(path), detail, span, max(last, place.line - 1), children)


def _last(path: str) -> str:
    return re.split(r"[.]", path)[-1] if not path.endswith("]") else path[path.rindex("[") :]


def _parameters(schemas: Mapping[str, Any]) -> Iterator[Completion]:
    """The names of inputs or of parameters, by their JSON Schemas, with their types."""
    for name, schema in schemas.items():
        optional = "default" in schema or schema.get("required") is False
        yield Completion(name, "key", f"{type_words(schema)}{'' if optional else ' (required)'}")
