"""Submitting many runs in few exchanges; each is accepted or refused alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice
from typing import Any

from msgspec import structs

from stemflow.core.shape import starts_identically
from stemflow.errors import OptionError, StemflowError
from stemflow.model.signature import Signature
from stemflow.runtime.client.parts import Parts
from stemflow.runtime.client.submitter import Submitter
from stemflow.runtime.commit.committer import Committer
from stemflow.runtime.runs.handle import RunHandle
from stemflow.runtime.tasks.submission import Prepared, Submission, check_run_id

PAGE = 500
"""Runs in one exchange."""
PAGES_AT_ONCE = 2
"""Exchanges under way at once, each on a channel of its own."""

Answer = RunHandle[Any] | Exception


class NotAllSubmitted(StemflowError):
    """Some of the signatures that were given to `submit_many` were submitted, others not.

    `handles`: one for each signature, in order; None for those that were not submitted. `errors`: the reason of each
    refusal, by the place of the signature. What comes after a signature that could not be prepared may be missing in
    both.
    """

    def __init__(self, answers: Sequence[Answer | None]) -> None:
        self.handles = [one if isinstance(one, RunHandle) else None for one in answers]
        self.errors = {place: one for place, one in enumerate(answers) if isinstance(one, Exception)}
        done, place = len([one for one in self.handles if one is not None]), min(self.errors)
        super().__init__(
            f"submit_many: {done} of {len(answers)} runs were submitted (see `handles`); number {place} was refused: "
            f"{self.errors[place]}"
        )


def submissions(
    signatures: Iterable[Signature[Any, Any]], run_ids: Iterable[str] | None, common: Submission
) -> list[Submission]:
    """One submission for each signature, with the settings of `common`. Raises OptionError for ids that do not fit."""
    asked = [structs.replace(common, what=signature) for signature in signatures]
    if run_ids is None:
        return asked
    if isinstance(run_ids, str):
        raise OptionError("submit_many: run_ids: expected one id for each signature, got text; write a list")
    ids = list(run_ids)
    if len(ids) != len(asked):
        raise OptionError(f"submit_many: run_ids: expected {len(asked)}, one for each signature, got {len(ids)}")
    seen: set[str] = set()
    for place, run_id in enumerate(ids):
        check_run_id(run_id, f"submit_many: run_ids: number {place}")
        if run_id in seen:
            raise OptionError(f"submit_many: run_ids: expected different ids, got {run_id!r} twice")
        seen.add(run_id)
    return [structs.replace(one, run_id=run_id) for one, run_id in zip(asked, ids, strict=True)]


async def submit_many(parts: Parts, submitter: Submitter, asked: Sequence[Submission]) -> list[RunHandle[Any]]:
    """See `Stemflow.submit_many`. While the store takes one page, the next one is prepared."""
    answers: list[Answer] = []
    try:
        async for page in _pages(parts, submitter, asked):
            answers += page
    except Exception as error:
        answers.append(error)
    handles = [one for one in answers if isinstance(one, RunHandle)]
    if len(handles) == len(asked):
        return handles
    first = next(one for one in answers if isinstance(one, Exception))
    if not handles:
        raise first
    raise NotAllSubmitted([*answers, *[None] * (len(asked) - len(answers))]) from first


async def _pages(parts: Parts, submitter: Submitter, asked: Sequence[Submission]) -> AsyncIterator[list[Answer]]:
    """The answers to one page of submissions after the other."""
    if parts.registry.middleware.on_enqueue:
        for single in asked:
            yield [await _alone(submitter, single)]
        return
    rest, lanes = iter(asked), cycle((parts.committer, parts.second_committer))
    pages = iter(lambda: list(islice(rest, PAGE)), [])
    under_way: deque[asyncio.Task[list[Answer]]] = deque()
    try:
        for page, committer in zip(pages, lanes, strict=False):
            if len(under_way) == PAGES_AT_ONCE:
                yield await under_way.popleft()
            under_way.append(asyncio.create_task(_submit(parts, submitter, page, committer)))
            await asyncio.sleep(0)
        while under_way:
            yield await under_way.popleft()
    finally:
        for one in under_way:
            one.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _alone(submitter: Submitter, asked: Submission) -> Answer:
    try:
        return await submitter.submit(asked)
    except Exception as error:
        return error


async def _submit(parts: Parts, submitter: Submitter, page: list[Submission], committer: Committer) -> list[Answer]:
    async with AsyncExitStack() as held:
        for run_id in sorted(one.run_id for one in page if one.run_id is not None):
            await held.enter_async_context(submitter.lock_of(run_id))
        return await _submit_page(parts, submitter, page, committer)


async def _submit_page(
    parts: Parts, submitter: Submitter, page: list[Submission], committer: Committer
) -> list[Answer]:
    prepared = [await parts.preparer.prepare(one) for one in page]
    groups = _merged(parts, prepared, {one.run_id for one in page})
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
    answers: list[Answer] = []
    for one in prepared:
        try:
            answers.append(await submitter.checked_handle(one, of_runs[one.header.run]))
        except StemflowError as error:
            answers.append(error)
    return answers


def _merged(parts: Parts, prepared: Sequence[Prepared], chosen: set[str | None]) -> list[Prepared]:
    """Merge runs that start with the same records, in one partition, into one submission, which one decision answers.

    Signed records differ from run to run, so nothing is merged where records are signed; and a run whose id was chosen
    may exist already, so it has a decision of its own.
    """
    if parts.library.trust.keys is not None:
        return list(prepared)
    groups: dict[tuple[str, int], list[Prepared]] = {}
    others: list[Prepared] = []
    for one in prepared:
        key = (one.plan.digest, parts.store.partition_of(one.header.run))
        if one.header.run in chosen:
            others.append(one)
        elif key in groups or starts_identically(one.plan):
            groups.setdefault(key, []).append(one)
        else:
            others.append(one)
    merged = [structs.replace(first, also=tuple([one.header for one in rest])) for first, *rest in groups.values()]
    return others + merged
