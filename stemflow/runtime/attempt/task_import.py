"""Finding a task again in another process: by the modules that hold it, never by copying its code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from functools import reduce
from multiprocessing import spawn
from types import ModuleType
from typing import Any

from msgspec import Struct

from stemflow.errors import OptionError
from stemflow.runtime.tasks.callables import qualname_of
from stemflow.runtime.tasks.registry import TaskRegistry
from stemflow.runtime.tasks.task import Task


class TaskSource(Struct, frozen=True):
    """Where a task is: `modules` are pairs of name and file, the likelier first; `main` is how to load `__main__`."""

    name: str
    qualname: str
    modules: tuple[tuple[str, str | None], ...]
    main: dict[str, Any] = {}


def locate(task: Task[..., Any], registry: TaskRegistry) -> TaskSource:
    """The place of a task; raises OptionError when a process that imports its modules would not find it there."""
    function = inspect.unwrap(task.function)
    qualname = qualname_of(task.function)
    names = dict.fromkeys((function.__module__, registry.home))
    modules = [module for name in names if (module := sys.modules.get(name)) is not None]
    for module in modules:
        found = _look(module, task.name, qualname)
        if found is not None and inspect.unwrap(found[0].function) == function:
            break
    else:
        raise OptionError(
            f"task {task.name}: isolation: expected a function that another process can import for `process`, got "
            f"{function.__module__}.{qualname}; put it at the top level of a module, next to its registry"
        )
    files = tuple((module.__name__, getattr(module, "__file__", None)) for module in modules)
    main = spawn.get_preparation_data("stemflow") if "__main__" in names else {}
    return TaskSource(task.name, qualname, files, {k: v for k, v in main.items() if k.startswith("init_main")})


def check_start(registry: TaskRegistry) -> None:
    """Before a worker starts: refuse tasks for `process` that no other process would find. Raises OptionError."""
    if Importing.main:
        raise OptionError(
            "a process of the pool was importing the main module to find a task in it, and the module started an "
            'engine; start it under `if __name__ == "__main__":`'
        )
    for name in registry:
        task = registry.get(name)
        if task is not None and task.options.get("isolation", registry.defaults.get("isolation")) == "process":
            locate(task, registry)


class Importing:
    """Whether this process is importing a program's main module to find a task in it."""

    main = False


def find(place: TaskSource) -> tuple[Task[..., Any], TaskRegistry]:
    """The task at `place` with its registry, in this process; imports what it needs. Raises what the imports raise,
    and LookupError."""
    if place.main:
        Importing.main = True
        try:
            spawn.prepare(place.main)
        finally:
            Importing.main = False
    for name, file in place.modules:
        found = _look(_module(name, file), place.name, place.qualname)
        if found is not None:
            return found
    raise LookupError(f"none of {', '.join(name for name, _ in place.modules)} has it")


def _look(module: ModuleType, name: str, qualname: str) -> tuple[Task[..., Any], TaskRegistry] | None:
    """The task of this name in a registry that the module holds, else a task of the function itself."""
    for held in list(vars(module).values()):
        registry = held if isinstance(held, TaskRegistry) else vars(held).get("registry") if _has_dict(held) else None
        found = registry.get(name) if isinstance(registry, TaskRegistry) else None
        if found is not None and isinstance(registry, TaskRegistry):
            return found, registry
    try:
        function = reduce(getattr, qualname.split("."), module)
    except AttributeError:
        return None
    if isinstance(function, Task):
        return function, TaskRegistry()
    return Task(name, function, {}), TaskRegistry()  # type: ignore[arg-type]


def _has_dict(held: Any) -> bool:
    return hasattr(type(held), "__dict__") and isinstance(getattr(held, "__dict__", None), dict)


def _module(name: str, file: str | None) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        spec = None if file is None or error.name != name else importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
