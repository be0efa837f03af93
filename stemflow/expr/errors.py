"""What an expression says when it cannot be read or evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stemflow.errors import StemflowError

ValuePath = tuple[str | int, ...]


class Span(NamedTuple):
    """Half-open range of characters in the text that the user wrote (0-based)."""

    column: int
    end: int


class ExpressionError(StemflowError):
    """An expression that cannot be compiled or evaluated; `column` and `end` are offsets in the scalar's text.

    `place` leads from the root of a template's tree to that scalar and is empty for a lone scalar.
    """

    def __init__(self, message: str, column: int, end: int, hint: str | None = None, place: ValuePath = ()) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.column = column
        self.end = end
        self.hint = hint
        self.place = place

    def said_of(self, tree: str) -> str:
        """The sentence after where it happened, as in `outputs.total[2]: no key`; `tree`: what the root is called."""
        steps = (f"[{one}]" if isinstance(one, int) else f".{one}" for one in self.place)
        return f"{tree}{''.join(steps)}: {self}"

    def within(self, place: ValuePath) -> ExpressionError:
        """The same error, said of the scalar at `place` of a larger tree."""
        moved = type(self)(self.message, self.column, self.end, self.hint, (*place, *self.place))
        return moved.with_traceback(self.__traceback__)


class ExpressionLimitError(ExpressionError):
    """A budget (source length, depth, steps, size) was passed; the message names the number."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A path that an expression reads, up to the first index that is not a constant.

    `optional` is true inside `get()` and `has()`; `place` leads to the scalar inside a template's tree.
    """

    path: tuple[str, ...]
    optional: bool
    column: int
    end: int
    place: ValuePath = ()


class Refusal(Exception):
    """Why an operation was refused, before the place in the source is known."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def at(self, span: Span) -> ExpressionError:
        """The public error at `span`."""
        return ExpressionError(self.message, span.column, span.end, self.hint)


class LimitRefusal(Refusal):
    """A budget was passed during evaluation."""

    def at(self, span: Span) -> ExpressionError:
        """The public error at `span`."""
        return ExpressionLimitError(self.message, span.column, span.end, self.hint)
