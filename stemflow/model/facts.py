"""Facts: the inputs of the state machine. Late and duplicate facts are normal; they change nothing."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stemflow.model.plan import Plan
from stemflow.model.policy import RetryPolicy
from stemflow.model.records import NO_RUN, ErrorInfo, Header, Key, topic_key


class Ok(Struct, frozen=True, tag=True, gc=False):
    """The handler returned. `result` is JSON; None is null. `added` join the enclosing fan-in."""

    result: bytes | None = None
    added: tuple[Plan, ...] = ()


class Failed(Struct, frozen=True, tag=True):
    """The handler failed. The worker chooses `verdict`, since it has the exception object.

    `default`: retry as the options say. `again`: retry if attempts are left, after `after_ms` or at `eta_at_ms`, else
    with the delays of `retry` or of the options. `final`: no retry. `dead` is the reason of the dead letter if the task
    ends.
    """

    error: ErrorInfo
    verdict: Literal["default", "again", "final"] = "default"
    after_ms: int | None = None
    max_retries: int | None = None
    dead: str = "max-retries-exhausted"
    eta_at_ms: int | None = None
    retry: RetryPolicy | None = None
    rule: int | None = None
    """Which of `rules` of the policy of its options fits the error."""


class Ignored(Struct, frozen=True, tag=True):
    """The handler raised Ignore: SKIPPED by its own condition."""


class HandedBack(Struct, frozen=True, tag=True):
    """The worker hands the attempt back, uncharged. It is not leased again for `after_ms`."""

    after_ms: int = 0


class Replaced(Struct, frozen=True, tag=True):
    """The handler asked to be replaced by a sub-graph."""

    plan: Plan


Outcome = Ok | Failed | Ignored | HandedBack | Replaced


class Requested(Struct, frozen=True, tag=True, gc=False):
    """A run was asked for. Its plan is already known under `header.plan`. It takes the place of the dead letters
    `purged`, of a run that it repeats.

    `also`: more runs of the same plan, whose runs start with identical records (`core.shape.starts_identically`), with
    newly generated ids.
    """

    header: Header
    purged: tuple[Key, ...] = ()
    also: tuple[Header, ...] = ()

    @property
    def key(self) -> Key:
        return (self.header.run, "")


class Ended(Struct, frozen=True, tag=True, gc=False):
    """An attempt ended; `token` is the delivery under which it ran, `worker` the name of the worker that ran it."""

    key: Key
    token: int
    outcome: Outcome
    started_at_ms: int = 0
    worker: str = ""


class Lost(Struct, frozen=True, tag=True):
    """The lease under `token` was lost: the store has given the reporter a newer token, or the handler's process died
    under the reporter, as `how` tells. `worker` and `started_at_ms`: of the lost attempt, as far as they are known."""

    key: Key
    token: int
    how: str = ""
    worker: str = ""
    started_at_ms: int = 0


class Due(Struct, frozen=True, tag=True):
    """The timer that was set for `due_at_ms` is due."""

    key: Key
    due_at_ms: int


class Stop(Struct, frozen=True, tag=True):
    """A request to cancel this node and everything below it. `force`: end all of it now, including hooks and
    compensation, without waiting for running handlers."""

    key: Key
    force: bool = False


class Sent(Struct, frozen=True, tag=True):
    """An event was sent from outside of a run. Its number is in `core.topics`; `body` is encoded."""

    event_type: str
    id: str
    body: bytes
    keep_ms: int

    @property
    def key(self) -> Key:
        return (NO_RUN, topic_key(self.event_type))


class Released(Struct, frozen=True, tag=True):
    """An operator takes a unique or concurrency key away from those of `holders` that hold it."""

    claim: str
    holders: tuple[Key, ...]

    @property
    def key(self) -> Key:
        return (NO_RUN, self.claim)


class Answered(Struct, frozen=True, tag=True):
    """A person answered the approval at `key`. `result`: the encoded value of the step; `error`: of a rejection."""

    key: Key
    result: bytes
    error: ErrorInfo | None = None


class Distrusted(Struct, frozen=True, tag=True):
    """A signature is invalid: the record at `key`, or one that it depends on, was not written by a holder of a signing
    key."""

    key: Key
    why: str
    token: int | None = None


class Damaged(Struct, frozen=True, tag=True):
    """Records of the run of `key` cannot be read, are missing, or contradict one another, so that it cannot go on."""

    key: Key
    why: str
    token: int | None = None


class End(Struct, frozen=True, array_like=True):
    """How member `index` of a scope ended: `how` as in a tally; `failed_at` of the member, if it failed."""

    index: int
    how: str
    failed_at: str | None = None


class Post(Struct, frozen=True, omit_defaults=True):
    """Ends of members of one scope, posted to the inbox of its run. The worker that reads the inbox applies them."""

    run: str
    path: str
    """Of the scope."""
    ends: tuple[End, ...]
    base: int = 0
    """`base` of the run's header, so that a later run of the same id ignores the post."""
    seal: bytes | None = None

    @property
    def scope(self) -> Key:
        return (self.run, self.path)


class InboxRead(Struct, frozen=True, tag=True):
    """What was in the inbox of the run of `key` up to number `upto`."""

    key: Key
    upto: int
    posts: tuple[Post, ...] = ()


Fact = Requested | Ended | Lost | Due | Stop | Sent | Released | Answered | Distrusted | Damaged | InboxRead
