"""Expressions in the file: each is read with the names that exist in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from stemflow.dsl import foreign
from stemflow.dsl.findings import Findings
from stemflow.dsl.source import Node
from stemflow.dsl.spans import place_inside
from stemflow.expr import ExpressionError, Reference, parse_condition, parse_template

Names = frozenset[str]

WHOLE_RUN: Names = frozenset({"inputs", "vars", "run"})
"""What every expression of a step may read; `steps` is added where the body is `steps`."""

SUBMITTED: Names = frozenset({"inputs", "vars"})
"""What is known before there is a run."""

FAILURE: Names = frozenset({"error", "attempt", "elapsed", "args"})
"""What retry.when reads, besides the inputs."""

TICK: Names = frozenset({"tick"})
"""What the inputs of a schedule read."""

EVENT: Names = frozenset({"event"})
"""What `on.event` reads."""

ELSEWHERE = {
    "inputs": "a template reads `params`",
    "vars": "retry.when reads `error`, `attempt`, `elapsed`, `args` and `inputs`",
    "attempt": "it exists in retry.when",
    "elapsed": "it exists in retry.when",
    "steps": "it exists when the body of the file is `steps`",
    "params": "it exists in the `do` of a template",
    "prev": "it exists in a chain, from the second step on",
    "results": "it exists in the `then` of a chord, up to the first step of a chain in it",
    "carry": "it exists in a loop: in `do`, `while` and `until`",
    "event": "it exists in `match` of an event, and in on.event",
    "item": "it exists in the `do` of a map that has no `as`",
    "index": "it exists in the `do` of a map that has no `index`",
    "error": "it exists in retry.when, in catch and finally, and in the hooks of the file",
    "self": "it exists in compensate, catch and finally, and in the hooks of the file",
    "args": "it exists in keys of a task (unique.key, concurrency.key, rate_limit.key, group_rate_key) and retry.when",
    "headers": "it exists in rate_limit.key and group_rate_key of a task",
    "tick": "it exists in the inputs of a schedule: on.schedule.NAME.inputs",
    "run": "it exists once there is a run, in steps and outputs",
    "env": "it has no name in expressions: handlers read context.env",
}
"""A name used where it does not exist -> where it does."""


class Read(NamedTuple):
    """An expression or a text with expressions, with the names that exist there. `path` is that of the step."""

    node: Node
    names: Names
    path: str
    bare: bool
    references: tuple[Reference, ...]


@dataclass(slots=True)
class Expressions:
    """Reads the expressions of one file and keeps those that can be read, for the rules."""

    text: str
    findings: Findings
    reads: list[Read] = field(default_factory=list)

    def condition(self, node: Node | None, names: Names, path: str) -> str | None:
        """The text of a key that takes a bare expression."""
        if node is None:
            return None
        if isinstance(node.value, bool):
            return "true" if node.value else "false"
        self._read(node, names, path, bare=True)
        return str(node.value)

    def template(self, node: Node | None, names: Names, path: str) -> None:
        """Read every `${{ }}` in a tree of values."""
        for scalar in self._scalars(node):
            self._read(scalar, names, path, bare=False)

    def refuse(self, node: Node | None, what: str) -> None:
        """Report each expression in `node`, which takes plain values only."""
        for scalar in self._scalars(node):
            self.findings.error("SF203", f"{what}: expected plain values, got an expression", scalar.place,
                                "use the expression where the value is used")  # fmt: skip

    def _scalars(self, node: Node | None) -> Iterator[Node]:
        pending = [] if node is None else [node]
        while pending:
            one = pending.pop()
            if isinstance(one.value, str):
                if "${{" in one.value:
                    yield one
                continue
            for key, place in one.keys.items():
                if "${{" in key:
                    self.findings.error("SF203", "a key cannot be an expression", place,
                                        "write one expression that gives the whole mapping")  # fmt: skip
            pending.extend(one.items)
            pending.extend(one.members.values())

    def _read(self, node: Node, names: Names, path: str, bare: bool) -> None:
        """Read one scalar; an undefined name is reported and then accepted, so that the next one is reported too."""
        read = parse_condition if bare else parse_template
        passed: Names = frozenset()
        while True:
            try:
                found = read(node.value, names | passed)
            except ExpressionError as error:
                word = node.value[error.column : error.end]
                if not _is_undefined(node.value, names | passed, word, error, bare):
                    self._unreadable(node, error, word)
                    return
                self._undefined(node, error, word, names)
                passed |= {word}
            else:
                self.reads.append(Read(node, names | passed, path, bare, found.references))
                return

    def _unreadable(self, node: Node, error: ExpressionError, word: str) -> None:
        place = place_inside(self.text, node, error.column, error.end)
        if word in foreign.CALLS and "there is no function" in error.message:
            message = f"`{word}()` is a function of other workflow languages"
            self.findings.error("SF202", message, place, foreign.CALLS[word])
        else:
            braces = str(node.value).lstrip().startswith("{{")
            self.findings.error("SF201", error.message, place,
                                "write the expression without {{ }}" if braces else error.hint)  # fmt: skip

    def _undefined(self, node: Node, error: ExpressionError, word: str, names: Names) -> None:
        place = place_inside(self.text, node, error.column, error.end)
        if word == "secrets":
            message = "`secrets` exists in `args` and `env` of tasks only: here its value would be stored or shown"
            self.findings.error("SF605", message, place, "let a task read it, and use what that gives")
        elif word in foreign.NAMES:
            message = f"`{word}` is a name of other workflow languages"
            self.findings.error("SF202", message, place, foreign.NAMES[word])
        else:
            known = ", ".join(sorted(names))
            self.findings.error("SF204", f"unknown name `{word}`; available here: {known}", place,
                                ELSEWHERE.get(word, error.hint))  # fmt: skip


def _is_undefined(value: str, names: Names, word: str, error: ExpressionError, bare: bool) -> bool:
    """Whether the error is that `word` is no name here: with the name, this error goes away."""
    if not word.isidentifier() or word in names:
        return False
    try:
        (parse_condition if bare else parse_template)(value, names | {word})
    except ExpressionError as other:
        return (other.column, other.end, other.message) != (error.column, error.end, error.message)
    return True
