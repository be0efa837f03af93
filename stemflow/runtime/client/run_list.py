"""Listing runs by what is known of them: state, name, age, labels, tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from stemflow.model.plan import LeafPlan, Plan
from stemflow.model.records import FAILED, FINAL, SKIPPED, STOPPING, SUCCEEDED, ErrorInfo, Node
from stemflow.runtime.client.run_ids import is_internal
from stemflow.store.base import EndedBadly, RunInfo, Store

PAGE: Final = 200
MOST_READ: Final = 20_000
"""So many runs are read for one list; then it says after which run to go on."""

Field = Literal["name", "state", "label", "task"]


class RunQuery(Struct, frozen=True, kw_only=True):
    """Which runs are meant: all of what is given must fit.

    `states`: active, stopping, succeeded, failed, cancelled. `since_ms`: created at this instant or later. `labels`: of
    the workflow file or one of its steps, or values of the run's `meta`. `tasks`: each is in the plan of the run.
    `excluded`: (field, value); a run that fits one of them is left out. `internal`: also the runs by which the engine
    keeps schedules.
    """

    states: frozenset[str] = frozenset()
    name: str | None = None
    since_ms: int = 0
    labels: Mapping[str, str] = {}
    tasks: tuple[str, ...] = ()
    excluded: tuple[tuple[Field, str], ...] = ()
    internal: bool = False


class ListedRun(Struct, frozen=True, kw_only=True):
    """A run in a list. `failed_at`: the path of the step that made it fail, and `error`, its error."""

    info: RunInfo
    failed_at: str | None = None
    error: ErrorInfo | None = None


class RunList(Struct, frozen=True, kw_only=True):
    """Runs, newest first. `after`: more may follow the run of this id, which `list_runs` takes to go on."""

    runs: tuple[ListedRun, ...]
    after: str | None = None


def public_state(state: str) -> str:
    """The state of a run as users see it: active, stopping, succeeded, failed or cancelled."""
    if state == SKIPPED:
        return SUCCEEDED
    return state if state in FINAL or state == STOPPING else "active"


async def list_runs(store: Store, query: RunQuery, limit: int, after: str = "") -> RunList:
    """Up to `limit` runs that fit the query, newest first, from the run that follows `after`."""
    found: list[RunInfo] = []
    plans = _Plans(store)
    read, state = 0, _indexed(query)
    size = PAGE if state is None else min(PAGE, limit + 1)
    while True:
        page = await store.runs(size, after=after, state=state)
        for info in page:
            read, after = read + 1, info.header.run
            if info.header.created_at_ms < query.since_ms:
                return await _described(store, found, None)
            if (query.internal or not is_internal(info.header)) and await plans.fits(query, info):
                found.append(info)
                if len(found) == limit:
                    return await _described(store, found, after)
        if len(page) < size:
            return await _described(store, found, None)
        if read >= MOST_READ:
            return await _described(store, found, after)


async def all_runs(store: Store, query: RunQuery, limit: int) -> list[ListedRun]:
    """The newest `limit` runs that fit the query, however many others must be read for that."""
    found: list[ListedRun] = []
    after = ""
    while len(found) < limit:
        page = await list_runs(store, query, limit - len(found), after)
        found += page.runs
        if page.after is None:
            break
        after = page.after
    return found


def _indexed(query: RunQuery) -> EndedBadly | None:
    """The only state that is asked for, if the store finds its runs by an index."""
    if query.states == {"failed"}:
        return "failed"
    return "cancelled" if query.states == {"cancelled"} else None


async def _described(store: Store, found: list[RunInfo], after: str | None) -> RunList:
    """The runs with the errors of those that failed."""
    failed = [one for one in found if one.root.state == FAILED]
    keys = [(one.header.run, one.root.failed_at or "") for one in failed]
    leaves = await store.read(keys) if keys else []
    errors = {key[0]: leaf.error for key, leaf in zip(keys, leaves, strict=True) if isinstance(leaf, Node)}
    listed = [
        ListedRun(
            info=one, failed_at=one.root.failed_at if one.root.state == FAILED else None,
            error=errors.get(one.header.run) or (one.root.error if one.root.state == FAILED else None),
        )
        for one in found
    ]  # fmt: skip
    return RunList(runs=tuple(listed), after=after)


class _Plans:
    """What is in the plans of runs; each plan is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plans: dict[str, _InPlan] = {}

    async def fits(self, query: RunQuery, info: RunInfo) -> bool:
        wanted: list[tuple[Field, str]] = [("task", task) for task in query.tasks]
        wanted += [("label", f"{name}={value}") for name, value in query.labels.items()]
        wanted += [("name", query.name)] if query.name is not None else []
        if query.states and public_state(info.root.state) not in query.states:
            return False
        for field, value in wanted:
            if not await self._has(info, field, value):
                return False
        for field, value in query.excluded:
            if await self._has(info, field, value):
                return False
        return True

    async def _has(self, info: RunInfo, field: Field, value: str) -> bool:
        match field:
            case "name":
                return info.header.name == value
            case "state":
                return public_state(info.root.state) == value
            case "label":
                name, _, expected = value.partition("=")
                labels = {**info.header.meta, **info.header.labels}
                if name in labels and str(labels[name]) == expected:
                    return True
                return value in (await self._known(info.header.plan)).labels
            case "task":
                return value in (await self._known(info.header.plan)).tasks

    async def _known(self, digest: str) -> _InPlan:
        found = self._plans.get(digest)
        if found is None:
            plan = await self._store.plan(digest)
            found = self._plans[digest] = _InPlan() if plan is None else _InPlan.of(plan)
        return found


class _InPlan(NamedTuple):
    """What runs of one plan are found by: their tasks, and the labels of their steps as `NAME=VALUE`."""

    tasks: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plan: Plan) -> _InPlan:
        return cls(
            frozenset(node.task for node in plan.nodes if isinstance(node, LeafPlan)),
            frozenset(f"{name}={value}" for node in plan.nodes for name, value in node.labels.items()),
        )
