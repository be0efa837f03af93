"""Decides batches of reports; a failure concerns only the run that it is about."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

from stemflow.model.effects import Decision
from stemflow.model.facts import Damaged, Distrusted, Ended, Fact, InboxRead, Lost
from stemflow.runtime.commit.ahead import Ahead
from stemflow.runtime.commit.decider import Decider
from stemflow.runtime.commit.log import story_of
from stemflow.runtime.payloads.signing import SignatureInvalid, UnknownKey
from stemflow.store.base import StoreError
from stemflow.store.damaged import RecordsDamaged

log = logging.getLogger("stemflow.worker")

STORE_PAUSE_S = 0.5
"""The pause after the store could not be read."""
MOST_REMEMBERED = 10_000
"""Runs whose failures are counted at a time."""
MOST_FAILURES = 3
"""How often reports of a run are set aside because they could not be decided; then the run ends as damaged."""

Decided = tuple[list[Fact], Decision]


class BatchDecider:
    """Decides batches. `put_back` queues reports for a later decision, `give_up` takes those that are dropped, and
    `on_error` is called for each internal error."""

    def __init__(
        self,
        decider: Decider,
        put_back: Callable[[Sequence[Fact]], None],
        give_up: Callable[[Sequence[Fact]], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._decider, self._put_back, self._give_up, self._on_error = decider, put_back, give_up, on_error
        self._failures: Counter[str] = Counter()

    async def decide(self, batch: list[Fact], ahead: Ahead) -> list[Decided]:
        """Decide on a batch; return the decisions that could be made, each with its facts, in the order in which they
        join the exchange of the decisions `ahead`, on which they may rest."""
        try:
            return [self._joined(batch, await self._decider.decide(batch, ahead), ahead)]
        except StoreError as error:
            log.warning("%s; %d reports wait", error, len(batch))
            self._put_back(batch)
            await asyncio.sleep(STORE_PAUSE_S)
        except SignatureInvalid as error:
            log.critical("%s", error)
            # Other runs of the batch go on; an invalid record of none of them concerns them all.
            distrusted = [fact for fact in batch if fact.key[0] == error.run] or batch
            self._put_back([fact for fact in batch if fact not in distrusted])
            self._give_up(distrusted)
            return await self._end([Distrusted(fact.key, str(error)) for fact in distrusted], ahead)
        except UnknownKey as error:
            log.warning("%s; %d reports are left to a process that has it", error, len(batch))
            self._give_up(batch)
            await asyncio.sleep(STORE_PAUSE_S)
        except Exception as error:
            return await self._failed(batch, error, ahead)
        return []

    def _joined(self, facts: list[Fact], decision: Decision, ahead: Ahead) -> Decided:
        ahead.add(decision)
        return facts, decision

    async def _failed(self, batch: list[Fact], error: Exception, ahead: Ahead) -> list[Decided]:
        """Decide each run of the batch alone; end a run as damaged that fails MOST_FAILURES times."""
        runs = dict.fromkeys(fact.key[0] for fact in batch)
        if len(runs) > 1:
            parts = [[fact for fact in batch if fact.key[0] == run] for run in runs]
            return [decided for part in parts for decided in await self.decide(part, ahead)]
        (run,) = runs
        self._on_error(error)
        if isinstance(error, RecordsDamaged) and error.run not in ("", run) and not self._failures[error.run]:
            log.critical("%s; that run is ended as damaged", error)
            self._failures[error.run] += 1
            self._put_back(batch)
            keys = dict.fromkeys([error.key or (error.run, ""), (error.run, "")])
            return await self._end([Damaged(key, error.why) for key in keys], ahead)
        if len(self._failures) > MOST_REMEMBERED:
            self._failures.clear()
        self._failures[run] += 1
        self._give_up(batch)
        damaged = isinstance(error, RecordsDamaged) or self._failures[run] >= MOST_FAILURES
        then = "the run is ended as damaged" if damaged else "they are set aside, and its leases will be lost"
        story = story_of(batch, self._decider.records)
        log.critical("run %s: its reports could not be decided; %s\n%s", run, then, story, exc_info=error)
        if not damaged:
            return []
        why = error.why if isinstance(error, RecordsDamaged) else f"{type(error).__name__}: {error}"
        return await self._end(_ends_of(batch, why), ahead)

    async def _end(self, facts: list[Fact], ahead: Ahead) -> list[Decided]:
        """Decide that runs end. If even that fails the run is left as it is, so that the worker goes on."""
        try:
            return [self._joined(facts, await self._decider.decide(facts), ahead)]
        except StoreError as error:
            log.warning("%s; %d reports wait", error, len(facts))
            self._put_back(facts)
        except Exception as error:
            log.critical("run %s: it could not be ended; it is left as it is", facts[0].key[0], exc_info=error)
            self._on_error(error)
        return []


def _ends_of(batch: Sequence[Fact], why: str) -> list[Fact]:
    """Facts that end a run as damaged, with the nodes that the batch is about, so that none of its timers, leases and
    posts comes again."""
    found: list[Fact] = [InboxRead(fact.key, fact.upto) for fact in batch if isinstance(fact, InboxRead)]
    tokens = {fact.key: fact.token if isinstance(fact, (Ended, Lost)) else None for fact in batch}
    found += [Damaged(key, why, token) for key, token in tokens.items() if key[1]]
    return [*found, Damaged((batch[0].key[0], ""), why)]
