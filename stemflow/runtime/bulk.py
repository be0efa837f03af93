"""Submitting many runs at once: each is decided alone and stands or falls alone, and they share exchanges."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from stemflow.model.facts import Requested
from stemflow.model.signature import Signature
from stemflow.runtime.commits import Commits
from stemflow.runtime.handle import RunHandle
from stemflow.runtime.submission import Submission

if TYPE_CHECKING:
    from stemflow.runtime.engine import Stemflow

PAGE = 500
"""Runs in one exchange."""
AHEAD = 2
"""Pages under way at once."""


async def submit_many(app: Stemflow, signatures: Iterable[Signature[Any, Any]]) -> list[RunHandle[Any]]:
    """See `Stemflow.submit_many`. While the store takes one page, the next one is prepared."""
    asked = [Submission(what=signature) for signature in signatures]
    if app.registry.middleware.on_enqueue:
        return [await app.accept(one) for one in asked]
    rest, lanes = iter(asked), cycle((app.commits, app.more_commits))
    pages = iter(lambda: list(islice(rest, PAGE)), [])
    under_way: deque[asyncio.Task[list[RunHandle[Any]]]] = deque()
    handles: list[RunHandle[Any]] = []
    try:
        for page, commits in zip(pages, lanes, strict=False):
            if len(under_way) == AHEAD:
                handles += await under_way.popleft()
            under_way.append(asyncio.create_task(_submit(app, page, commits)))
            await asyncio.sleep(0)
        while under_way:
            handles += await under_way.popleft()
    finally:
        for one in under_way:
            one.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return handles


async def _submit(app: Stemflow, page: list[Submission], commits: Commits) -> list[RunHandle[Any]]:
    prepared = [await app.preparer.prepare(one) for one in page]
    try:
        decisions = await commits.each([([Requested(one.header)], one) for one in prepared])
    finally:
        for one in prepared:
            app.unstage(one)
    return [app.handle_of(one, decision) for one, decision in zip(prepared, decisions, strict=True)]
