"""Expressions inside YAML values: `${{ ... }}` in texts, and trees that hold such texts.

Every text is read once, when the template is parsed; what an expression gives is never read again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from stemflow.expr.errors import ExpressionError, ExpressionLimitError, Reference, Refusal, Span, ValuePath
from stemflow.expr.expression import Expression, compile_at
from stemflow.expr.limits import RESULT_BYTES, STEPS
from stemflow.expr.operators import text_of

OPEN, CLOSE = "${{", "}}"
EXPRESSIONS = 1_000
"""Expressions in one text."""

_GROUPING = re.compile(r"[{}'\"]")

Filler = Callable[[Mapping[str, Any], int], Any]


class Template:
    """A JSON tree with expressions in it; call it with an environment to get the tree with their values.

    Parts without expressions are shared between the results, so a caller that changes a result copies it first.
    """

    __slots__ = ("_fill", "constant", "references")

    def __init__(self, fill: Filler, references: tuple[Reference, ...], constant: bool) -> None:
        self._fill = fill
        self.references = references
        self.constant = constant

    def __call__(self, env: Mapping[str, Any], steps: int = STEPS) -> Any:
        """The filled tree; raise ExpressionError with the `place` of the scalar that failed."""
        return self._fill(env, steps)


def parse_template(value: Any, names: Collection[str]) -> Template:
    """Compile every expression in the texts of the JSON tree `value`; raise ExpressionError for the first bad one."""
    parser = _Tree(frozenset(names))
    fill = parser.parse(value, ())
    if fill is None:
        return Template(lambda env, steps: value, (), True)
    return Template(fill, tuple(parser.references), False)


def parse_condition(text: str, names: Collection[str]) -> Expression:
    """Compile a text that is an expression as a whole: bare, or inside one `${{ }}`."""
    start = len(text) - len(text.lstrip())
    if not text.startswith(OPEN, start):
        return compile_at(text, frozenset(names), 0)
    end = closing(text, start)
    if text[end + len(CLOSE) :].strip():
        span = Span(end + len(CLOSE), len(text.rstrip()))
        hint = "put the whole expression inside one ${{ }}, or leave the marks out"
        raise ExpressionError("there is text after the expression", *span, hint)
    begin = start + len(OPEN)
    return compile_at(text[begin:end], frozenset(names), begin)


def closing(text: str, start: int) -> int:
    """The place of the `}}` that closes the `${{` at `start`: outside texts and braces of the expression."""
    end = text.find(CLOSE, start)
    if end >= 0 and not _GROUPING.search(text, start + len(OPEN), end):
        return end
    depth, quote, at = 0, "", start + len(OPEN)
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0 and text.startswith(CLOSE, at):
                return at
            depth -= 1
        at += 1
    inside = "a quote in it is not closed" if quote else "write '}}' after the expression"
    raise ExpressionError("'${{' is not closed", start, start + len(OPEN), inside)


class _Tree:
    """Compiles a tree; each part becomes a filler, or None when it is constant."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.references: list[Reference] = []

    def parse(self, value: Any, place: ValuePath) -> Filler | None:
        if isinstance(value, str):
            return self.scalar(value, place) if OPEN in value else None
        if isinstance(value, dict):
            return self.object(value, place)
        if isinstance(value, list):
            parts = [self.parse(part, (*place, number)) for number, part in enumerate(value)]
            if not any(parts):
                return None
            fillers = [part or _same(was) for part, was in zip(parts, value, strict=True)]
            return lambda env, steps: [fill(env, steps) for fill in fillers]
        return None

    def object(self, value: dict[str, Any], place: ValuePath) -> Filler | None:
        for key in value:
            if OPEN in key:
                start = key.index(OPEN)
                message, hint = (
                    "a key cannot hold an expression",
                    "write the object as one: ${{ {key: value} }}",
                )
                raise ExpressionError(message, start, len(key), hint, (*place, key))
        parts = {key: self.parse(part, (*place, key)) for key, part in value.items()}
        if not any(parts.values()):
            return None
        fillers = {key: part or _same(value[key]) for key, part in parts.items()}
        return lambda env, steps: {key: fill(env, steps) for key, fill in fillers.items()}

    def scalar(self, text: str, place: ValuePath) -> Filler:
        try:
            pieces = _pieces(text, self.names)
        except ExpressionError as error:
            raise error.within(place) from None
        for piece in pieces:
            if not isinstance(piece, str):
                self.references += [
                    Reference(found.path, found.optional, found.column, found.end, place)
                    for found in piece[0].references
                ]
        return _located(_scalar(pieces), place) if place else _scalar(pieces)


_Piece = str | tuple[Expression, Span]


def _pieces(text: str, names: frozenset[str]) -> list[_Piece]:
    """The literal and the computed parts of a text; one computed part alone if it fills the text."""
    pieces: list[_Piece] = []
    done = 0
    while (start := text.find(OPEN, done)) >= 0:
        if len(pieces) >= 2 * EXPRESSIONS:
            message = f"the text holds more than the {EXPRESSIONS:,} expressions allowed"
            raise ExpressionLimitError(message, start, start + len(OPEN), "write join([...]) in one expression")
        end = closing(text, start)
        begin = start + len(OPEN)
        if start > done:
            pieces.append(text[done:start])
        done = end + len(CLOSE)
        pieces.append((compile_at(text[begin:end], names, begin), Span(start, done)))
    if done < len(text):
        pieces.append(text[done:])
    computed = [piece for piece in pieces if not isinstance(piece, str)]
    if len(computed) == 1 and not any(piece.strip() for piece in pieces if isinstance(piece, str)):
        # A block scalar ends with a line feed: white space around one expression does not make it a text.
        return [computed[0]]
    return pieces


def _scalar(pieces: list[_Piece]) -> Filler:
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        return pieces[0][0]
    return lambda env, steps: _joined(pieces, env, steps)


def _joined(pieces: list[_Piece], env: Mapping[str, Any], steps: int) -> str:
    texts: list[str] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
        else:
            expression, span = piece
            value = expression(env, steps)
            try:
                texts.append(text_of(value, whole=True))
            except Refusal as refusal:
                raise refusal.at(span) from None
            size += len(texts[-1])
            if size > RESULT_BYTES:
                message = f"the text takes more than the {RESULT_BYTES:,} characters allowed"
                raise ExpressionLimitError(message, *span)
    return "".join(texts)


def _located(fill: Filler, place: ValuePath) -> Filler:
    def located(env: Mapping[str, Any], steps: int) -> Any:
        try:
            return fill(env, steps)
        except ExpressionError as error:
            raise error.within(place) from None

    return located


def _same(value: Any) -> Filler:
    return lambda env, steps: value
