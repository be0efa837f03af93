"""`matches`: regular expressions that run in time proportional to the text.

The syntax is the regular part of Python's `re`: literals, `.`, classes, `\\d \\w \\s`, groups, `|`, `* + ? {m,n}`, `^`,
`$`. Back references and look-around need backtracking and are refused, so no pattern takes exponential time.
"""

from __future__ import annotations

from functools import lru_cache

from stemflow.expr.automaton import Automaton, State, Test, close
from stemflow.expr.errors import LimitRefusal, Refusal
from stemflow.expr.limits import Frame

PATTERN_CHARACTERS = 256
TEXT_CHARACTERS = 10_000
STATES = 2_000
REPEATS = 1_000


def _word(char: str) -> bool:
    return char.isalnum() or char == "_"


CLASSES: dict[str, Test] = {"d": str.isdecimal, "w": _word, "s": str.isspace}
CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}


def _escape(char: str) -> Test | str:
    """What `\\char` stands for: a class or a single character."""
    if char.lower() in CLASSES:
        test = CLASSES[char.lower()]
        return test if char.islower() else lambda c: not test(c)
    if char in CONTROLS:
        return CONTROLS[char]
    if char.isascii() and char.isalnum():
        raise Refusal(f"'\\{char}' is not supported in a pattern", "use [...], \\d, \\w, \\s, ^ and $")
    return char


class _Parser:
    """Recursive descent over the pattern; each method returns (first state, states whose `after` is open)."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.states: list[State] = []

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise Refusal("the pattern ends too early", "close every '(' and '[' and complete every '\\'")
        self.at += 1
        return char

    def add(self, state: State) -> int:
        if len(self.states) >= STATES:
            raise LimitRefusal(f"the pattern needs more than {STATES:,} states", "use smaller repeats")
        self.states.append(state)
        return len(self.states) - 1

    def choice(self) -> tuple[int, list[int]]:
        start, ends = self.sequence()
        while self.peek() == "|":
            self.take()
            other, more = self.sequence()
            start = self.add(State([start, other]))
            ends = ends + more
        return start, ends

    def sequence(self) -> tuple[int, list[int]]:
        start = self.add(State([]))
        ends = [start]
        while self.peek() and self.peek() not in "|)":
            first, more = self.repeated()
            close(self.states, ends, first)
            ends = more
        return start, ends

    def repeated(self) -> tuple[int, list[int]]:
        begin = self.at
        start, ends = self.atom()
        low, high = self.quantifier()
        if (low, high) == (1, 1):
            return start, ends
        if self.states[start].anchor:
            raise Refusal("an anchor in the pattern cannot be repeated", "put it before or after what is repeated")
        resume = self.at
        copies = [(start, ends)]
        for _ in range(max(low, high if high is not None else low + 1) - 1):
            self.at = begin
            copies.append(self.atom())
        self.at = resume
        return self.link(copies, low, high)

    def link(self, copies: list[tuple[int, list[int]]], low: int, high: int | None) -> tuple[int, list[int]]:
        """The copies of one atom in a row; those after the first `low` may be left out, the last may loop."""
        entry = self.add(State([]))
        ends = [entry]
        skips: list[int] = []
        for number, (start, more) in enumerate(copies[: high if high is not None else None]):
            if number >= low:
                fork = self.add(State([start]))
                close(self.states, ends, fork)
                skips.append(fork)
                ends = more
                if high is None:
                    close(self.states, more, fork)
                    return entry, skips
            else:
                close(self.states, ends, start)
                ends = more
        return entry, ends + skips

    def quantifier(self) -> tuple[int, int | None]:
        """(least, most) of the quantifier at this place, (1, 1) if there is none; `?` after it changes nothing."""
        bounds: tuple[int, int | None] = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self.peek(), (1, 1))
        if self.peek() and self.peek() in "*+?":
            self.take()
        elif self.peek() == "{":
            closing = self.pattern.find("}", self.at)
            low, comma, high = self.pattern[self.at + 1 : max(closing, 0)].partition(",")
            if not low.isdecimal() or not (high.isdecimal() or not high):
                raise Refusal("expected {m}, {m,} or {m,n} in the pattern", "write \\{ for the character")
            bounds = (int(low), int(high) if high else None if comma else int(low))
            self.at = closing + 1
        else:
            return bounds
        self.take_lazy_mark()
        if max(bounds[0], bounds[1] or 0) > REPEATS:
            raise LimitRefusal(f"a repeat in the pattern is above the limit of {REPEATS:,}")
        if bounds[1] is not None and bounds[1] < bounds[0]:
            raise Refusal("the repeat {m,n} in the pattern has m above n")
        return bounds

    def take_lazy_mark(self) -> None:
        if self.peek() == "?":
            self.take()
        if self.peek() and self.peek() in "*+?{":
            raise Refusal("a quantifier follows a quantifier in the pattern", "put the first into (...)")

    def atom(self) -> tuple[int, list[int]]:
        char = self.take()
        if char == "(":
            return self.group()
        if char in "*+?{":
            raise Refusal(f"nothing to repeat before '{char}' in the pattern", f"write \\{char} for the character")
        if char in "^$":
            place = self.add(State([], anchor=char))
            return place, [place]
        test: Test
        if char == "[":
            test = self.charset()
        elif char == ".":
            test = "\n".__ne__
        else:
            meant = _escape(self.take()) if char == "\\" else char
            test = meant.__eq__ if isinstance(meant, str) else meant
        place = self.add(State([], test=test))
        return place, [place]

    def group(self) -> tuple[int, list[int]]:
        if self.peek() == "?":
            self.take()
            if self.take() != ":":
                raise Refusal("only (...) and (?:...) are supported in a pattern", "use lower(text) for (?i)")
        start, ends = self.choice()
        if self.take() != ")":
            raise Refusal("a '(' in the pattern is not closed")
        return start, ends

    def charset(self) -> Test:
        inverted = self.peek() == "^"
        if inverted:
            self.take()
        tests: list[Test] = []
        first = True
        while first or self.peek() != "]":
            first = False
            low = self.member()
            if self.peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.take()
                tests.append(_span(low, self.member()))
            else:
                tests.append(low.__eq__ if isinstance(low, str) else low)
        self.take()
        return lambda char: any(test(char) for test in tests) is not inverted

    def member(self) -> Test | str:
        char = self.take()
        return _escape(self.take()) if char == "\\" else char


def _span(low: Test | str, high: Test | str) -> Test:
    if not (isinstance(low, str) and isinstance(high, str)) or low > high:
        raise Refusal("a range in [...] of the pattern is not from a lower to a higher character")
    return lambda char: low <= char <= high


@lru_cache(maxsize=64)
def _compile(pattern: str) -> Automaton:
    parser = _Parser(pattern)
    start, ends = parser.choice()
    if parser.peek():
        raise Refusal("a ')' in the pattern closes nothing", "write \\) for the character")
    close(parser.states, ends, parser.add(State([])))
    return Automaton(parser.states, start)


def matches(frame: Frame, text: str, pattern: str) -> bool:
    """True when `pattern` is found anywhere in `text`; each state visited costs a step."""
    if len(pattern) > PATTERN_CHARACTERS:
        raise LimitRefusal(f"a pattern of {len(pattern):,} characters is above the limit of {PATTERN_CHARACTERS}")
    if len(text) > TEXT_CHARACTERS:
        raise LimitRefusal(
            f"a text of {len(text):,} characters is above the limit of {TEXT_CHARACTERS:,} for matches()"
        )
    try:
        automaton = _compile(pattern)
    except RecursionError:
        raise LimitRefusal("the pattern is nested too deeply") from None
    return automaton.search(frame, text)
