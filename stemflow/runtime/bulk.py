"""Submitting many runs at once: each is decided alone and stands or falls alone, and they share exchanges."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from stemflow.model.facts import Requested
from stemflow.model.signature import Signature
from stemflow.runtime.handle import RunHandle
from stemflow.runtime.submission import Submission

if TYPE_CHECKING:
    from stemflow.runtime.engine import Stemflow

PAGE = 500
"""Runs in one exchange."""


async def submit_many(app: Stemflow, signatures: Iterable[Signature[Any, Any]]) -> list[RunHandle[Any]]:
    """See `Stemflow.submit_many`."""
    asked = [Submission(what=signature) for signature in signatures]
    if app.registry.middleware.on_enqueue:
        return [await app.accept(one) for one in asked]
    handles: list[RunHandle[Any]] = []
    rest = iter(asked)
    while page := list(islice(rest, PAGE)):
        handles += await _submit(app, page)
    return handles


async def _submit(app: Stemflow, page: list[Submission]) -> list[RunHandle[Any]]:
    prepared = [await app.prepare(one) for one in page]
    try:
        decisions = await app.commits.each([([Requested(one.header)], one) for one in prepared])
    finally:
        for one in prepared:
            app.unstage(one)
    return [app.handle_of(one, decision) for one, decision in zip(prepared, decisions, strict=True)]
