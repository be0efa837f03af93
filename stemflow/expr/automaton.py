"""Matching in time proportional to the text: a nondeterministic automaton that is made deterministic as it runs.

A row is the set of states that the automaton may be in; its transitions are computed when they are first needed, as RE2
does. Sources: K. Thompson, Regular Expression Search Algorithm, CACM 11(6), 1968; R. Cox, Regular Expression Matching
in the Wild, 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stemflow.expr.limits import Frame

ROW_ENTRIES = 1_000
ROW_STATES = 5_000
"""Transitions, and states in their rows, that one pattern keeps; beyond that they are computed again."""

Test = Callable[[str], bool]


@dataclass(slots=True)
class State:
    """One instruction: a test of a character, an anchor, a fork (`after` many) or, with no `after`, the end."""

    after: list[int]
    test: Test | None = None
    anchor: str = ""


class Row:
    """A state of the deterministic automaton, with the transitions that are known so far, by character.

    `size` counts the states of the pattern in it, `done` says whether its end is among them. `inside` leads to rows
    before the end of the text, `final` to rows at its end, where `$` matches.
    """

    __slots__ = ("done", "final", "inside", "size", "tests")

    def __init__(self, tests: list[State], size: int, done: bool) -> None:
        self.tests = tests
        self.size = size
        self.done = done
        self.inside: dict[str, Row] = {}
        self.final: dict[str, Row] = {}


class Automaton:
    """The automaton of one pattern. `states[-1]` is its end."""

    def __init__(self, states: list[State], start: int) -> None:
        self.states = states
        self.start = start
        self._first = self._row((), True, False)
        self._rows: dict[frozenset[int], Row] = {}
        self._kept = self._entries = 0

    def search(self, frame: Frame, text: str) -> bool:
        """True when the pattern is found anywhere in `text`. A character costs a step for each state of its row."""
        # `$` also matches before a line feed that ends the text.
        ends = len(text) - 1 if text.endswith("\n") else len(text)
        row = self._first if ends else self._row((), True, True)
        cost = 0
        for at, char in enumerate(text, 1):
            if row.done:
                break
            cost += row.size
            following = (row.inside if at < ends else row.final).get(char)
            if following is None:
                if cost > frame.left:
                    break
                following = self._step(row, char, at >= ends)
            row = following
        frame.charge(cost)
        return row.done

    def _step(self, row: Row, char: str, last: bool) -> Row:
        seeds = frozenset(place for state in row.tests if state.test and state.test(char) for place in state.after)
        following = None if last else self._rows.get(seeds)
        if following is None:
            following = self._row(seeds, False, last)
            self._kept += following.size
            if not last:
                self._rows[seeds] = following
        self._entries += 1
        if self._entries > ROW_ENTRIES or self._kept > ROW_STATES:
            self._forget()
        (row.final if last else row.inside)[char] = following
        return following

    def _forget(self) -> None:
        for row in (self._first, *self._rows.values()):
            row.inside.clear()
            row.final.clear()
        self._rows.clear()
        self._kept = self._entries = 0

    def _row(self, seeds: Iterable[int], first: bool, last: bool) -> Row:
        """The states reached from `seeds`, or from the start, without reading a character."""
        seen = {*seeds, self.start}
        pending = list(seen)
        tests: list[State] = []
        while pending:
            state = self.states[pending.pop()]
            if state.test is not None:
                tests.append(state)
                continue
            if (state.anchor == "^" and not first) or (state.anchor == "$" and not last):
                continue
            fresh = [place for place in state.after if place not in seen]
            seen.update(fresh)
            pending.extend(fresh)
        return Row(tests, len(seen), len(self.states) - 1 in seen)


def close(states: list[State], open_ends: Iterable[int], target: int) -> None:
    """Let each of the open ends lead to `target`."""
    for end in open_ends:
        states[end].after.append(target)
