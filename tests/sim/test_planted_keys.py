"""Bugs of keys, expiry and cancelling, planted on purpose: the simulation must find each of them."""

from __future__ import annotations

from typing import Any

import pytest

from stemflow.core import claims, follow_ups, scope, unique
from stemflow.core.fire import ACTIONS
from stemflow.core.work import Work
from stemflow.model.records import Node
from stemflow.store.memory import queue as memory_queue
from stemflow.testing.simulation import checked_store
from tests.sim.test_simulation import _found, quiet

__all__ = ["quiet"]


def test_a_key_that_is_released_before_its_holder_has_ended_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = ACTIONS["tell"]

    def and_release(w: Work, node: Node, kill: bool) -> None:
        tell(w, node, kill)
        for key in filter(None, (node.claim, node.slot)):
            claims.leave(w, key, node)

    monkeypatch.setattr(checked_store, "check_claims", lambda keys, records, shapes: [])
    monkeypatch.setitem(ACTIONS, "tell", and_release)
    assert "committed a result under" in _found(first=64)


def test_a_task_that_is_leased_without_its_unique_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_store, "check_claims", lambda keys, records, shapes: [])
    monkeypatch.setattr(unique, "_share", lambda w, node, claim, holder: True)
    assert "was leased although it does not hold" in _found()


def test_a_store_that_leases_what_has_expired_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = memory_queue._Heaps

    def careless(*given: Any) -> Any:
        return plain(*given[:-1], 0)

    monkeypatch.setattr(memory_queue, "_Heaps", careless)
    assert "was leased although it had expired" in _found()


def test_a_cancel_that_forgets_what_is_ready_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "stop_members", lambda *_: None)
    assert "was leased although" in _found()


def test_a_forced_cancel_that_leaves_something_open_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked_store, "check_commit", lambda before, after, now_ms: [])
    monkeypatch.setattr(scope, "open_below", lambda w, node: iter(()))
    assert "after a forced cancel" in _found()


def test_a_hook_that_begins_after_its_run_has_ended_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = follow_ups.finish

    def and_then_hooks(w: Work, node: Node, state: Any, **more: Any) -> None:
        finish(w, node, state, **more)
        plan = w.scope_of(node)
        if not node.handling and plan.hooks:
            follow_ups._open(w, node, plan, len(plan.catches))

    monkeypatch.setattr(follow_ups, "finish", and_then_hooks)
    assert "seed" in _found()
