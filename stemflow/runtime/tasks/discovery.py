"""Finding tasks: by names on the command line, in pyproject.toml, or in a tasks.py in the folder of the workflow.

A workflow file can never name a module, and the working directory is searched only for modules that the user named;
it is last on the search path, so that nothing in it can shadow an installed module.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import tomllib
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from stemflow.errors import StemflowError
from stemflow.runtime.payloads.encoders import TaskPayloadEncoder, TaskPayloadEncoderRegistry
from stemflow.runtime.tasks.code_trust import Untrusted, require_trusted
from stemflow.runtime.tasks.registry import TaskRegistry

TASKS_FILE = "tasks.py"
ATTRIBUTES = ("registry", "app")


class TasksNotFound(StemflowError):
    """No tasks were found; the message names the places that were searched, and what to do."""


def find_tasks(named: Sequence[str], file: Path | None) -> TaskRegistry:
    """Find the registry for a workflow file: in the modules `named` (`MODULE[:REGISTRY]`), else in those that
    pyproject.toml names, else in the tasks.py in the folder of `file`. Raises TasksNotFound.
    """
    if named:
        return load_named(named, Path.cwd(), "--tasks")
    start = file.resolve().parent if file is not None else Path.cwd()
    project, modules = _from_pyproject(start)
    if project is not None and modules:
        return load_named(modules, project.parent, f"{project}: tool.stemflow.tasks")
    tasks_file = start / TASKS_FILE
    if file is not None and tasks_file.is_file():
        return _registry_of(_load_path(tasks_file, "tasks"), None, str(tasks_file))
    text = f"{file or start}: expected its tasks, found neither --tasks, nor [tool.stemflow] tasks in a pyproject.toml"
    if file is not None:
        raise TasksNotFound(f"{text}, nor {tasks_file}; pass --tasks MODULE, or write a tasks.py in its folder")
    only = f" (`--tasks {tasks_file.stem}` for the {TASKS_FILE} that is here)" if tasks_file.is_file() else ""
    raise TasksNotFound(f"{text}; pass --tasks MODULE{only}")


def found_tasks(named: Sequence[str], file: Path) -> TaskRegistry:
    """As `find_tasks`, for a command that can do without: an empty registry if none were named and none are found."""
    try:
        return find_tasks(named, file)
    except TasksNotFound:
        if named:
            raise
        return TaskRegistry()


def tasks_elsewhere(file: Path) -> list[str]:
    """What `--tasks` has to name so that tasks next to `file` are found from the working directory too."""
    folder, here = file.resolve().parent, Path.cwd()
    if folder == here or not (folder / TASKS_FILE).is_file() or _from_pyproject(folder)[1]:
        return []
    return [os.path.relpath(folder / TASKS_FILE, here)]


def load_named(named: Sequence[str], folder: Path, where: str) -> TaskRegistry:
    """The registry of modules that the user named, by name or by the path of a `.py` file; `folder` is searched after
    everything installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    found = []
    for name in named:
        module, _, attribute = name.partition(":")
        if module.endswith(".py"):
            loaded = _load_path(folder / module, where)
        else:
            loaded = _load_module(module, folder, where)
        found.append(_registry_of(loaded, attribute or None, f"{where} {name}"))
    registries = list(dict.fromkeys(found))
    return registries[0] if len(registries) == 1 else _merged(registries, where)


def load_object(name: str, folder: Path, where: str) -> tuple[object, TaskRegistry | None]:
    """The object `MODULE:NAME` of a program, and the registry in its module, if there is one. Raises TasksNotFound."""
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise TasksNotFound(f"{where}: expected MODULE:NAME, got {name!r}")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    module = _load_module(module_name, folder, where)
    if not hasattr(module, attribute):
        raise TasksNotFound(f"{where}: expected {attribute} in {module.__file__}, found none; check its name")
    try:
        registry = _registry_of(module, None, name)
    except TasksNotFound:
        registry = None
    return getattr(module, attribute), registry


def _from_pyproject(start: Path) -> tuple[Path | None, list[str]]:
    """The nearest pyproject.toml at or above `start`, and the modules that it names."""
    path = next((one / "pyproject.toml" for one in (start, *start.parents) if (one / "pyproject.toml").is_file()), None)
    if path is None:
        return None, []
    found = _modules_of(path)
    if found:
        _require_trusted(path)
    return path, found


def _modules_of(path: Path) -> list[str]:
    try:
        table = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("stemflow", {})
    except (OSError, ValueError) as error:
        raise TasksNotFound(f"{path}: expected TOML, got {error}; correct it, or pass --tasks MODULE") from error
    tasks = table.get("tasks", []) if isinstance(table, dict) else []
    modules = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(modules, list) or not all(isinstance(one, str) for one in modules):
        raise TasksNotFound(f'{path}: tool.stemflow.tasks: expected a list of modules, got {tasks!r}; write ["MODULE"]')
    return modules


def _load_module(name: str, folder: Path, where: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise TasksNotFound(f"{where}: expected MODULE or MODULE:REGISTRY, got {name!r}; name it as in `import`")
    if name.partition(".")[0] not in sys.modules:
        _require_source(name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise TasksNotFound(
                f"{where}: expected a module {name}, found none in {folder} nor among the installed ones; "
                "check its name and the environment"
            ) from error
        raise _raised(error, name) from error
    except (Exception, SystemExit) as error:
        raise _raised(error, name) from error


def _require_source(name: str) -> None:
    """Refuse a module, not yet imported, whose source others may change; installed ones are trusted."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return  # importing it says what is wrong
    if spec is None:
        return
    places = [spec.origin] if spec.has_location and spec.origin is not None else spec.submodule_search_locations or ()
    for place in places:
        if not os.path.abspath(place).startswith(_INSTALLED):
            _require_trusted(Path(place))


def _load_path(path: Path, where: str) -> ModuleType:
    """Load by path under a name of its own, so that it neither shadows nor is shadowed by an installed module."""
    if not path.is_file():
        raise TasksNotFound(f"{where}: expected a file of tasks at {path}, found none; correct the path")
    path = path.resolve()
    _require_trusted(path)
    name = f"_stemflow_tasks_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _raised(error, str(path)) from error
    return module


_KINDS = ("stdlib", "platstdlib", "purelib", "platlib")
_INSTALLED = tuple(os.path.join(sysconfig.get_path(kind), "") for kind in _KINDS)
"""The folders of the standard library and of installed packages."""


def _raised(error: BaseException, where: str) -> TasksNotFound:
    """The sentence for a module that cannot be imported, with the line of the user's code that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    named = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<")]
    # A call into the standard library or a package raises there; the line to change is the program's last one.
    mine = [frame for frame in named if not frame.filename.startswith(_INSTALLED)] or named
    place = f"{mine[-1].filename}:{mine[-1].lineno}" if mine else where
    if isinstance(error, SyntaxError) and error.filename is not None:
        place = f"{error.filename}:{error.lineno}"
    what = f"{type(error).__name__}: {_text(error)}"
    return TasksNotFound(f"{place}: expected to import the tasks, got {what}; correct that line, nothing was started")


def _text(error: BaseException) -> str:
    try:
        return error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:
        return "(its message cannot be shown)"


def _require_trusted(path: Path) -> None:
    try:
        require_trusted(path)
    except Untrusted as error:
        raise TasksNotFound(str(error)) from None


def _registry_of(module: ModuleType, attribute: str | None, where: str) -> TaskRegistry:
    names = (attribute,) if attribute else ATTRIBUTES
    for name in names:
        found = getattr(module, name, None)
        registry = found if isinstance(found, TaskRegistry) else getattr(found, "registry", None)
        if isinstance(registry, TaskRegistry):
            return registry
    raise TasksNotFound(
        f"{where}: expected a TaskRegistry called {' or '.join(names)} in {module.__file__}, found none; "
        "write `registry = TaskRegistry()` there, or name it as MODULE:REGISTRY"
    )


def _merged(registries: Sequence[TaskRegistry], where: str) -> TaskRegistry:
    """One registry of several: the tasks, encoders, middlewares and listeners of all, for all.

    What can only be one (defaults, strategy, limiter, keys, the encoders that write) must be the same everywhere.
    Raises TasksNotFound, and DuplicateTask when two of them hold the same name.
    """
    for name in ("defaults", "retry_strategy", "rate_limiter", "signing"):
        _same(name, [getattr(one, name) for one in registries], where)
    given = [one.encoders for one in registries]
    defaults = {
        name: _same(f"encoders.{name}", [getattr(one, name) for one in given], where)
        for name in ("args", "results", "accept_plain")
    }
    encoders = TaskPayloadEncoderRegistry(*_encoders(given, where), **defaults)
    return TaskRegistry.joined(registries, encoders)


def _same(name: str, values: Sequence[Any], where: str) -> Any:
    if any(one != values[0] for one in values):
        raise TasksNotFound(
            f"{where}: {name}: expected registries that agree, got {' and '.join(map(repr, values))}; set it in all of "
            "them, or make one registry that the modules share"
        )
    return values[0]


def _encoders(registries: Sequence[TaskPayloadEncoderRegistry], where: str) -> list[TaskPayloadEncoder]:
    """Each once; refuses two of one id."""
    found: dict[str, TaskPayloadEncoder] = {}
    for encoder in (encoder for registry in registries for encoder in registry):
        if found.setdefault(encoder.id, encoder) is not encoder:
            raise TasksNotFound(f"{where}: encoder {encoder.id!r}: expected one, got two; let the modules share it")
    return list(found.values())
