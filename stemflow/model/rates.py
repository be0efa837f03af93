"""Rate limits as users write them, and as they are stored in plans and records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from stemflow.errors import OptionError
from stemflow.units import Duration, duration_of, format_duration, parse_rate

MOST_IN_A_WINDOW: Final = 100_000
"""The maximum `limit` of a sliding window, which stores its starts; a paced limit stores one instant."""
MOST_PACED: Final = 1_000_000
LONGEST_MS: Final = 31 * 86_400_000

_FORMS = ({"rate"}, {"limit", "per"})
_MORE = {"key", "burst", "pace"}


class Rate(Struct, frozen=True, omit_defaults=True):
    """At most `limit` starts of the tasks that share `key` in every window of `per_ms`.

    With `burst`, starts are spaced evenly instead, `per_ms / limit` apart, and up to `burst` may start at once after a
    pause. In a plan, `key` may be a template, and an empty key is the default one; in a record it is the final key.
    """

    limit: int
    per_ms: int
    key: str = ""
    burst: int = 0


class RateLimit(Struct, frozen=True):
    """At most `limit` starts in every window of `per`, across all workers.

    Example: `RateLimit(100, "1m", key="user:${{ args.user }}")`.

    Args:
        limit: The maximum number of starts; up to 100,000, or 1,000,000 with `pace`.
        per: The length of the window: a duration such as `"1m"`, or seconds; from 1 ms to 31 days.
        key: Tasks with the same key share the limit. A template over `args` and `headers`; the default is the task's
        name
            with its header `tenant`, so that each tenant has a separate limit.
        burst: With `pace`, how many tasks may start at once after a pause.
        pace: Space starts evenly, `per / limit` apart.

    Raises:
        OptionError: A value is wrong.
    """

    limit: int
    per: Duration
    key: str = ""
    burst: int = 1
    pace: bool = False

    def __post_init__(self) -> None:
        self.rate()

    @classmethod
    def of(cls, given: str | RateLimit | Mapping[str, Any], **more: Any) -> RateLimit:
        """Read the forms that users write. Raises OptionError for another.

        Args:
            given: `"200/s"` (or `/m`, `/h`, `/d`), a RateLimit, or a mapping with `rate`, or with `limit` and `per`.
            more: the other fields of a RateLimit, such as `key` and `burst`.
        """
        if isinstance(given, RateLimit):
            return given
        if isinstance(given, Mapping):
            if given.keys() - _MORE not in _FORMS:
                names = ", ".join(map(str, given)) or "none"
                raise OptionError(
                    f"expected the keys rate, or limit and per, and perhaps key, burst and pace, got {names}"
                )
            rest = {name: given[name] for name in given if name != "rate"}
            return cls.of(given["rate"], **rest) if "rate" in given else cls(**rest)
        limit, per_ms = parse_rate(given)
        return cls(limit, format_duration(per_ms), **more)

    @classmethod
    def shown(cls, rate: Rate) -> RateLimit:
        """The public form of `rate`, a limit of a plan."""
        return cls(rate.limit, format_duration(rate.per_ms), rate.key, rate.burst or 1, rate.burst > 0)

    def rate(self) -> Rate:
        """The limit as it is stored in a plan."""
        if not isinstance(self.pace, bool):
            raise OptionError(f"pace: expected true or false, got {self.pace!r}")
        limit = _number("limit", self.limit, MOST_PACED if self.pace else MOST_IN_A_WINDOW)
        per_ms = duration_of("per", self.per)
        if not 1 <= per_ms <= LONGEST_MS:
            raise OptionError(f"per: expected a duration from 1ms to 31d, got {self.per!r}")
        if not isinstance(self.key, str):
            raise OptionError(f"key: expected text, got {self.key!r}")
        if not self.pace and self.burst != 1:
            raise OptionError(f"burst: expected it with pace, got {self.burst!r}; a window may be used at once")
        return Rate(limit, per_ms, self.key, _number("burst", self.burst, limit) if self.pace else 0)


def rates_of(given: Any) -> tuple[Rate, ...]:
    """Read one limit or a list of limits; None means no limit. Raises OptionError, UnitError."""
    many = given if isinstance(given, (list, tuple)) else () if given is None else (given,)
    return tuple(RateLimit.of(one).rate() for one in many)


def _number(name: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise OptionError(f"{name}: expected a whole number from 1 to {most}, got {value!r}")
    return value
