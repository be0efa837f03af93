"""Deciding, where the exception was raised, whether a failed attempt is retried, and after which delay."""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from msgspec import structs

from stemflow.errors import OptionError, StemflowError
from stemflow.expr import ExpressionError, parse_condition
from stemflow.model.facts import Failed
from stemflow.model.policy import RETRY_NAMES, Options, RetryPolicy
from stemflow.model.records import ErrorInfo
from stemflow.runtime.payloads.json_data import decode, encode
from stemflow.runtime.values.resolver import public_error
from stemflow.units import Duration, parse_duration_ms

log = logging.getLogger("stemflow.worker")

TRACEBACK_CHARS = 8_192
TRACEBACK_FRAMES = 40
"""The innermost frames that are formatted: an exception object that is raised again and again collects frames."""
MESSAGE_CHARS = 4_096
NAME_CHARS = 500
MOST_BASES = 50
"""The longest name of a class of errors, and the most base classes, that are kept."""
DATA_BYTES = 16_384
"""The longest data of an error that is kept, as JSON."""


class RetryStrategy(Protocol):
    """Computes the delays between attempts, for what a RetryPolicy cannot express.

    It belongs to a task (`registry.task(..., retry_strategy=)`) or to all tasks of a registry
    (`TaskRegistry(retry_strategy=)`). It is called where the handler ran, if an attempt is left and the filters of the
    policy allow a retry.

        class RetryAfter:
            def next_delay(self, attempt, error):
                return getattr(error, "retry_after", None)
    """

    def next_delay(self, attempt: int, error: BaseException, /) -> Duration | None:
        """Return the delay after attempt `attempt` (from 0) has raised `error`; None: no retry.

        A delay is a number of seconds, or text such as `"1m30s"`.
        """


def checked_strategy(strategy: Any, where: str) -> RetryStrategy | None:
    """Return the strategy as given. Raises OptionError, whose message `where` begins, if it cannot be called."""
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
    """Describe an exception as data; also one whose `__str__` raises."""
    kind = type(error)
    try:
        message = str(error)[:MESSAGE_CHARS]
    except BaseException as inner:
        message = f"<its text cannot be shown: {type(inner).__name__} in __str__>"
    try:
        trace = "".join(traceback.format_exception(error, limit=-TRACEBACK_FRAMES))[-TRACEBACK_CHARS:]
    except BaseException:
        trace = ""
    names = _names(error)
    name = _storable(kind.__name__[:NAME_CHARS])
    qualname = names[0] if names else name
    return ErrorInfo(name, _storable(message), qualname, names, _storable(trace), _data(error))


def _data(error: BaseException) -> Any:
    """What the exception says about itself as JSON data: the value of its method `error_data` or its attribute `data`.

    None if it has neither, if that is no JSON data, or if it is too long.
    """
    try:
        ask = getattr(error, "error_data", None)
        data = ask() if callable(ask) else getattr(error, "data", None)
        return None if data is None else decode(encode(data, "data of the error", limit=DATA_BYTES))
    except Exception:
        return None


NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({"args": {}, "inputs": {}})
"""What conditions know of a call whose arguments are not known yet."""


def names_read(policy: RetryPolicy) -> frozenset[str]:
    """The names that the conditions of a policy read."""
    found = (parse_condition(one.when, RETRY_NAMES) for one in (policy, *policy.rules) if one.when is not None)
    return frozenset(reference.path[0] for one in found for reference in one.references)


class RetryDecider(NamedTuple):
    """Decides on a retry of `task` when attempt `attempt` (from 0) has raised, by its policy and its strategy.

    `known`: what conditions read of the call; `age_ms`: for how long the task has been known.
    """

    task: str = ""
    options: Options = Options()
    attempt: int = 0
    strategy: RetryStrategy | None = None
    known: Mapping[str, Any] = NO_ARGUMENTS
    age_ms: Callable[[], int] = int

    def __call__(self, error: BaseException) -> Failed:
        """The failure with its decision: by the class of the error, then by the expression `when` of the policy."""
        info, policy = describe(error), self.options.retry
        for rule, one in enumerate(policy.rules):
            if self._fits(error, info, one):
                failed = Failed(info, rule=rule)
                return failed if one.paced else self.paced(failed, error)
        if policy.rules or not self._fits(error, info, policy):
            return Failed(info, "final")
        return self.paced(Failed(info), error)

    def paced(self, failed: Failed, error: BaseException) -> Failed:
        """The failure with the delay of the strategy, if there is a strategy and an attempt is left.

        If the strategy raises, or returns no duration, that is logged, and the delay of the policy is used.
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
                "task %s: retry_strategy %s.next_delay(%d, %s): %s; the delay of the policy is used; fix the strategy",
                self.task, type(self.strategy).__qualname__, self.attempt, type(error).__name__, _said(wrong),
            )  # fmt: skip
            return failed


    def _fits(self, error: BaseException, info: ErrorInfo, policy: RetryPolicy) -> bool:
        """Whether the policy is for this error: by its class, and by its condition."""
        if not _by_class(error, policy):
            return False
        if policy.when is None:
            return True
        names = {"error": public_error(info), "attempt": self.attempt, "elapsed": self.age_ms() / 1_000, **self.known}
        try:
            return bool(parse_condition(policy.when, RETRY_NAMES)(names))
        except ExpressionError:
            return False


def _milliseconds(delay: Any) -> int:
    if not isinstance(delay, (str, int, float, timedelta)):
        raise OptionError(f"expected a duration or None, got {type(delay).__name__}")
    return parse_duration_ms(delay)


def _said(wrong: BaseException) -> str:
    info = describe(wrong)
    return info.message if isinstance(wrong, StemflowError) else f"it raised {info.type}: {info.message}"


def _by_class(error: BaseException, policy: RetryPolicy) -> bool:
    """Whether the class filters allow a retry. A group matches by its own class, or if all its exceptions match."""
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


def _names(error: BaseException) -> tuple[str, ...]:
    """The qualified names of the class of an error and of its base classes."""
    kinds = [kind for kind in type(error).__mro__ if kind not in (object, BaseException)]
    return tuple(_storable(f"{kind.__module__}.{kind.__qualname__}"[:NAME_CHARS]) for kind in kinds[:MOST_BASES])


def _storable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()
