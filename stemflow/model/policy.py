"""Policies of a task: `TaskOptions` with every duration as an integer of milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, structs

from stemflow.errors import OptionError, UnitError
from stemflow.model.rates import Rate, rates_of
from stemflow.units import Duration, parse_duration_ms

Backoff = Literal["fixed", "linear", "exponential"]
UniqueMode = Literal["return_existing", "reject", "skip", "replace", "debounce", "keep_last"]
UNIQUE_MODES: tuple[UniqueMode, ...] = UniqueMode.__args__  # type: ignore[attr-defined]
Isolation = Literal["auto", "async", "thread", "process"]
FailureMode = Literal["open", "closed"]
ErrorKinds = type[BaseException] | str | Sequence[type[BaseException] | str]
"""Classes of errors, or their names, with or without the module."""

_BACKOFFS: tuple[Backoff, ...] = Backoff.__args__  # type: ignore[attr-defined]
MAX_RETRIES = 1_000_000
MOST_QUEUE_NAME = 200
SHORTEST_LEASE_MS = 100
MAX_FACTOR = 1_000.0
LONGEST_CACHE_MS = 366 * 86_400_000
"""The longest time for which a result may be cached, in milliseconds."""


RETRY_NAMES = frozenset({"error", "attempt", "args", "inputs", "elapsed"})
"""What `RetryPolicy.when` may read."""


class RetryPolicy(Struct, frozen=True, omit_defaults=True):
    """When and how often a failed attempt is retried; created by `RetryPolicy.of`, which describes the fields.

    By default, delays start at 2 s, double up to 5 minutes, and are reduced by a jitter of up to a quarter. `retry_on`
    and `never_retry_on` contain class names, which are matched against the whole MRO of the error. `paced`: delays were
    given explicitly, so the retry strategy of the registry is not used. `max_retries` is read where the policy is
    given. `backoff`, `initial_ms`, `factor`, `max_ms`, `jitter`, `when` and `budget_ms` are those of `of`, in
    milliseconds.
    """

    backoff: Backoff = "exponential"
    initial_ms: int = 2_000
    factor: float = 2.0
    max_ms: int = 300_000
    jitter: float = 0.25
    retry_on: tuple[str, ...] = ()
    never_retry_on: tuple[str, ...] = ()
    when: str | None = None
    budget_ms: int | None = None
    max_retries: int | None = None
    paced: bool = False
    rules: tuple[RetryPolicy, ...] = ()
    """Policies for some errors each, with `max_retries` of their own: the first that fits an error is used, and no
    retry follows an error that none fits."""

    def __post_init__(self) -> None:
        if not (0 <= self.factor <= MAX_FACTOR and 0 <= self.jitter <= 1 and min(self.initial_ms, self.max_ms) >= 0):
            raise OptionError(f"RetryPolicy: expected delays that can be, got {self!r}; build it with RetryPolicy.of")

    @classmethod
    def of(
        cls,
        *,
        backoff: Backoff | None = None,
        initial: Duration | None = None,
        factor: float | None = None,
        max: Duration | None = None,
        jitter: float | None = None,
        max_retries: int | None = None,
        retry_on: ErrorKinds = (),
        never_retry_on: ErrorKinds = (),
        when: str | None = None,
        budget: Duration | None = None,
    ) -> RetryPolicy:
        """Build a policy from durations, and from exception classes or their names.

        `backoff` is exponential (the default), linear or fixed; attempt n + 1 waits `initial` (2 s) times `factor` (2)
        to the n-th power, or plus n times `factor`, at most `max` (5 minutes), minus up to the share `jitter` (0.25) of
        it; `max` does not limit fixed delays. No retry begins later than `budget` after the task became known.

        Args:
            backoff: `exponential`, `linear` or `fixed`.
            initial: the first delay, as a duration or in seconds.
            factor: of exponential delays; of linear ones, what is added each time as a multiple of `initial`.
            max: the longest delay, as a duration or in seconds.
            jitter: the share of a delay that is subtracted at random, from 0 to 1.
            max_retries: attempts after the first; None keeps the option `max_retries` of the task.
            retry_on: exception classes or names that are retried; empty: all.
            never_retry_on: exception classes or names that are not retried.
            when: an expression that must be true for a retry, over `error`, `attempt` (from 0), `args` (by name),
                `inputs` of the workflow, and `elapsed` (seconds since the task became known).
            budget: the time in which retries may begin, as a duration or in seconds; None: no limit.

        Raises:
            OptionError: a value is not of its form.
        """
        delays: dict[str, Any] = {
            "backoff": None if backoff is None else _choice("backoff", backoff, *_BACKOFFS),
            "initial_ms": None if initial is None else _duration_ms("initial", initial),
            "factor": None if factor is None else _number("factor", factor, 0.001, MAX_FACTOR),
            "max_ms": None if max is None else _duration_ms("max", max),
            "jitter": None if jitter is None else _number("jitter", jitter, 0, 1),
        }
        given = {name: value for name, value in delays.items() if value is not None}
        # A field is left out of the encoded form if it is the default itself, not if it is equal to it: so that the
        # digest of a plan does not depend on whether a default was written, it is not passed on.
        usual = cls()
        return cls(
            **{name: value for name, value in given.items() if value != getattr(usual, name)},
            retry_on=_class_names("retry_on", retry_on),
            never_retry_on=_class_names("never_retry_on", never_retry_on),
            when=when,
            budget_ms=None if budget is None else _duration_ms("budget", budget),
            max_retries=None if max_retries is None else _count("max_retries", max_retries, 0, MAX_RETRIES),
            paced=bool(given),
        )


class Concurrency(Struct, frozen=True, omit_defaults=True):
    """At most `limit` tasks or composites with this `key` run at the same time; the others wait in order, without a
    worker.

    `key` may be a template over `args`; an empty key is the task's name.
    """

    key: str = ""
    limit: int = 1

    @classmethod
    def of(cls, value: Any) -> Concurrency:
        """Read the forms that users write. Raises OptionError for another.

        Args:
            value: a Concurrency, `{"key": ..., "limit": ...}`, or only a limit.
        """
        if isinstance(value, Mapping):
            unknown = sorted(map(str, value.keys() - {"key", "limit"}))
            if unknown:
                raise OptionError(f"expected the keys key and limit, got {', '.join(unknown)}")
            value = cls(value.get("key", ""), value.get("limit", 1))
        elif not isinstance(value, Concurrency):
            value = cls("", value)
        if not isinstance(value.key, str):
            raise OptionError(f"key: expected text, got {value.key!r}")
        return cls(value.key, _count("limit", value.limit, 1, 1_000_000))


class Options(Struct, frozen=True, omit_defaults=True):
    """The effective options of one task call, frozen in the plan of its run."""

    queue: str = "default"
    priority: int = 0
    max_retries: int = 0
    retry: RetryPolicy = RetryPolicy()
    soft_ms: int | None = None
    hard_ms: int | None = None
    soft_raises: bool = False
    rate_limits: tuple[Rate, ...] = ()
    group_rates: tuple[Rate, ...] = ()
    """Limits shared by several tasks under one key: `group_key` if given, else the value of the header
    `group_header`."""
    group_key: str | None = None
    group_header: str = "tenant"
    group_failure: FailureMode = "open"
    """What happens to a task whose RateLimiter fails: it starts (open), or is handed back (closed)."""
    unique: bool = False
    unique_mode: UniqueMode = "return_existing"
    unique_for_ms: int | None = None
    unique_by: str | None = None
    """An expression over `args`; None: the digest of the whole call."""
    unique_key: str | None = None
    """The key itself, if a function computed it at submission."""
    cached: bool = False
    """The unique key is that of a cached result."""
    concurrency: Concurrency | None = None
    params: tuple[str, ...] = ()
    """Names of the handler's positional parameters, if a key uses arguments."""
    defaults: str = ""
    """Defaults of the handler's parameters by name, as a JSON object, if a key uses arguments."""
    lease_ms: int = 30_000
    expires_ms: int | None = None
    ignore_result: bool = False
    """A task that is submitted alone keeps no result; within a canvas others may need it until the run has ended."""
    result_ttl_ms: int = 86_400_000
    isolation: Isolation = "auto"
    acks_late: bool = True
    max_deliveries: int = 5
    args_encoder: str | None = None
    """Ids of the payload encoders of arguments and results; None is the default of the process that writes."""
    result_encoder: str | None = None


def _class_names(name: str, kinds: ErrorKinds) -> tuple[str, ...]:
    return tuple(_class_name(name, kind) for kind in (kinds if isinstance(kinds, (list, tuple, set)) else (kinds,)))


def _class_name(name: str, kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(kind, str) and all(part.isidentifier() for part in kind.replace(".<locals>", "").split(".")):
        return kind
    raise OptionError(f"{name}: expected classes of exceptions or their names, got {kind!r}")


def _duration_ms(name: str, value: Any) -> int:
    try:
        return parse_duration_ms(value)
    except (UnitError, TypeError) as error:
        raise OptionError(f"{name}: {error}") from error


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise OptionError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def _keyless(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    keys = [one.key for one in rates if one.key]
    if keys:
        raise OptionError(f"expected limits without a key, got {keys[0]!r}; the key of a group is its group_rate_key")
    return rates


def _retry(value: Any) -> RetryPolicy:
    if isinstance(value, RetryPolicy):
        return value
    if isinstance(value, (list, tuple)):
        return _rules([_retry(one) for one in value])
    if not isinstance(value, Mapping):
        raise OptionError(f"expected a RetryPolicy, got {value!r}")
    unknown = sorted(map(str, value.keys() - _POLICY_NAMES))
    if unknown:
        raise OptionError(f"expected the keys {', '.join(sorted(_POLICY_NAMES))}, got {', '.join(unknown)}")
    return RetryPolicy.of(**value)


def _rules(policies: list[RetryPolicy]) -> RetryPolicy:
    """A list of policies as one; raises OptionError for one that does not say how many retries it allows."""
    if not policies:
        raise OptionError("expected at least one policy, got none")
    for number, one in enumerate(policies):
        if one.max_retries is None or one.rules:
            raise OptionError(f"policy {number + 1}: expected max_retries, as each of a list has its own")
    most = min(sum(one.max_retries or 0 for one in policies), MAX_RETRIES)
    return RetryPolicy(rules=tuple(policies), max_retries=most, paced=any(one.paced for one in policies))


def _encoder_id(value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(f"expected the id of an encoder, got {value!r}; register it with Stemflow(encoders=...)")
    return value


def _optional_ms(value: Any) -> int | None:
    return None if value is None else parse_duration_ms(value)


def _lease_ms(value: Any) -> int:
    ms = parse_duration_ms(value)
    if ms < SHORTEST_LEASE_MS:
        raise OptionError(f"expected at least {SHORTEST_LEASE_MS}ms, got {value!r}; leases are renewed at a third")
    return ms


def _count(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    return value


def _key_source(value: Any) -> Any:
    if value is not None and not isinstance(value, str) and not callable(value):
        raise OptionError(f"expected an expression over args, or a function of them, got {value!r}")
    return value


def _choice(name: str, value: Any, *allowed: str) -> Any:
    if value not in allowed:
        raise OptionError(f"{name}: expected {' or '.join(allowed)}, got {value!r}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{name}: expected True or False, got {value!r}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"{name}: expected a text that is not empty, got {value!r}")
    return value


def _queue(value: Any) -> str:
    name = _text("queue", value)
    if len(name) > MOST_QUEUE_NAME or not name.isprintable():
        raise OptionError(f"queue: expected 1 to {MOST_QUEUE_NAME} printable characters, got {name[:40]!a}")
    return name


_POLICY_NAMES = frozenset(RetryPolicy.of.__kwdefaults__ or ())

_READ: dict[str, Callable[[Any], tuple[str, Any]]] = {
    "queue": lambda v: ("queue", _queue(v)),
    "priority": lambda v: ("priority", _count("priority", v, 0, 9)),
    "max_retries": lambda v: ("max_retries", _count("max_retries", v, 0, MAX_RETRIES)),
    "retry": lambda v: ("retry", _retry(v)),
    "soft_time_limit": lambda v: ("soft_ms", _optional_ms(v)),
    "hard_time_limit": lambda v: ("hard_ms", _optional_ms(v)),
    "soft_raises": lambda v: ("soft_raises", _flag("soft_raises", v)),
    "rate_limit": lambda v: ("rate_limits", rates_of(v)),
    "group_rate_limit": lambda v: ("group_rates", _keyless(rates_of(v))),
    "group_rate_key": lambda v: ("group_key", None if v is None else _text("group_rate_key", v)),
    "group_rate_limiter_failure_mode": lambda v: ("group_failure", _choice("failure mode", v, "open", "closed")),
    "group_rate_key_header": lambda v: ("group_header", _text("group_rate_key_header", v)),
    "unique": lambda v: ("unique", _flag("unique", v)),
    "unique_mode": lambda v: ("unique_mode", _choice("unique_mode", v, *UNIQUE_MODES)),
    "unique_for": lambda v: ("unique_for_ms", _optional_ms(v)),
    "unique_by": lambda v: ("unique_by", _key_source(v)),
    "concurrency": lambda v: ("concurrency", None if v is None else Concurrency.of(v)),
    "visibility_timeout": lambda v: ("lease_ms", _lease_ms(v)),
    "expires": lambda v: ("expires_ms", _optional_ms(v)),
    "ignore_result": lambda v: ("ignore_result", _flag("ignore_result", v)),
    "result_ttl": lambda v: ("result_ttl_ms", parse_duration_ms(v)),
    "isolation": lambda v: ("isolation", _choice("isolation", v, "auto", "async", "thread", "process")),
    "acks_late": lambda v: ("acks_late", _flag("acks_late", v)),
    "max_deliveries": lambda v: ("max_deliveries", _count("max_deliveries", v, 1, 1_000)),
    "args_encoder": lambda v: ("args_encoder", _encoder_id(v)),
    "result_encoder": lambda v: ("result_encoder", _encoder_id(v)),
}

OPTION_NAMES = frozenset(_READ) | {"cache"}
_OF_UNIQUE = frozenset({"unique", "unique_mode", "unique_for", "unique_by"})


def _cache(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields that `cache` sets: a unique key with a window, over the results of the task. Raises OptionError."""
    clash = sorted(_OF_UNIQUE & given.keys())
    if "cache" not in given:
        return {"cached": False} if clash else {}
    value = given["cache"]
    if value is None or value is False:
        return {"cached": False, "unique": False}
    if clash:
        raise OptionError(f"{where}: expected cache or {clash[0]}, got both; a cached task is unique while it runs")
    terms = value if isinstance(value, Mapping) else {"ttl": value}
    unknown = sorted(map(str, terms.keys() - {"key", "ttl"}))
    if unknown or "ttl" not in terms:
        got = ", ".join(unknown) if unknown else "no ttl"
        raise OptionError(f"{where}: cache: expected a duration, or the keys ttl and key, got {got}")
    try:
        ttl_ms = parse_duration_ms(terms["ttl"])
        key = _key_source(terms.get("key"))
    except (ValueError, TypeError, OptionError) as error:
        raise OptionError(f"{where}: cache: {error}") from error
    if not 0 < ttl_ms <= LONGEST_CACHE_MS:
        raise OptionError(f"{where}: cache: ttl: expected a time above 0 and up to 366d, got {terms['ttl']!r}")
    return {"cached": True, "unique": True, "unique_mode": "return_existing", "unique_for_ms": ttl_ms,
            "unique_by": key, "unique_key": None}  # fmt: skip


def normalise(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Convert options as users write them into fields of `Options`; `where` begins error messages.

    The result contains only what was given, so that an explicit 0 or False counts in `effective`. The `max_retries` of
    a policy applies unless the option is given too. Raises OptionError.
    """
    fields = _cache(given, where)
    for name, value in given.items():
        if name == "cache":
            continue
        if name not in _READ:
            raise OptionError(f"{where}: there is no option {name!r}; known are {', '.join(sorted(_READ))}")
        try:
            field, parsed = _READ[name](value)
        except (ValueError, TypeError, OptionError) as error:
            said = str(error).removeprefix(f"{name}: ")
            raise OptionError(f"{where}: {name}: {said}") from error
        fields[field] = parsed
    policy = fields.get("retry")
    if policy is not None and policy.max_retries is not None:
        fields["retry"] = structs.replace(policy, max_retries=None)
        fields.setdefault("max_retries", policy.max_retries)
    return fields


def effective(where: str, *layers: Mapping[str, Any]) -> Options:
    """Merge normalised layers; later ones take precedence (app < handler < defaults < step < call)."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    usual = Options()
    # See RetryPolicy.of: a default that is written out is encoded as one that is not.
    options = structs.replace(
        usual, **{name: value for name, value in merged.items() if value != getattr(usual, name)}
    ) if merged else usual  # fmt: skip
    if options.soft_ms is not None and options.hard_ms is not None and options.soft_ms >= options.hard_ms:
        raise OptionError(
            f"{where}: expected the soft time limit below the hard one, got {options.soft_ms} and {options.hard_ms} ms"
        )
    return options
