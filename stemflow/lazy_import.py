"""Modules that are slow to import, and are needed by few of the calls that import what uses them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class LazyModule:
    """Stands for a module that is imported when one of its names is first read.

    For type checkers the module is imported under TYPE_CHECKING. Python 3.15 has `lazy import` (PEP 810) for this.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self._name), name)
        setattr(self, name, value)
        return value
