"""Every public function, class and method documents each of its parameters."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import stemflow

ROOT = Path(__file__).parents[2]
MADE_BY_STEMFLOW = {
    *("RunHandle", "Task", "TaskContext", "SyncTaskContext", "TaskEnqueueBuilder", "RecordedContext"),
    *("RecordedSyncContext", "Enqueued", "Signature"),
}
"""Classes that programs get, and do not construct. Errors and protocols are further ones."""
VARIADIC = {"args", "kwargs"}
"""The arguments of a task, wherever they are called so."""
OF_PYTEST = {"StoreContract"}
"""Classes whose methods are called by pytest."""


@cache
def public() -> dict[str, Any]:
    """The objects that `stemflow` exports, and those of the API reference."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    found = {f"stemflow.{name}": getattr(stemflow, name) for name in stemflow.__all__}
    for name in re.findall(r"^::: ([\w.]+)", pages, re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


def parts(name: str, thing: Any) -> Iterator[tuple[str, Any, str]]:
    """(name, callable, documentation) of a function, or of a class and its public methods."""
    if not inspect.isclass(thing):
        yield name, thing, inspect.getdoc(thing) or ""
        return
    is_made = thing.__name__ in MADE_BY_STEMFLOW or issubclass(thing, BaseException) or is_protocol(thing)
    if not is_made:
        yield name, thing, documentation_of(thing)
    for attribute, value in vars(thing).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(function, FunctionType) and not attribute.startswith("_") and thing.__name__ not in OF_PYTEST:
            yield f"{name}.{attribute}", function, inspect.getdoc(getattr(thing, attribute)) or ""


def is_protocol(thing: type) -> bool:
    return bool(getattr(thing, "_is_protocol", False))


def documentation_of(thing: type) -> str:
    """The docstrings of a class and of its constructor; a field counts as documented by the string after it."""
    texts = [inspect.getdoc(thing) or "", inspect.getdoc(thing.__init__) or ""]
    for base in thing.__mro__:
        if base.__module__.startswith("stemflow."):
            (tree,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base))).body
            assert isinstance(tree, ast.ClassDef)
            for field, text in zip(tree.body, tree.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    texts.append(f"`{ast.unparse(field.target)}`")
    return "\n".join(texts)


def undocumented(function: Any, text: str) -> list[str]:
    """Parameters that are neither named in backticks nor listed under `Args:`."""
    parameters = [name for name in parameters_of(function) if name not in ("self", "cls")]
    return [name for name in parameters if not re.search(rf"`{name}\b|^ *\*?{name}: ", text, re.MULTILINE)]


def parameters_of(function: Any) -> list[str]:
    try:
        found = inspect.signature(function).parameters.values()
    except ValueError:
        return []
    variadic = {one.name for one in found if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)} & VARIADIC
    return [one.name for one in found if one.name not in variadic and not one.name.startswith("_")]


@pytest.mark.parametrize("name", sorted(public()))
def test_each_parameter_of_a_public_name_is_documented(name: str) -> None:
    found = {part: undocumented(function, text) for part, function, text in parts(name, public()[name])}
    assert {part: missing for part, missing in found.items() if missing} == {}
    assert all(text for _, _, text in parts(name, public()[name]))


def test_a_parameter_that_no_docstring_names_is_found() -> None:
    def wait(run: str, timeout: float, poll: float) -> None:
        """Wait for `run`.

        Args:
            timeout: in seconds.
        """

    assert undocumented(wait, inspect.getdoc(wait) or "") == ["poll"]
