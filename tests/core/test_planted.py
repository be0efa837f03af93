"""Bugs planted in the machine on purpose: the exhaustive exploration of a small plan must find each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stemflow.core import admission as entry
from stemflow.core import claims, ending, follow_ups, leaf, scope, timer, unique
from stemflow.core.work import Work
from stemflow.model.plan import LeafPlan
from stemflow.model.records import Node
from tests.core.explored_cases import CASES
from tests.core.explorer import Explorer
from tests.core.world import Broken

Plant = Callable[[pytest.MonkeyPatch], None]


def _two_hold_one_key(patch: pytest.MonkeyPatch) -> None:
    def share(w: Work, node: Node, claim: Any, holder: Any) -> bool:
        return True

    patch.setattr(unique, "_share", share)


def _a_key_outlives_its_holder(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ending, "leave", lambda w, node: None)


def _a_key_is_taken_from_its_holder(patch: pytest.MonkeyPatch) -> None:
    def share(w: Work, key: str, node: Any, of: Any) -> None:
        claims.edit(w, key).holders = (node,)

    patch.setattr(claims, "share", share)


def _a_running_holder_is_replaced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unique, "_has_started", lambda w, node: False)


def _a_limit_lets_one_more_in(patch: pytest.MonkeyPatch) -> None:
    let_in = claims._next

    def _next(w: Work, claim: Any, granted: Any = None) -> None:
        claim.limit += 1
        let_in(w, claim, granted)
        claim.limit -= 1

    patch.setattr(claims, "_next", _next)


def _a_place_is_kept_over_a_backoff(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(entry, "leave_slot", lambda w, node: None)


def _a_task_expires_although_it_was_started(patch: pytest.MonkeyPatch) -> None:
    def expiry_ms(w: Work, node: Node) -> int | None:
        plan = w.plan_of(node)
        assert isinstance(plan, LeafPlan)
        expires_ms = w.shape(node.plan).plan.options[plan.options].expires_ms
        return None if expires_ms is None else node.opened_at_ms + expires_ms

    patch.setattr(leaf, "expiry_ms", expiry_ms)
    patch.setattr(timer, "expiry_ms", expiry_ms)


def _a_cancel_forgets_what_is_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scope, "stop_members", lambda *_: None)


def _a_cancel_forgets_what_is_to_come(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scope, "cancel_unopened", lambda *_: None)


def _a_forced_cancel_forgets_what_is_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scope, "open_below", lambda w, node: iter(()))


def _a_forced_cancel_opens_hooks(patch: pytest.MonkeyPatch) -> None:
    def finish(w: Work, node: Node, state: Any, **more: Any) -> None:
        ending.finish(w, node, state, **more)
        plan = w.plan_of(node)
        if node.tally is not None and node.tally.cancelled and not node.handling and plan.hooks:  # type: ignore[union-attr]
            follow_ups._open(w, node, w.scope_of(node), 0)

    patch.setattr(scope, "finish", finish)


PLANTED: list[tuple[Plant, str, str]] = [
    (_two_hold_one_key, "shared key in one group", "goes on and does not hold its unique key"),
    (_a_key_outlives_its_holder, "key with a window", "the claim is not finished"),
    (_a_key_is_taken_from_its_holder, "shared key", "was taken from .* which had no part in it"),
    (_a_running_holder_is_replaced, "three under one key, replace", "does not wait for it"),
    (_a_limit_lets_one_more_in, "limits of one key that differ", "hold it, its limit is"),
    (_a_place_is_kept_over_a_backoff, "one at a time in one group", "takes a place and does not run"),
    (_a_task_expires_although_it_was_started, "expiring leaf", "and has expired"),
    (_a_cancel_forgets_what_is_open, "chain of 3", "although its run is stopping"),
    (_a_cancel_forgets_what_is_to_come, "chain of 3", "did not run"),
    (_a_forced_cancel_forgets_what_is_open, "chain of 3", "while members are open"),
    (_a_forced_cancel_opens_hooks, "hooks within", "is ready although .* has ended"),
]


@pytest.mark.parametrize(("plant", "name", "breach"), PLANTED, ids=[plant.__name__[1:] for plant, _, _ in PLANTED])
def test_a_planted_bug_is_found(plant: Plant, name: str, breach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = [one for one in CASES if one.name == name]
    plant(monkeypatch)
    with pytest.raises((Broken, AssertionError), match=breach):
        Explorer(case).explore()
