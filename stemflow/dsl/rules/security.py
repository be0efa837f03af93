"""SF6: credentials in the file, and secrets that reach places where they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stemflow.dsl.findings import Position
from stemflow.dsl.inputs import is_secret
from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.view import View
from stemflow.dsl.source import Node

_SECRET_KEY = re.compile(r"(?i)(^|[_-])(password|passwd|pwd|secret|token|api[_-]?key|private[_-]?key|access[_-]?key)$")
_KNOWN = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|sk_live_[A-Za-z0-9]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."
)
_URL = re.compile(r"(?<=[a-z0-9+.-])://[^\s/:@]+:([^\s/@]+)@")
_PLACEHOLDERS = frozenset({"", "changeme", "change-me", "example", "none", "null", "test", "xxx", "***", "todo"})


def _values(view: View) -> Iterator[tuple[str, Node, Position]]:
    """(key, value, position) of every text in `vars`, `args`, `defaults` of inputs and `labels`."""
    pending: list[tuple[str, Node]] = []
    for key in ("vars", "labels"):
        node = view.root.get(key)
        pending += [] if node is None else list(node.members.items())
    for step in (*view.having("args"), *view.undos.values()):
        args = step.node.get("args")
        pending += [] if args is None else list(args.members.items())
    while pending:
        key, node = pending.pop()
        if isinstance(node.value, str):
            yield key, node, node.place
        pending += [(key, one) for one in node.items]
        pending += list(node.members.items())


@rule("SF601", "warning")
def credentials_in_clear(view: View) -> Iterator[Found]:
    """A password, token or key as a plain value."""
    for key, node, place in _values(view):
        if "${{" in node.value:
            continue
        named = _SECRET_KEY.search(key) is not None and node.value.strip().lower() not in _PLACEHOLDERS
        if _KNOWN.search(node.value) or (named and len(node.value) > 3 and " " not in node.value.strip()):
            yield Found(
                f"{key}: this looks like a credential, and everyone who reads the file sees it",
                place,
                "read it in the task, from its environment or a vault",
            )


@rule("SF604", "warning")
def passwords_in_urls(view: View) -> Iterator[Found]:
    """A URL with a password in it."""
    for key, node, place in _values(view):
        found = _URL.search(node.value)
        if found is not None and "${{" not in found[1] and found[1].strip("*"):
            yield Found(f"{key}: this URL holds a password", place, "read the password in the task")


@rule("SF602", "warning")
def secrets_in_keys(view: View) -> Iterator[Found]:
    """An input that is named like a secret, in a key or an output, where it is stored and shown."""
    shown = {id(node) for node in _shown(view)}
    declared = {name for name, schema in view.inputs.items() if is_secret(schema)}  # these are errors
    for read in view.reads:
        if id(read.node) not in shown:
            continue
        for one in read.references:
            if one.path[0] not in ("inputs", "vars") or len(one.path) == 1 or one.path[1] in declared:
                continue
            if _SECRET_KEY.search(one.path[1]):
                yield Found(
                    f"`{'.'.join(one.path[:2])}` looks like a secret, and a key or an output is shown in clear",
                    view.at(read, one.column, one.end),
                    "use a value that is not secret, or hash(...)",
                )


def _shown(view: View) -> Iterator[Node]:
    """Scalars whose values appear in lists of runs and claims, or as the result of the run."""
    pending: list[Node] = []
    for key in ("unique", "concurrency", "rate_limit"):
        for step in view.having(key):
            node = step.node.get(key)
            for one in [] if node is None else node.items or [node]:
                inner = one.get("key")
                pending += [] if inner is None else [inner]
    for step in view.having("group_rate_key"):
        group = step.node.get("group_rate_key")
        pending += [] if group is None else [group]
    outputs = view.root.get("outputs")
    pending += [] if outputs is None else [outputs]
    while pending:
        node = pending.pop()
        yield node
        pending += [*node.items, *node.members.values()]


@rule("SF603", "warning")
def secrets_with_defaults(view: View) -> Iterator[Found]:
    """An input that is named like a secret and has a default."""
    for name, schema in view.root.entries("inputs").items():
        default = schema.get("default") if isinstance(schema.value, dict) else None
        if default is None or not isinstance(default.value, str) or not _SECRET_KEY.search(name):
            continue
        if default.value.strip().lower() not in _PLACEHOLDERS:
            yield Found(
                f"inputs.{name}: the default is a credential that everyone who reads the file sees",
                default.place,
                "leave the default out",
            )
