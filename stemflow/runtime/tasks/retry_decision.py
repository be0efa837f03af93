"""The verdict on a failed attempt, where the exception object is at hand: again or not, and after how long."""

from __future__ import annotations

import inspect
import logging
import traceback
from typing import Any, NamedTuple, Protocol

from msgspec import structs

from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError, parse_condition
from stemflow.model.facts import Failed
from stemflow.model.policy import Options, RetryPolicy
from stemflow.model.records import ErrorInfo
from stemflow.runtime.values.resolver import public_error
from stemflow.units import Duration, duration_of

log = logging.getLogger("stemflow.worker")

TRACEBACK_CHARS = 8_192
MESSAGE_CHARS = 4_096


class RetryStrategy(Protocol):
    """How long a task waits before it is tried again, in the words of a program.

    It belongs to a task (`registry.task(..., retry_strategy=)`) or to a registry (`TaskRegistry(retry_strategy=)`), and
    is asked where the handler ran, only when an attempt is left and the policy's filters let it be used.
    """

    def next_delay(self, attempt: int, error: BaseException, /) -> Duration | None:
        """Seconds, or a text such as `"1m30s"`, after attempt `attempt` (from 0) has raised `error`; None: no retry."""


def checked_strategy(strategy: Any, where: str) -> RetryStrategy | None:
    """`strategy`, if it can be asked; `where` begins the error's sentence. Raises OptionError."""
    if strategy is None:
        return None
    ask = getattr(strategy, "next_delay", None)
    if isinstance(strategy, type) or not callable(ask) or inspect.iscoroutinefunction(ask):
        raise OptionError(
            f"{where}: retry_strategy: expected an object with a plain method next_delay(attempt, error), "
            f"got {strategy!r}"
        )
    found: RetryStrategy = strategy
    return found


def describe(error: BaseException) -> ErrorInfo:
    """An exception as data; one whose text raises is described all the same."""
    kind = type(error)
    try:
        message = str(error)[:MESSAGE_CHARS]
    except BaseException as inner:
        message = f"<its text cannot be shown: {type(inner).__name__} in __str__>"
    try:
        trace = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS:]
    except BaseException:
        trace = ""
    names = _names(error)
    return ErrorInfo(kind.__name__, _storable(message), names[0] if names else kind.__name__, names, _storable(trace))


class RetryDecider(NamedTuple):
    """Judges what an attempt of `task` has raised, by its policy and its strategy."""

    task: str = ""
    options: Options = Options()
    attempt: int = 0
    strategy: RetryStrategy | None = None

    def __call__(self, error: BaseException) -> Failed:
        """By class, then by the policy's expression over `error`; then the strategy says when."""
        info, policy = describe(error), self.options.retry
        if not _by_class(error, policy) or not _by_condition(info, policy):
            return Failed(info, "final")
        return self.paced(Failed(info), error)

    def paced(self, failed: Failed, error: BaseException) -> Failed:
        """With the delay that the strategy gives, where there is one and an attempt is left.

        A strategy that raises, or gives what is no duration, costs the task nothing: its policy's delay counts.
        """
        allowed = self.options.max_retries if failed.max_retries is None else failed.max_retries
        if self.strategy is None or self.attempt >= allowed:
            return failed
        try:
            delay = self.strategy.next_delay(self.attempt, error)
            if delay is None:
                return structs.replace(failed, verdict="final")
            return structs.replace(failed, verdict="again", after_ms=_milliseconds(delay))
        except BaseException as wrong:
            log.error(
                "task %s: retry_strategy %s.next_delay(%d, %s): %s; the delay of its policy counts: mend the strategy",
                self.task, type(self.strategy).__qualname__, self.attempt, type(error).__name__, _said(wrong),
            )  # fmt: skip
            return failed


def _milliseconds(delay: Any) -> int:
    return duration_of("next_delay", delay)


def _said(wrong: BaseException) -> str:
    info = describe(wrong)
    return info.message if isinstance(wrong, StemflowError) else f"it raised {info.type}: {info.message}"


def _by_class(error: BaseException, policy: RetryPolicy) -> bool:
    """Whether the filters let it be tried again. A group is matched by its own class, or by all that it holds."""
    never, only = set(policy.never_retry_on), set(policy.retry_on)
    stack = [(error, bool(only))] if never or only else []
    while stack:
        one, asked = stack.pop()
        full = _names(one)
        names = {*full, *(name.rsplit(".", 1)[-1] for name in full)}
        if names & never:
            return False
        unmatched = asked and not names & only
        if isinstance(one, BaseExceptionGroup):
            stack.extend((inner, unmatched) for inner in one.exceptions)
        elif unmatched:
            return False
    return True


def _by_condition(info: ErrorInfo, policy: RetryPolicy) -> bool:
    if policy.when is None:
        return True
    try:
        return bool(parse_condition(policy.when, {"error"})({"error": public_error(info)}))
    except ExpressionError:
        return False


def _names(error: BaseException) -> tuple[str, ...]:
    """The qualified names of its class and of those that it is derived from."""
    kinds = (kind for kind in type(error).__mro__ if kind not in (object, BaseException))
    return tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)


def _storable(text: str) -> str:
    """Without what UTF-8 cannot hold: half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
