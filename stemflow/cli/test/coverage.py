"""Branch coverage of a workflow by its test cases: steps, cases of switches, both sides of conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stemflow.cli.test.expectations import started
from stemflow.cli.test.rehearse import Outcome
from stemflow.dsl.cases import static_path
from stemflow.model.records import SUCCEEDED, child_path, parent_path
from stemflow.model.signature import LoopSig, SwitchSig
from stemflow.model.tree import members_of, walk_all
from stemflow.model.workflow import Workflow


class Branch(NamedTuple):
    """Something that a test can make happen. `what` says so; `line` is that of the step."""

    kind: str
    step: str
    side: str
    what: str
    line: int


class Coverage(NamedTuple):
    """The branches of a file, and those that some case took."""

    branches: tuple[Branch, ...]
    taken: frozenset[Branch]

    @property
    def missed(self) -> list[Branch]:
        """The branches that no case took, in the order of the file."""
        return [one for one in self.branches if one not in self.taken]

    @property
    def percent(self) -> float:
        """The share of branches that were taken; 100 where there is none."""
        return 100.0 * len(self.taken) / len(self.branches) if self.branches else 100.0

    def share(self, kind: str) -> tuple[int, int]:
        """(taken, all) of one kind."""
        of = [one for one in self.branches if one.kind == kind]
        return sum(one in self.taken for one in of), len(of)


KINDS = {"step": "steps", "condition": "sides of conditions", "case": "cases"}


def coverage(workflow: Workflow, outcomes: Iterable[Outcome]) -> Coverage:
    """Which branches of the workflow the runs took."""
    branches = tuple(_branches(workflow))
    paths = {path for path, _ in walk_all(workflow.body)}
    seen = {key for outcome in outcomes if outcome.broken is None for key in _seen(workflow, outcome, paths)}
    return Coverage(branches, frozenset(one for one in branches if (one.kind, one.step, one.side) in seen))


def _branches(workflow: Workflow) -> Iterator[Branch]:
    cases: set[str] = set()
    for path, sig in walk_all(workflow.body):
        line = sig.at[0] if sig.at is not None else 0
        if path and path not in cases:
            yield Branch("step", path, "", f"{path} never ran", line)
        if sig.when is not None:
            for side in ("true", "false"):
                yield Branch("condition", path, f"when {side}", f"{path}: `when` was never {side}", line)
        if isinstance(sig, LoopSig) and sig.on is not None:
            key = "until" if sig.until else "while"
            for side in ("true", "false"):
                yield Branch("condition", path, f"{key} {side}", f"{path}: `{key}` was never {side}", line)
        if isinstance(sig, SwitchSig):
            for segment, case in members_of(sig):
                at = case.at[0] if case.at is not None else line
                cases.add(child_path(path, segment))
                yield Branch("case", child_path(path, segment), "", f"{path}: the case {segment} was never taken", at)


def _seen(workflow: Workflow, outcome: Outcome, paths: set[str]) -> Iterator[tuple[str, str, str]]:
    sigs = dict(walk_all(workflow.body))
    for row in outcome.rows:
        path = static_path(row.path, paths)
        sig = sigs.get(path)
        if sig is None:
            continue
        ran = started(outcome, row.path)
        if ran:
            yield "step", path, ""
            yield "condition", path, "when true"
            if path and isinstance(sigs.get(parent_path(path)), SwitchSig):
                yield "case", path, ""
        elif sig.when is not None and row.state == "skipped" and row.cause == "condition":
            yield "condition", path, "when false"
        if isinstance(sig, LoopSig):
            key, again, end = ("until", "false", "true") if sig.until else ("while", "true", "false")
            if sum(parent_path(made) == row.path for made in outcome.created) > sig.until:
                yield "condition", path, f"{key} {again}"
            if row.state == SUCCEEDED:
                yield "condition", path, f"{key} {end}"
