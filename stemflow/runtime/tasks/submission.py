"""What is asked of the engine when a run is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from stemflow.model.effects import Pages
from stemflow.model.facts import Requested
from stemflow.model.plan import Plan
from stemflow.model.records import Header, Key
from stemflow.model.signature import AnySig, Signature, Workflow


class Submission(Struct, frozen=True, kw_only=True, gc=False):
    """One call of `submit`; `parent` and `root` are set when a running task asks."""

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
    allow_unknown: bool = False
    parent: Key | None = None
    root: str | None = None


class Prepared(Struct, frozen=True, gc=False):
    """A submission that was compiled and checked: the run that is asked for, its plan and the items of its maps.

    `also`: more runs that were asked for in other submissions and begin like it.
    """

    header: Header
    plan: Plan
    items: tuple[Pages, ...] = ()
    body: AnySig | None = None
    also: tuple[Header, ...] = ()

    @property
    def fact(self) -> Requested:
        return Requested(self.header, also=self.also)
