"""The canvas: pure constructors of an immutable signature tree that nest without limit.

Typed through: `Signature[In, Out]` takes the value of the step before it and gives its own, so a wrong link is a
type error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, overload

from msgspec import structs

from stemflow.canvas.arguments import (
    completion_of,
    expect_condition,
    expect_members,
    expect_one_of,
    expect_policy,
    items_of,
    map_of,
)
from stemflow.errors import OptionError
from stemflow.model.completion import Completion
from stemflow.model.signature import (
    EVENT_KEPT_MS,
    FAIL_TYPE,
    MOST_ITERATIONS,
    ApprovalSig,
    ChainSig,
    ChordSig,
    EmitSig,
    EventSig,
    FailSig,
    GroupSig,
    LoopSig,
    MapSig,
    MemberPolicy,
    NoInput,
    OnApprovalTimeout,
    OnEventTimeout,
    Signature,
    SwitchSig,
    TaskSig,
    WaitSig,
    WorkflowSig,
    expect_signature,
)
from stemflow.model.step_names import DEFAULT_CASE, case_name, case_text, expect_event_type
from stemflow.model.subworkflow import with_workflow
from stemflow.model.workflow import Workflow
from stemflow.units import Duration, duration_of

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
E2 = TypeVar("E2")
CaseKey = TypeVar("CaseKey", bound=str | int | bool | None)
Sig = Signature
Step = Signature[Any, Any]


_SWITCH_NAMES = frozenset({"inputs", "vars", "prev", "results", "item", "index", "run"})
_LOOP_NAMES = _SWITCH_NAMES | {"carry"}
_EVENT_NAMES = _LOOP_NAMES | {"event"}


class Canvas:
    """Constructors of signatures: `task`, `chain`, `group`, `race`, `chord`, `map`, `starmap`, `chunks`, `switch`,
    `loop`, `fail`, `wait`, `event`, `emit`, `approval`."""

    @overload
    @staticmethod
    def task(name: str, /, *args: Any, decode: Callable[[Any], B], **kwargs: Any) -> TaskSig[Any, B]: ...
    @overload
    @staticmethod
    def task(name: str, /, *args: Any, **kwargs: Any) -> TaskSig[Any, Any]: ...
    @staticmethod
    def task(name: str, /, *args: Any, decode: Any = None, **kwargs: Any) -> TaskSig[Any, Any]:
        """A call of the task registered as `name`, for callers that do not import it.

        `decode`: the type that its result becomes where it is waited for, or a function of the JSON data. A parameter
        of the task that is called `decode` can be given by position.
        """
        return TaskSig(task=name, args=args, kwargs=kwargs, decode=decode)

    @staticmethod
    def wait(duration: Duration) -> Sig[Any, None]:
        """A durable pause of `duration` (or seconds) that holds no worker; in a chain its value is null.

        Raises UnitError.
        """
        return WaitSig(for_ms=duration_of("wait", duration))

    @overload
    @staticmethod
    def chain(s1: Sig[A, B], /) -> Sig[A, B]: ...
    @overload
    @staticmethod
    def chain(s1: Sig[A, B], s2: Sig[B, C], /) -> Sig[A, C]: ...
    @overload
    @staticmethod
    def chain(s1: Sig[A, B], s2: Sig[B, C], s3: Sig[C, D], /) -> Sig[A, D]: ...
    @overload
    @staticmethod
    def chain(s1: Sig[A, B], s2: Sig[B, C], s3: Sig[C, D], s4: Sig[D, E], /) -> Sig[A, E]: ...
    @overload
    @staticmethod
    def chain(s1: Sig[A, B], s2: Sig[B, C], s3: Sig[C, D], s4: Sig[D, E], s5: Sig[E, F], /) -> Sig[A, F]: ...
    @overload
    @staticmethod
    def chain(s1: Step, s2: Step, s3: Step, s4: Step, s5: Step, s6: Step, /, *more: Step) -> Sig[Any, Any]: ...
    @overload
    @staticmethod
    def chain(steps: Iterable[Step], /) -> Sig[Any, Any]: ...
    @staticmethod
    def chain(*steps: Any) -> Sig[Any, Any]:
        """Run steps in order, each with the result of the one before as its first argument.

        A step that fails ends the chain with its error.

        Args:
            steps: signatures, or tasks without arguments.

        Example:
            `Canvas.chain(load.s("a.csv"), clean.s(), store.s())`
        """
        return ChainSig(steps=expect_members("chain", steps))

    @overload
    @staticmethod
    def group(
        members: Iterable[Sig[A, B]], /, *, on_member_error: MemberPolicy = ..., quorum: int | None = ...,
        tolerate: int | str | None = ...,
    ) -> Sig[A, list[B]]: ...  # fmt: skip
    @overload
    @staticmethod
    def group(
        *members: Sig[A, B], on_member_error: MemberPolicy = ..., quorum: int | None = ...,
        tolerate: int | str | None = ...,
    ) -> Sig[A, list[B]]: ...  # fmt: skip
    @staticmethod
    def group(
        *members: Any, on_member_error: MemberPolicy = "fail_fast", quorum: int | None = None,
        tolerate: int | str | None = None,
    ) -> Sig[Any, Any]:  # fmt: skip
        """Run members in parallel; the value is the list of their results in the order of the members.

        Args:
            members: signatures; none gives `[]`.
            on_member_error: `fail_fast` starts no further member after a failure and fails; `ignore` runs all members
                and gives None for those that failed; `collect` gives their errors as values in the list.
            quorum: How many members must succeed. The others are cancelled then, and are null in the list. If that
                many can no longer succeed, the group fails with `QuorumMissed`.
            tolerate: How many members may fail: a number, or a share such as `"20%"`. They are null in the list.

        Raises:
            OptionError: An argument is none of these, or both `quorum` and `tolerate` are given.
        """
        found = expect_members("group", members)
        completion = completion_of("group", quorum, tolerate, len(found))
        return GroupSig(members=found, policy=expect_policy("group", on_member_error), completion=completion)

    @overload
    @staticmethod
    def race(members: Iterable[Sig[A, B]], /) -> Sig[A, B]: ...
    @overload
    @staticmethod
    def race(*members: Sig[A, B]) -> Sig[A, B]: ...
    @staticmethod
    def race(*members: Any) -> Sig[Any, Any]:
        """Run members in parallel; the first that succeeds gives the value, and the others are cancelled.

        If all fail, the race fails with `QuorumMissed`.

        Args:
            members: signatures, one by one or as one iterable.

        Example:
            `Canvas.race(fetch.s("eu"), fetch.s("us"))`
        """
        return GroupSig(members=expect_members("race", members), completion=Completion(quorum=1, race=True))

    @overload
    @staticmethod
    def chord(
        header: Sig[A, list[B]], body: Sig[list[B], C], *, on_member_error: MemberPolicy | None = ...
    ) -> Sig[A, C]: ...
    @overload
    @staticmethod
    def chord(
        header: Iterable[Sig[A, B]], body: Sig[list[B], C], *, on_member_error: MemberPolicy | None = ...
    ) -> Sig[A, C]: ...
    @staticmethod
    def chord(header: Any, body: Any, *, on_member_error: MemberPolicy | None = None) -> Sig[Any, Any]:
        """Run a header of members in parallel, then a body once with the ordered list of their results.

        Args:
            header: signatures, or a group or map.
            body: the signature that gets the list as its first argument.
            on_member_error: as in `group`; None keeps the policy of the header.

        Example:
            `Canvas.chord([add.s(1, 2), add.s(3, 4)], total.s())`
        """
        expect_signature(body, "chord: body")
        if on_member_error is not None:
            expect_policy("chord", on_member_error)
        if isinstance(header, (GroupSig, MapSig)):
            header = structs.replace(header, policy=on_member_error or header.policy)
            if isinstance(header, MapSig) or header.has_policy or header.completion is not None:
                # Its name, limits and hooks are its own: it stays a step, whose value is given to the body.
                return ChainSig(steps=(header, body))
            return ChordSig(header=header.members, body=body, policy=header.policy)
        return ChordSig(header=expect_members("chord", (header,)), body=body, policy=on_member_error or "fail_fast")

    @staticmethod
    def map(
        task: Sig[A, B],
        items: Iterable[A],
        *,
        concurrency: int | None = None,
        on_member_error: MemberPolicy = "fail_fast",
        quorum: int | None = None,
        tolerate: int | str | None = None,
    ) -> Sig[NoInput, list[B]]:
        """Run a task once for each item, in parallel; the value is the list of results in the order of the items.

        Args:
            task: the signature that gets the item as its first argument.
            items: the items, which must be serializable.
            concurrency: the number of members that are open at once (default 1,000).
            on_member_error: as in `group`.
            quorum: as in `group`.
            tolerate: as in `group`.

        Example:
            `Canvas.map(resize.s(), ["a.png", "b.png"], concurrency=10)`
        """
        completion = completion_of("map", quorum, tolerate, None)
        return map_of("map", task, items, "item", concurrency, on_member_error, completion)

    @staticmethod
    def starmap(
        task: Sig[Any, B], items: Iterable[Iterable[Any]], *, concurrency: int | None = None,
        on_member_error: MemberPolicy = "fail_fast", quorum: int | None = None, tolerate: int | str | None = None,
    ) -> Sig[NoInput, list[B]]:  # fmt: skip
        """Run a task once for each item, as `map`, with each item unpacked into its arguments.

        Args:
            task: the signature that gets the elements of the item as its first arguments.
            items: lists or tuples of arguments.
            concurrency: the number of members that are open at once (default 1,000).
            on_member_error: as in `group`.
            quorum: as in `group`.
            tolerate: as in `group`.

        Example:
            `Canvas.starmap(add.s(), [(1, 2), (3, 4)])`
        """
        completion = completion_of("starmap", quorum, tolerate, None)
        return map_of("starmap", task, items, "star", concurrency, on_member_error, completion)

    @staticmethod
    def chunks(
        task: Sig[Any, B], items: Iterable[Any], size: int, *, concurrency: int | None = None,
        on_member_error: MemberPolicy = "fail_fast", quorum: int | None = None, tolerate: int | str | None = None,
    ) -> Sig[NoInput, list[list[B]]]:  # fmt: skip
        """Run a task for each item, as `map`, with several items in one member, whose result is a list.

        Args:
            task: the signature that gets an item as its first argument; a tuple is unpacked into arguments.
            items: the items.
            size: the number of items of one member, at least 1.
            concurrency: the number of members that are open at once (default 1,000).
            on_member_error: as in `group`; a member is one chunk.
            quorum: as in `group`, in chunks.
            tolerate: as in `group`, in chunks.

        Example:
            `Canvas.chunks(index.s(), range(10_000), size=500)`
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"chunks: size: expected a whole number of at least 1, got {size!r}")
        everything = items_of("chunks", items)
        everything = tuple(everything) if isinstance(everything, tuple) else tuple(everything.numbers)
        pieces = [list(everything[i : i + size]) for i in range(0, len(everything), size)]
        completion = completion_of("chunks", quorum, tolerate, len(pieces))
        return map_of("chunks", task, pieces, "chunk", concurrency, on_member_error, completion)

    @staticmethod
    def switch(on: str, cases: Mapping[CaseKey, Sig[A, B]], default: Sig[A, B] | None = None) -> Sig[A, B]:
        """The one of `cases` whose key is the value of the expression `on`; else `default`.

        The value is that of the case taken. With neither, the switch is skipped, as by a `when` that is false.

        Args:
            on: An expression, such as `prev.kind` in a chain, where `prev` is the value of the step before.
            cases: Key -> signature. A key is compared as a text; for `true`, `null` and numbers, with their JSON.
            default: What runs if no key is the value.

        Raises:
            OptionError: `on` is no expression, there is no case, two keys are the same as texts, or one is `default`.

        Example:
            `Canvas.chain(find.s(7), Canvas.switch("prev.kind", {"card": charge.s(), "bank": transfer.s()}))`
        """
        expect_condition(on, "switch: on", _SWITCH_NAMES)
        for key, case in cases.items():
            expect_signature(case, f"switch: case {key!r}")
        if default is not None:
            expect_signature(default, "switch: default")
        keys = tuple(map(case_text, cases))
        if not keys:
            raise OptionError("switch: expected at least one case, got none")
        if len(set(keys)) < len(keys):
            raise OptionError(f"switch: expected different keys, got {', '.join(keys)}")
        if DEFAULT_CASE in keys:
            raise OptionError(f"switch: expected no case called {DEFAULT_CASE!r}; give it as `default=`")
        named = tuple(structs.replace(one, name=case_name(key)) for key, one in zip(keys, cases.values(), strict=True))
        return SwitchSig(on=on, keys=keys, cases=named, default=default)

    @staticmethod
    def loop(
        do: Sig[A, A],
        *,
        until: str | None = None,
        while_: str | None = None,
        max: int = 1_000,
        carry: Any = "${{ prev }}",
    ) -> Sig[A, A]:
        """`do` again and again, each time given its last result; the value is the last result.

        Args:
            do: What is repeated. It is given `carry` the first time.
            until: An expression that is evaluated after each iteration and ends the loop if it is true. `carry` is the
                last result, `index` the number of iterations that have ended.
            while_: An expression that is evaluated before each iteration and ends the loop if it is false.
            max: The largest number of iterations, 1 to 10,000. A loop that its condition does not end before fails
                with `LoopLimit`. Without a condition, the number of iterations.
            carry: JSON data, which may hold expressions; by default the value of the previous step.

        Raises:
            OptionError: Both conditions are given, one is no expression, or `max` is out of range.

        Example:
            `Canvas.loop(poll.s(), until="carry.ready", max=50)`
        """
        expect_signature(do, "loop: do")
        if until is not None and while_ is not None:
            raise OptionError("loop: expected until or while_, got both")
        if isinstance(max, bool) or not isinstance(max, int) or not 1 <= max <= MOST_ITERATIONS:
            raise OptionError(f"loop: max: expected a whole number from 1 to {MOST_ITERATIONS:,}, got {max!r}")
        on = until if until is not None else while_
        if on is not None:
            expect_condition(on, "loop: while_" if until is None else "loop: until", _LOOP_NAMES)
        return LoopSig(do=do, on=on, until=until is not None, limit=max, carry=carry)

    @staticmethod
    def workflow(workflow: Workflow, inputs: Mapping[str, Any] | None = None, *, wait: bool = True) -> Sig[Any, Any]:
        """Runs a workflow as a step. The value is that of the `outputs` of the workflow.

        Args:
            workflow: What `load_workflow` read.
            inputs: Its inputs, JSON data which may hold expressions, such as `${{ prev.id }}`.
            wait: False: start a run of its own, and go on. The value is then `{run_id}`.

        Raises:
            OptionError: `workflow` is no workflow; when it runs, `InvalidInputs` if the inputs do not fit.

        Example:
            `Canvas.chain(find.s(7), Canvas.workflow(load_workflow("refund.yaml"), {"order": "${{ prev.id }}"}))`
        """
        if not isinstance(workflow, Workflow):
            raise OptionError(f"workflow: expected what load_workflow gives, got {type(workflow).__name__}")
        call: WorkflowSig[Any, Any] = WorkflowSig(ref=workflow.name, given=dict(inputs or {}), wait=bool(wait))
        return with_workflow(call, workflow)

    @staticmethod
    def fail(message: str, *, type: str = FAIL_TYPE, data: Any = None) -> Sig[Any, Any]:
        """Fails without calling a task, for example as the default of a switch.

        Args:
            message: The message of the error; it may hold expressions, such as `no handler for ${{ prev.kind }}`.
            type: The name of the error's type.
            data: JSON data about the error, which may hold expressions, too.
        """
        return FailSig(message=message, error_type=type, data=data)

    @staticmethod
    def event(
        type: str, *, match: str | None = None, timeout: Duration | None = None, on_timeout: OnEventTimeout = "fail"
    ) -> Sig[Any, Any]:
        """Waits for an event, without holding a worker. The value is the event: `{id, type, data, time}`.

        An event that was sent before is kept for a day, unless its sender says otherwise, and is found.

        Args:
            type: The type of the event.
            match: An expression over `event` that must be true, such as `event.data.order == prev.id`.
            timeout: How long to wait (a duration, or seconds); without it, for as long as it takes.
            on_timeout: `fail`, `continue` with null, or `skip`.

        Raises OptionError, UnitError.
        """
        if match is not None:
            expect_condition(match, "event: match", _EVENT_NAMES)
        expect_one_of("event: on_timeout", on_timeout, ("fail", "continue", "skip"))
        limit_ms = None if timeout is None else duration_of("event: timeout", timeout)
        kind = expect_event_type(type, "event")
        return EventSig(event_type=kind, match=match, limit_ms=limit_ms, on_timeout=on_timeout)

    @staticmethod
    def emit(type: str, data: Any = None, *, id: str | None = None, keep: Duration | None = None) -> Sig[Any, Any]:
        """Sends an event in the commit in which the step succeeds. The value is the event: `{id, type, data, time}`.

        Args:
            type: The type of the event.
            data: JSON data, which may hold expressions such as `${{ prev.total }}`.
            id: The id of the event, which may hold expressions; by default that of the step. An event of the same type
                and id that is kept is not sent again.
            keep: How long the event is kept (a duration, or seconds); a day by default.

        Raises OptionError, UnitError.
        """
        keep_ms = EVENT_KEPT_MS if keep is None else duration_of("emit: keep", keep)
        return EmitSig(event_type=expect_event_type(type, "emit"), data=data, id=id, keep_ms=keep_ms)

    @staticmethod
    def approval(
        by: Iterable[str] = (),
        *,
        message: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        on_timeout: OnApprovalTimeout = "fail",
        on_reject: Literal["fail", "continue"] = "fail",
    ) -> Sig[Any, Any]:
        """Waits until a person approves or rejects, without holding a worker.

        The value is `{approved, by, note, at, inputs}`. Answered by `Stemflow.approve` and `reject`, or on the command
        line.

        Args:
            by: The names that may answer; anybody if there are none. Names are not authenticated.
            message: A text for the person, which may hold expressions.
            inputs: What is given with an approval: name -> JSON Schema. An input with a `default` may be left out.
            timeout: How long to wait (a duration, or seconds); without it, for as long as it takes.
            on_timeout: `fail`, `approve`, `reject` or `skip`.
            on_reject: A rejected step fails (`fail`), or succeeds with `approved: false` (`continue`).

        Raises OptionError, UnitError.
        """
        names = () if isinstance(by, str) else tuple(by)
        if isinstance(by, str) or not all(isinstance(one, str) and one for one in names):
            raise OptionError(f"approval: by: expected a list of names, got {by!r}")
        expect_one_of("approval: on_timeout", on_timeout, ("fail", "approve", "reject", "skip"))
        expect_one_of("approval: on_reject", on_reject, ("fail", "continue"))
        limit_ms = None if timeout is None else duration_of("approval: timeout", timeout)
        return ApprovalSig(
            by=names, message=message, form=inputs or {}, limit_ms=limit_ms, on_timeout=on_timeout, on_reject=on_reject
        )
