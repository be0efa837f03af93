"""Submitting many runs in few exchanges; each is accepted or refused alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import Any

from msgspec import structs

from stemflow.core.shape import starts_identically
from stemflow.model.signature import Signature
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.commit.committer import Committer
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.submission import Prepared, Submission

PAGE = 500
"""Runs in one exchange."""
PAGES_AT_ONCE = 2
"""Exchanges under way at once, each on a channel of its own."""


async def submit_many(
    parts: Parts, submitter: Submitter, signatures: Iterable[Signature[Any, Any]]
) -> list[RunHandle[Any]]:
    """See `Stemflow.submit_many`. While the store takes one page, the next one is prepared."""
    asked = [Submission(what=signature) for signature in signatures]
    if parts.registry.middleware.on_enqueue:
        return [await submitter.submit(one) for one in asked]
    rest, lanes = iter(asked), cycle((parts.committer, parts.second_committer))
    pages = iter(lambda: list(islice(rest, PAGE)), [])
    under_way: deque[asyncio.Task[list[RunHandle[Any]]]] = deque()
    handles: list[RunHandle[Any]] = []
    try:
        for page, committer in zip(pages, lanes, strict=False):
            if len(under_way) == PAGES_AT_ONCE:
                handles += await under_way.popleft()
            under_way.append(asyncio.create_task(_submit(parts, submitter, page, committer)))
            await asyncio.sleep(0)
        while under_way:
            handles += await under_way.popleft()
    finally:
        for one in under_way:
            one.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return handles


async def _submit(
    parts: Parts, submitter: Submitter, page: list[Submission], committer: Committer
) -> list[RunHandle[Any]]:
    prepared = [await parts.preparer.prepare(one) for one in page]
    groups = _merged(parts, prepared)
    try:
        decisions = await committer.commit_each([([one.fact], one) for one in groups])
    finally:
        for one in prepared:
            submitter.unstage(one)
    of_runs = {
        header.run: decision
        for one, decision in zip(groups, decisions, strict=True)
        for header in (one.header, *one.also)
    }
    return [submitter.handle_of(one, of_runs[one.header.run]) for one in prepared]


def _merged(parts: Parts, prepared: Sequence[Prepared]) -> list[Prepared]:
    """Merge runs that start with the same records, in one partition, into one submission, which one decision answers.

    Signed records differ from run to run, so nothing is merged where records are signed.
    """
    if parts.library.trust.keys is not None:
        return list(prepared)
    groups: dict[tuple[str, int], list[Prepared]] = {}
    others: list[Prepared] = []
    for one in prepared:
        key = (one.plan.digest, parts.store.partition_of(one.header.run))
        if key in groups or starts_identically(one.plan):
            groups.setdefault(key, []).append(one)
        else:
            others.append(one)
    merged = [structs.replace(first, also=tuple([one.header for one in rest])) for first, *rest in groups.values()]
    return others + merged
