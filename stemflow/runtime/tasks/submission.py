"""What is asked of the engine when a run is submitted."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

from msgspec import Struct, structs

from stemflow.errors import OptionError
from stemflow.model.effects import Pages
from stemflow.model.facts import Requested
from stemflow.model.plan import Plan
from stemflow.model.records import ClaimSpec, Header, Key
from stemflow.model.signature import AnySig, Signature, expect_signature
from stemflow.model.tree import depth
from stemflow.model.workflow import Workflow


class Submission(Struct, frozen=True, kw_only=True, gc=False):
    """One call of `submit`, as middlewares see it. `parent`, `root`: set for runs that a running task starts. `claim`:
    a unique key for a run that has none of its own; `not_before_ms`: when its tasks start at the earliest; both are set
    for schedules.

    The other fields are the arguments of `Stemflow.submit`: `what` (the signature or workflow), `args`, `kwargs`,
    `inputs`, `headers`, `meta`, `run_id`, `file`, `tasks`, `again`, `no_cache` and `allow_unknown`.
    """

    what: Signature[Any, Any] | Workflow
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    inputs: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}
    meta: Mapping[str, Any] = {}
    run_id: str | None = None
    file: str | None = None
    tasks: tuple[str, ...] = ()
    again: bool = False
    no_cache: bool = False
    allow_unknown: bool = False
    parent: Key | None = None
    root: str | None = None
    claim: ClaimSpec | None = None
    not_before_ms: int = 0


MAX_ID: Final = 200
"""The longest run id, in characters."""
MAX_PATH: Final = 4_096
"""The longest path of a workflow file that a run remembers, in characters."""


MAX_DEPTH: Final = 100
"""How deep composites may be nested in one another."""


def checked_submission(asked: Submission) -> Submission:
    """Check the arguments of `submit` and give them the types that are stored. Raises OptionError.

    Every worker must be able to read what is stored, so a value that a store merely accepts is refused, too.
    """
    if not isinstance(asked.what, Workflow):
        expect_signature(asked.what, "submit")
        if (levels := depth(asked.what)) > MAX_DEPTH:
            raise OptionError(
                f"submit: expected composites nested at most {MAX_DEPTH} deep, got {levels}; start the inner part as a "
                "run of its own with context.enqueue"
            )
        if asked.inputs:
            names = ", ".join(map(str, asked.inputs))[:200]
            raise OptionError(
                f"submit: inputs: expected a workflow that declares {names}, got a signature; give a task its "
                "arguments with .s(...)"
            )
    elif asked.args or asked.kwargs:
        raise OptionError(f"submit: workflow {asked.what.name}: expected no arguments; give it inputs={{...}}")
    if type(asked.inputs) is not dict and not isinstance(asked.inputs, Mapping):
        raise OptionError(f"submit: inputs: expected a mapping of input names, got {type(asked.inputs).__name__}")
    if asked.run_id is not None:
        check_run_id(asked.run_id)
    for name in ("again", "no_cache", "allow_unknown"):
        if not isinstance(getattr(asked, name), bool):
            raise OptionError(f"submit: {name}: expected True or False, got {getattr(asked, name)!r}")
    if asked.file is None and asked.tasks == ():
        return asked
    return structs.replace(asked, file=_path(asked.file), tasks=_modules(asked.tasks))


_KEYWORDS = ("run_id", "headers", "meta", "file", "tasks", "again", "no_cache", "allow_unknown")
"""Keywords of `submit` that a task may have as parameters."""
_given = attrgetter(*_KEYWORDS)


def swallowed(asked: Submission) -> tuple[str, ...]:
    """The keywords of `submit` that were given."""
    if not any(_given(asked)):
        return ()
    return tuple(name for name in _KEYWORDS if getattr(asked, name))


def check_run_id(run_id: Any, where: str = "submit: run_id") -> None:
    """Raise OptionError unless `run_id` is text of 1 to 200 characters without control characters."""
    if not isinstance(run_id, str):
        raise OptionError(f"{where}: expected text, got {type(run_id).__name__} {run_id!r}; write str({run_id!r})")
    if not run_id:
        raise OptionError(f"{where}: expected an id that is not empty; leave run_id out to have one made")
    if len(run_id) > MAX_ID:
        raise OptionError(f"{where}: expected at most {MAX_ID} characters, got {len(run_id)}")
    _check_text(where, run_id)


def _check_text(where: str, text: str) -> None:
    if text.isprintable():
        return
    for place, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise OptionError(
                f"{where}: expected text without control characters, line separators and lone surrogates, got "
                f"U+{ord(character):04X} at character {place + 1} of {text[:40]!a}"
            )


def _path(file: Any) -> str | None:
    if file is None:
        return None
    if isinstance(file, os.PathLike):
        file = os.fspath(file)
    if not isinstance(file, str) or not 1 <= len(file) <= MAX_PATH:
        raise OptionError(
            f"submit: file: expected the path of a workflow file, 1 to {MAX_PATH} characters, got {str(file)[:80]!a}"
        )
    _check_text("submit: file", file)
    return file


def _modules(tasks: Any) -> tuple[str, ...]:
    if not isinstance(tasks, (list, tuple)):
        raise OptionError(f"submit: tasks: expected a tuple of module names, got {tasks!r:.80}; write ({tasks!r:.80},)")
    for name in tasks:
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_PATH:
            raise OptionError(f"submit: tasks: expected names of modules such as shop.tasks, got {name!r:.80}")
        _check_text("submit: tasks", name)
    return tuple(tasks)


class Prepared(Struct, frozen=True, gc=False):
    """A submission that was compiled and checked: the header of its run, its plan and the items of its maps.

    `body`: the tree that the plan was compiled from. `also`: headers of other runs that start with equal records.
    """

    header: Header
    plan: Plan
    items: tuple[Pages, ...] = ()
    body: AnySig | None = None
    also: tuple[Header, ...] = ()

    @property
    def fact(self) -> Requested:
        """The fact that requests the run."""
        return Requested(self.header, also=self.also)
