"""The journal of a task: its attempts, in its own record. A task whose first attempt succeeds has none.

The error of the newest failed attempt is that of the record, and is not stored twice; `attempts_of` puts it back.
"""

from __future__ import annotations

from typing import Final

from msgspec import structs

from stemflow.core.work import Work
from stemflow.model.facts import Ended, Failed, HandedBack, Ignored, Lost, Ok, Replaced
from stemflow.model.records import STOPPING, SUCCEEDED, Attempt, AttemptOutcome, ErrorInfo, Node

FIRST: Final = 4
"""So many of the oldest attempts are kept, and LAST of the newest."""
LAST: Final = 12
MESSAGE_CHARS: Final = 500
"""Of the message of an error."""
TRACEBACK_CHARS: Final = 2_000
"""Of the tracebacks of the first attempt and of the last one before the newest; those between them have none."""

_TIMEOUT: Final = "stemflow.runtime.tasks.context.TaskTimeout"


def note_end(w: Work, node: Node, fact: Ended) -> None:
    """Note how the attempt of a running task ended. Call it with the working copy, before the task changes."""
    outcome = fact.outcome
    if isinstance(outcome, Replaced) or (isinstance(outcome, Ok) and not node.journal):
        return
    how, error = _outcome(node, fact), None
    if isinstance(outcome, Failed) and node.state == STOPPING and node.kill:
        error = outcome.error  # the record of a cancelled task keeps no error
    _note(node, Attempt(node.attempt, how, w.now_ms, fact.worker, fact.started_at_ms, _shortened(error, 0)))


def _outcome(node: Node, fact: Ended) -> AttemptOutcome:
    match fact.outcome:
        case Ok():
            return "succeeded"
        case Ignored():
            return "ignored"
        case HandedBack():
            return "cancelled" if node.state == STOPPING else "handed-back"
        case Failed(error=error):
            if node.state == STOPPING and node.kill:
                return "cancelled"
            return "timed-out" if error.qualname == _TIMEOUT else "failed"
        case _:
            raise AssertionError(fact.outcome)


def note_loss(w: Work, node: Node, fact: Lost) -> None:
    """Note that the worker or the process of a running attempt died."""
    error = ErrorInfo("Lost", fact.how, "stemflow.Lost") if fact.how else None
    _note(node, Attempt(node.attempt, "lost", w.now_ms, fact.worker, fact.started_at_ms, error))


def note_cut(w: Work, node: Node) -> None:
    """Note that a running attempt is given up, since its task is cancelled by force."""
    _note(node, Attempt(node.attempt, "cancelled", w.now_ms))


def keep_error(node: Node) -> None:
    """Store the error of the newest attempt in the journal: the record gets another one."""
    if node.journal and _is_shared(node.journal[-1]):
        last = structs.replace(node.journal[-1], error=_shortened(node.error, TRACEBACK_CHARS))
        node.journal = (*node.journal[:-1], last)


def _is_shared(attempt: Attempt) -> bool:
    """Whether the error of this attempt, the newest, is that of the record."""
    return attempt.outcome in ("failed", "timed-out") and attempt.error is None


def _note(node: Node, attempt: Attempt) -> None:
    keep_error(node)
    past = [*node.journal]
    if past and _repeats(past[-1], attempt):
        attempt = structs.replace(attempt, started_at_ms=past.pop().started_at_ms)
    elif len(past) > 2:
        past[-2] = structs.replace(past[-2], error=_shortened(past[-2].error, 0))
    if len(past) >= FIRST + LAST:
        del past[FIRST]
        node.unlisted += 1
    node.journal = (*past, attempt)


def _repeats(before: Attempt, attempt: Attempt) -> bool:
    """Whether the same attempt was returned once more: that is one entry, however often and by whichever worker."""
    one, other = (structs.replace(a, started_at_ms=0, ended_at_ms=0, worker="") for a in (before, attempt))
    return attempt.outcome == "handed-back" and one == other


def _shortened(error: ErrorInfo | None, traceback_chars: int) -> ErrorInfo | None:
    """The error with at most so many characters of the end of its traceback, and without its data."""
    if error is None:
        return None
    traceback = error.traceback[-traceback_chars:] if traceback_chars else ""
    return ErrorInfo(error.type, error.message[:MESSAGE_CHARS], error.qualname, (), traceback)


def attempts_of(node: Node) -> tuple[Attempt, ...]:
    """Every attempt of a task that has ended, the oldest first; `Node.unlisted` of them are left out after FIRST."""
    if node.journal:
        last = node.journal[-1]
        return (*node.journal[:-1], structs.replace(last, error=node.error)) if _is_shared(last) else node.journal
    if node.tally is None and node.state == SUCCEEDED and node.started_at_ms:
        return (Attempt(node.attempt, "succeeded", node.ended_at_ms, "", node.started_at_ms),)
    return ()
