"""The interface of a kind of composite. Each kind is one stateless object; its methods are pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final, Literal, NamedTuple, assert_never

from stemflow.core.shape import Shape
from stemflow.model.effects import GateName
from stemflow.model.plan import AnyPlan, ScopeKind, ScopePlan
from stemflow.model.records import CANCELLED, FAILED, SUCCEEDED, Cause, ErrorInfo, State, Tally

Feed = Literal["before", "results", "item", "carry"]
"""What becomes the first argument of a member: the value of the previous member, the values of a chord's header, an
item of a map, or what a loop carries."""

Gives = Literal["nothing", "last", "all", "taken"]
"""What the value of a composite is made of: null, the value of its last member, the list of all members' values, or the
value of the one member that was opened."""


class View(NamedTuple):
    """What a kind sees of a scope whose members have begun to open.

    `failed`: a member failed, and the failure counts. `joined`: members joined while the scope ran.
    """

    shape: Shape
    node: int
    tally: Tally
    failed: bool
    joined: bool
    bound: int | None = None
    """The window of a map or the limit of a loop, where an expression gave it."""

    @property
    def plan(self) -> ScopePlan:
        plan = self.shape.nodes[self.node]
        assert isinstance(plan, ScopePlan)
        return plan


class Opening(NamedTuple):
    """How a scope begins: its number of members, those that open now, and the bits of those that never run."""

    size: int
    first: Iterable[int]
    skipped: int = 0
    result: bytes | None = None
    """The encoded value that the scope keeps while no member gives one."""
    bound: int | None = None


class Moves(NamedTuple):
    """What follows from the end of a member: members to open, and (bits, how) of members that end without running.

    `how` is `skipped` (by condition) or `upstream`, as in a tally.
    """

    opened: Iterable[int] = ()
    ended: tuple[tuple[int, str], ...] = ()
    size: int | None = None
    """The new number of members, if it changes."""
    error: ErrorInfo | None = None
    """The scope fails with this error."""


NOTHING: Final = Moves()


class Verdict(NamedTuple):
    """`stay`: wait for more members; `stop`: stop the other members, then close; `close`: all members have ended."""

    move: Literal["stay", "stop", "close"]
    state: State = SUCCEEDED
    cause: Cause | None = None
    kill: bool = False
    """Cancel the handlers of members that run, since nothing depends on them any more."""


STAY: Final = Verdict("stay")


class KindRules:
    """The rules of one kind. The defaults are those of members that run in parallel and have no value."""

    name: ClassVar[ScopeKind]
    wide: ClassVar[bool] = False
    """There may be very many, similar members; they are displayed as counts."""
    has_body: ClassVar[bool] = False
    """Its last member runs after all others and gets their values."""
    repeats: ClassVar[bool] = False
    """All members are copies of one template."""
    gives: ClassVar[Gives] = "nothing"
    evaluates: ClassVar[Literal["outputs", "tree", "error"]] = "outputs"
    """What `ScopePlan.value` is: outputs over its members, a tree over what is around it, or its error."""
    carries: ClassVar[bool] = False
    """Its members run one after the other, each given the value of the one before, the first what it began with."""
    isolates: ClassVar[bool] = False
    """Expressions in its members see its own inputs and variables, and no name from around it."""
    names_steps: ClassVar[bool] = False
    """Expressions in its members, and below, read them as `steps.NAME`."""

    # -- members

    def size(self, plan: ScopePlan) -> int:
        """Members known from the plan alone."""
        return len(plan.members)

    def segment(self, plan: ScopePlan, index: int) -> str:
        """The last part of the path of member `index`."""
        if plan.names is not None and index < len(plan.names):
            return plan.names[index]
        return f"[{index}]"

    def place(self, plan: ScopePlan, index: int) -> int:
        """The plan node of member `index`, which did not join while the scope ran."""
        return plan.members[index]

    # -- life cycle of a scope

    def gate(self, plan: ScopePlan) -> GateName | None:
        """The expression that must be evaluated before it can open its members."""
        return None

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        """How the scope begins; `answer` is the value of its gate."""
        raise NotImplementedError

    def asks(self, view: View, index: int, how: str) -> str | None:
        """The gate that must be evaluated before it is known what follows after member `index`."""
        return None

    def after(self, view: View, index: int, how: str, answer: Any = None) -> Moves:
        """What follows after member `index` has ended with outcome `how`, which the tally already contains.

        `answer` is the value of the gate that `asks` named.
        """
        return NOTHING

    def tolerates(self, plan: ScopePlan, member: AnyPlan, index: int) -> bool:
        """Whether the failure of this member does not count as a failure of the scope."""
        return member.on_error != "fail"

    def counts(self, plan: ScopePlan, tally: Tally, member: AnyPlan, index: int) -> bool:
        """Whether the failure of this member, which the tally contains, makes the scope fail."""
        return not self.tolerates(plan, member, index)

    def decided(self, plan: ScopePlan, tally: Tally) -> Verdict | None:
        """The verdict of a scope that need not wait for all its members, once it is known."""
        return None

    def missed(self, plan: ScopePlan, tally: Tally) -> ErrorInfo:
        """The error of a scope that fails although no failure of a member counts."""
        raise NotImplementedError

    def gives_up(self, plan: ScopePlan, failed: bool) -> bool:
        """Whether a failure that counts stops the other members at once."""
        return failed and plan.policy == "fail_fast"

    def settle(self, plan: ScopePlan, tally: Tally, failed: bool) -> Verdict:
        """What the scope does next."""
        decided = self.decided(plan, tally)
        if decided is not None:
            return decided
        if not tally.complete:
            return Verdict("stop", FAILED) if self.gives_up(plan, failed) else STAY
        return Verdict("close", *self.natural(plan, tally, failed))

    def natural(self, plan: ScopePlan, tally: Tally, failed: bool) -> tuple[State, Cause | None]:
        """How it ends once every member has ended, unless it was stopped in some other state."""
        if failed:
            return FAILED, None
        if tally.cancelled:
            return CANCELLED, None
        return self.ends(plan, tally)

    def ends(self, plan: ScopePlan, tally: Tally) -> tuple[State, Cause | None]:
        """How the scope ends if no failure counts and no member was cancelled: SUCCEEDED or SKIPPED."""
        return SUCCEEDED, None

    # -- at a stop

    def spared(self, shape: Shape, node: int) -> int:
        """The members (one bit each) that a stop of the scope does not reach. It waits for them."""
        return 0

    def released(self, view: View) -> Iterable[int]:
        """The spared members of a stopped scope that have not opened and wait for nothing any more."""
        return ()

    # -- order

    def waits(self, shape: Shape, node: int, size: int) -> Iterable[tuple[int, int]]:
        """(earlier, later) member indices: the later one never opens before the earlier one has ended.

        `size`: its members now, those that joined while it ran among them.
        """
        return ()

    def window(self, plan: ScopePlan) -> int | None:
        """How many members may be open at a time; None: as many as do not wait for others."""
        return None

    def redone(self, shape: Shape, node: int, index: int) -> set[int]:
        """The members that a rerun from member `index` runs again."""
        return {index}

    # -- values

    def feed(self, plan: ScopePlan, index: int) -> Feed | None:
        """What becomes the first argument of member `index`; None: that of its scope."""
        return None

    def value_from(self, plan: ScopePlan, tally: Tally) -> range | int | None:
        """The members whose values make up the scope's value: a list of several, a single one as it is, or none
        (null)."""
        match self.gives:
            case "nothing":
                return None
            case "last":
                return self.last(plan) if plan.members else None
            case "all":
                return range(tally.size)
            case "taken":
                return self.taken(tally)
            case other:
                assert_never(other)

    def taken(self, tally: Tally) -> int | None:
        """The first member that was opened."""
        return (tally.opened & -tally.opened).bit_length() - 1 if tally.opened else None

    def names(self, plan: ScopePlan) -> tuple[str, ...]:
        """The names that it adds to the expressions in its members."""
        return ()

    def last(self, plan: ScopePlan) -> int:
        """The member after whose end the value exists, as far as the plan alone determines it."""
        return 0

    def may_join(self, plan: ScopePlan, index: int) -> bool:
        """Whether member `index` may add members next to itself while it runs."""
        return False
