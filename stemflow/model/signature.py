"""Signatures: the tree that workflow files and `Canvas` build, before it is compiled into a plan.

`Signature[In, Out]` is typed by the value that it takes from the previous step, and by its own value. `NoInput` as `In`
means that a call is complete: a value of a previous step would be one argument too many.

The kinds are in one file, although it is long, since their tree is one recursive type: each may contain each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_args

from msgspec import Struct, structs

from stemflow.errors import OptionError
from stemflow.model.completion import Completion
from stemflow.model.exported import Exported
from stemflow.model.policy import Concurrency, normalise
from stemflow.model.secret_source import SecretSource
from stemflow.model.step_names import BODY, DEFAULT_CASE, NAME
from stemflow.model.wrong_argument import described, type_names
from stemflow.units import Duration, Instant, duration_of, instant_ms

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)
Following = TypeVar("Following")
Sig = TypeVar("Sig", bound="Signature[Any, Any]")

RunOn = Literal["success", "failure", "done", "any_success", "always"]
OnError = Literal["fail", "continue", "skip_dependents"]
MemberPolicy = Literal["fail_fast", "collect", "ignore"]
OnEventTimeout = Literal["fail", "continue", "skip"]
OnApprovalTimeout = Literal["fail", "approve", "reject", "skip"]


if TYPE_CHECKING:
    Child = Any
    """A child in the tree: at run time the closed union of kinds, so that a decoded tree is checked completely."""


HOOKS = ("success_hooks", "failure_hooks", "cancel_hooks")
"""Fields of every signature that hold hooks."""
FOLLOW_UPS = (*HOOKS, "catches", "cleanup")
"""Fields of every signature that hold steps which run after it, depending on how it ended."""
AFTERWARDS = (*FOLLOW_UPS, "compensate")
"""Fields of every signature that hold steps which run after it, under some condition."""

MOST_ITERATIONS = 10_000
"""The largest number of iterations that a loop may have."""

FAIL_TYPE = "WorkflowFailed"
"""The type of the error of a `fail` that names none."""

EVENT_KEPT_MS = 86_400_000
"""How long an event is kept for steps that begin to wait for it later, unless its sender says otherwise."""


class NoInput:
    """Marks a signature whose arguments are complete, so that it can only start a chain."""


def _with_defaults(sig: Sig, options: Mapping[str, Any], headers: Mapping[str, str], meta: Mapping[str, Any]) -> Sig:
    """`sig` whose tasks have these options, headers and meta where they were given none of that name."""
    if isinstance(sig, TaskSig):
        return structs.replace(
            sig, options={**options, **sig.options}, headers={**headers, **sig.headers}, meta={**meta, **sig.meta}
        )
    below: dict[str, Any] = {}
    for field in sig.MEMBERS:
        held = getattr(sig, field)
        if isinstance(held, tuple):
            below[field] = tuple(_with_defaults(one, options, headers, meta) for one in held)
        elif held is not None:
            below[field] = _with_defaults(held, options, headers, meta)
    return structs.replace(sig, **below)


def expect_signature(value: Any, where: str) -> Any:
    """`value` if it is a signature. Raises OptionError, beginning with `where`, that says what to write instead."""
    if isinstance(value, Signature):
        return value
    raise OptionError(f"{where}: expected a signature, got {described(value)}")


class CatchOn(Struct, frozen=True, omit_defaults=True):
    """Which errors a catch is for: types by name (empty: any), and a condition over `error`."""

    types: tuple[str, ...] = ()
    when: str | None = None


class Signature(Struct, Exported, Generic[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A step that has not been submitted yet; immutable. The base of all kinds.

    Its type parameters are the value that it takes from the previous step, and its own value."""

    MEMBERS: ClassVar[Mapping[str, str | None]] = {}
    """Field with members -> path segment of its one member; None: each has its name or its index."""
    OTHERS: ClassVar[tuple[str, ...]] = AFTERWARDS
    """Fields with signatures that run under some condition, in addition to the members."""

    name: str | None = None
    when: str | None = None
    needs: tuple[str, ...] = ()
    run_on: RunOn = "success"
    on_error: OnError = "fail"
    success_hooks: tuple[Child, ...] = ()
    failure_hooks: tuple[Child, ...] = ()
    cancel_hooks: tuple[Child, ...] = ()
    catches: tuple[Child, ...] = ()
    catch_on: tuple[CatchOn, ...] = ()
    """For each of `catches`, the errors that it is for."""
    cleanup: Child | None = None
    compensate: Child | None = None
    """The task that undoes it, where the run is compensated and it succeeded."""
    timeout_ms: int | None = None
    timeout: str | None = None
    """The template of a duration: in place of `timeout_ms`, or the hard limit of a task."""
    concurrency: Concurrency | None = None
    """Composites only; for a task it is one of the options."""
    labels: Mapping[str, str] = {}
    """Plain texts by which the runs of the step can be found."""
    returns: Mapping[str, Any] | None = None
    """The JSON Schema that the result must fit; tasks and composites only."""
    at: tuple[int, int] | None = None
    """Line and column in the workflow file, both from 1; None for a programmatic signature."""

    def on_success(self, hook: Signature[Any, Any]) -> Signature[In_contra, Out_co]:
        """Run `hook` once when this succeeds, with the result as its first argument. On a group, each member gets the
        hook."""
        expect_signature(hook, "on_success")
        return structs.replace(self, success_hooks=(*self.success_hooks, hook))

    def on_failure(self, hook: Signature[Any, Any]) -> Signature[In_contra, Out_co]:
        """Run `hook` once when this fails for good, with `{id, node, leaf, error}` as its first argument."""
        expect_signature(hook, "on_failure")
        return structs.replace(self, failure_hooks=(*self.failure_hooks, hook))

    def on_cancel(self, hook: Signature[Any, Any]) -> Signature[In_contra, Out_co]:
        """Run `hook` once when this is cancelled, with `{id, node}` as its first argument."""
        expect_signature(hook, "on_cancel")
        return structs.replace(self, cancel_hooks=(*self.cancel_hooks, hook))

    def catch(
        self, body: Signature[Any, Any], *, on: Iterable[str | type[BaseException]] = (), when: str | None = None
    ) -> Signature[In_contra, Out_co]:
        """Run `body` if this fails; its outcome replaces the failure, and its value the value.

        The first catch that fits is taken. Failures in `body` are not caught by the others. Nothing is caught in a
        composite or run that is being stopped.

        Args:
            body: Gets `{id, node, leaf, error}` as its first argument, as a hook of `on_failure` does.
            on: Classes of exceptions, or their names with or without module; base classes match, too. Empty: any.
            when: An expression over `error`, which has `type`, `qualname`, `message` and `data`.

        Raises:
            OptionError: `body` is no signature, or `on` no classes or names; at submission, if `when` is no expression.

        Example:
            `charge.s(order).catch(bill_later.s(), on=["PspUnavailable"])`
        """
        expect_signature(body, "catch")
        catch_on = CatchOn(type_names(on), when)
        return structs.replace(self, catches=(*self.catches, body), catch_on=(*self.catch_on, catch_on))

    def finally_(self, body: Signature[Any, Any]) -> Signature[In_contra, Out_co]:
        """Run `body` at the end, however this ended: after success, failure, its timeout, or a cancel.

        It gets `{id, node, state}` as its first argument, and `leaf` and `error` after a failure. A cancel does not
        stop it, except a forced one. If it fails, a success becomes that failure; its value is not used.

        Raises:
            OptionError: `body` is no signature, or this has a `finally_` already.
        """
        expect_signature(body, "finally_")
        if self.cleanup is not None:
            raise OptionError("finally_: expected one for each step, this one has it already; put both into a chain")
        return structs.replace(self, cleanup=body)

    def __or__(self, following: Signature[Out_co, Following]) -> Signature[In_contra, Following]:
        """A chain: `a | b` passes the result of `a` to `b`."""
        expect_signature(following, "after |")
        steps = self.steps if isinstance(self, ChainSig) and not self.has_policy else (self,)
        return ChainSig(steps=(*steps, following))

    @property
    def has_follow_ups(self) -> bool:
        """Whether something runs after it, depending on how it ended: hooks, catches, a cleanup."""
        return bool(self.success_hooks or self.failure_hooks or self.cancel_hooks or self.catches or self.cleanup)

    @property
    def has_policy(self) -> bool:
        """Whether the step has anything other than its content: a condition, a policy, hooks."""
        return bool(
            self.name
            or self.when
            or self.needs
            or self.run_on != "success"
            or self.on_error != "fail"
            or self.has_follow_ups
            or self.compensate
            or self.timeout_ms
            or self.timeout
            or self.concurrency
            or self.labels
            or self.returns is not None
        )

    def with_concurrency(self, key: str, limit: int = 1) -> Signature[In_contra, Out_co]:
        """Let at most `limit` composites or tasks with this `key` run at the same time; the others wait in order."""
        limited = Concurrency.of({"key": key, "limit": limit})
        if isinstance(self, TaskSig):
            return structs.replace(self, options={**self.options, "concurrency": limited})
        if isinstance(self, (WaitSig, EventSig, EmitSig, ApprovalSig)):
            kind = type(self).__struct_config__.tag
            raise OptionError(f"with_concurrency: expected a task or a composite, got {kind}; put a chain around it")
        return structs.replace(self, concurrency=limited)

    def with_timeout(self, timeout: Duration) -> Signature[In_contra, Out_co]:
        """Stop this composite when `timeout` (a duration, or seconds) has passed since it began; it then fails.

        Raises OptionError for a task, which has `hard_time_limit`, and UnitError.
        """
        if not self.MEMBERS:
            raise OptionError("with_timeout: expected a composite; give a task with_options(hard_time_limit=...)")
        return structs.replace(self, timeout_ms=duration_of("with_timeout", timeout))

    def with_when(self, condition: str) -> Signature[In_contra, Out_co]:
        """Run this only if a condition holds; otherwise it is skipped, and in a chain so is what follows.

        Args:
            condition: an expression that gives true or false. In a chain, `prev` is the value of the step before; in a
                loop, `carry` and `index` exist, in a map `item` and `index`.

        Raises:
            OptionError: the condition is no text; at submission, if it is no expression.

        Example:
            `Canvas.chain(price.s(sku), alert.s().with_when("prev > 100"))`
        """
        if not isinstance(condition, str) or not condition.strip():
            raise OptionError(f"with_when: expected an expression, got {condition!r}")
        return structs.replace(self, when=condition)

    def with_on_error(self, policy: OnError) -> Signature[In_contra, Out_co]:
        """Say what a failure of this does to what is around it.

        Args:
            policy: `fail` makes it fail, too (default); `continue` does not, and what follows gets null;
                `skip_dependents` does not either, and what follows is skipped.

        Raises:
            OptionError: another policy.

        Example:
            `Canvas.chain(warm_up.s().with_on_error("continue"), work.si())`
        """
        if policy not in get_args(OnError):
            raise OptionError(f"with_on_error: expected {' or '.join(get_args(OnError))}, got {policy!r}")
        return structs.replace(self, on_error=policy)

    def with_options(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        countdown: Duration | None = None,
        eta: Instant | None = None,
        **options: Any,
    ) -> Signature[In_contra, Out_co]:
        """Give options (`priority`, `queue`, ...) to a task, or to each task of a composite that has none of its own.

        `options` override those that a task was registered with; `headers` and `meta` are merged in the same way.
        Hooks and compensations are left as they are. `countdown` (a duration, or seconds) and `eta` (an aware datetime,
        or seconds since the epoch) delay the start of a task. Raises OptionError, UnitError.

        Example:
            `Canvas.chain(load.s(), store.s()).with_options(priority=9)`
        """
        normalise(options, "with_options")
        if isinstance(self, TaskSig):  # what is said of a task itself counts, whatever was said before
            headers, meta = {**self.headers, **(headers or {})}, {**self.meta, **(meta or {})}
            start: dict[str, int] = {}
            if countdown is not None:
                start["countdown_ms"] = duration_of("with_options: countdown", countdown)
            if eta is not None:
                start["eta_at_ms"] = instant_ms(eta, "with_options")
            return structs.replace(self, options={**self.options, **options}, headers=headers, meta=meta, **start)
        if countdown is not None or eta is not None:
            raise OptionError(
                "with_options: expected countdown or eta for a task, got a composite; write "
                "Canvas.chain(Canvas.wait(...), ...)"
            )
        return _with_defaults(self, options, headers or {}, meta or {})

    def named(self, name: str) -> Signature[In_contra, Out_co]:
        """Give this step the name `name`; its path then ends in the name instead of its index.

        A name has letters, digits, `_` and `-`, begins with a letter or `_`, and is unique among its siblings; raises
        OptionError for another.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise OptionError(
                f"named: expected 1 to 128 letters, digits, _ and -, a letter or _ first, got {name!r}"
            )
        return structs.replace(self, name=name)


class TaskSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="task"):
    """One call of a registered task.

    `args` and `kwargs` are literal JSON values, which are never evaluated. `bind` is a template from a workflow file.
    `options` are options by their names in `TaskOptions`, not normalised yet. `headers` and `meta` reach the context of
    the handler.
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    bind: Mapping[str, Any] | None = None
    immutable: bool = False
    options: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}
    meta: Mapping[str, Any] = {}
    countdown_ms: int = 0
    eta_at_ms: int | None = None
    decode: Any = None
    """A type, or a function of JSON data, that converts the stored result for a program that waits for it."""
    declared: bool = False
    """Created from a definition: the task need not be registered where it is submitted."""
    env: Mapping[str, Any] = {}
    """Environment variables from a workflow file; their values are templates."""
    secrets: Mapping[str, SecretSource] = {}
    """The secrets of the file, where `bind` or `env` read some."""
    file_defaults: Mapping[str, Any] | None = None
    """The defaults of the file that the task is in, if that is not the file of its run but a sub-workflow."""


class ChainSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="chain"):
    """Steps in order; each gets the result of the previous one."""

    MEMBERS = {"steps": None}

    steps: tuple[Child, ...] = ()


class GroupSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="group"):
    """Parallel members; the value is the list of their results, in the order of the signature."""

    MEMBERS = {"members": None}

    members: tuple[Child, ...] = ()
    policy: MemberPolicy = "fail_fast"
    completion: Completion | None = None


class ChordSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="chord"):
    """A header of parallel members, then a body that gets the ordered list of their results."""

    MEMBERS = {"header": None, "body": "then"}

    header: tuple[Child, ...] = ()
    body: Child
    policy: MemberPolicy = "fail_fast"


class Span(Struct, frozen=True, tag="range"):
    """A `range` that is never written out."""

    start: int
    stop: int
    step: int = 1

    @property
    def numbers(self) -> range:
        """The range itself."""
        return range(self.start, self.stop, self.step)


class MapSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="map"):
    """One member per item of a list that is known at run time.

    `items` is an expression (str, from YAML), a `Span`, or a tuple of JSON values. `spread` says how an item becomes
    arguments of `do`: as the name `var` in expressions (`env`), as one argument (`item`), unpacked (`star`), or as a
    chunk, for whose elements the task is called one after the other (`chunk`).
    """

    MEMBERS = {"do": "[*]"}

    do: Child
    items: str | Span | tuple[Any, ...]
    var: str = "item"
    index_var: str = "index"
    spread: Literal["env", "item", "star", "chunk"] = "env"
    matrix: Mapping[str, Any] | None = None
    """In place of `items`: a tree of lists, whose combinations are the items."""
    batch: int | str | None = None
    """How many items make one, or a template that gives that number."""
    window: int | str | None = None
    policy: MemberPolicy = "fail_fast"
    completion: Completion | None = None


class SwitchSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="switch"):
    """Runs the case whose key is the value of the expression `on`; else `default`, or nothing.

    `keys` are the keys of `cases`, in the same order, as texts (`case_text`). The value is that of the case taken.
    """

    MEMBERS = {"cases": None, "default": DEFAULT_CASE}

    on: str
    keys: tuple[str, ...] = ()
    cases: tuple[Child, ...] = ()
    default: Child | None = None


class LoopSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="loop"):
    """`do` again and again, one iteration after the other, each given what the one before gave.

    `on` is asked before each iteration and ends the loop where it is false; with `until` it is asked after each and
    ends it where it is true; None: there are `limit` iterations. `carry` is a tree with what the first one is given.
    """

    MEMBERS = {"do": "[*]"}

    do: Child
    on: str | None = None
    until: bool = False
    limit: int | str = 1_000
    carry: Any = None


class StepsSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="steps"):
    """A graph of named steps. References between them and `needs` are its edges; `outputs` is its value."""

    MEMBERS = {"steps": None}

    steps: tuple[Child, ...] = ()
    outputs: Mapping[str, Any] | None = None
    fail_fast: bool = False


class WorkflowSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="workflow"):
    """A sub-workflow: the body of another workflow, with inputs and variables of its own.

    `ref` is what the file says: a relative path or a registered name. `given` is a tree with the inputs, which may hold
    `${{ }}`. The other fields are those of the other workflow; `body` is None until it has been looked up, and a task
    that starts a run of its own where that is not waited for (`wait`).
    """

    MEMBERS = {"body": BODY}

    ref: str
    given: Mapping[str, Any] = {}
    wait: bool = True
    body: Child | None = None
    form: Mapping[str, Any] = {}
    """Input name -> its JSON Schema."""
    vars: Mapping[str, Any] = {}
    outputs: Mapping[str, Any] | None = None
    compensate_on: tuple[Literal["failed", "cancelled"], ...] = ()


class SetSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="set"):
    """Values computed by expressions; needs no worker. `values` is a tree that may hold `${{ }}`."""

    values: Mapping[str, Any] = {}


class FailSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="fail"):
    """Fails with an error of the workflow's own; needs no worker. All three are trees that may hold `${{ }}`."""

    message: str
    error_type: str = FAIL_TYPE
    data: Any = None


class WaitSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="wait"):
    """A durable pause that occupies no worker.

    It takes `for_ms` milliseconds, or the duration that the template `span` gives, or lasts until the instant that the
    template `until` gives.
    """

    for_ms: int
    span: str | None = None
    until: str | None = None


class EventSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="event"):
    """Waits for an event of this type that satisfies `match`, an expression over `event`; occupies no worker.

    It waits for `limit_ms` milliseconds, or as long as the template `limit` says, or without an end. Its value is the
    event: `{id, type, data, time}`. `on_timeout`: it fails, succeeds with null, or is skipped.
    """

    event_type: str
    match: str | None = None
    limit_ms: int | None = None
    limit: str | None = None
    on_timeout: OnEventTimeout = "fail"


class EmitSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="emit"):
    """Sends an event in the commit in which it succeeds; needs no worker. `data` is a tree that may hold `${{ }}`.

    `id`: a template; by default the id of this step, so that the event is sent once. Its value is the event.
    """

    event_type: str
    data: Any = None
    id: str | None = None
    keep_ms: int = EVENT_KEPT_MS


class ApprovalSig(Signature[In_contra, Out_co], frozen=True, kw_only=True, omit_defaults=True, tag="approval"):
    """Waits until a person approves or rejects; occupies no worker.

    `by`: the names that may answer, anybody if there is none. `message` is a template, for the person who answers.
    `form`: the inputs that are given with an approval, name -> JSON Schema. It waits as an event does. Its value is
    `{approved, by, note, at, inputs}`. `on_timeout` and `on_reject` say how it ends without an approval.
    """

    by: tuple[str, ...] = ()
    message: str | None = None
    form: Mapping[str, Any] = {}
    limit_ms: int | None = None
    limit: str | None = None
    on_timeout: OnApprovalTimeout = "fail"
    on_reject: Literal["fail", "continue"] = "fail"


AnySig = (
    TaskSig[Any, Any]
    | ChainSig[Any, Any]
    | GroupSig[Any, Any]
    | ChordSig[Any, Any]
    | MapSig[Any, Any]
    | StepsSig[Any, Any]
    | SwitchSig[Any, Any]
    | LoopSig[Any, Any]
    | WorkflowSig[Any, Any]
    | SetSig[Any, Any]
    | FailSig[Any, Any]
    | WaitSig[Any, Any]
    | EventSig[Any, Any]
    | EmitSig[Any, Any]
    | ApprovalSig[Any, Any]
)
"""The closed union of kinds, for decoding and for exhaustive matches."""

if not TYPE_CHECKING:
    Child = AnySig
