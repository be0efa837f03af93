"""The layout of a workflow file: indentation and spaces, as `stemflow fmt` writes them.

Only whitespace between tokens changes. Comments, quotes, line breaks, anchors and the order of keys stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import CSafeLoader, tokens

from stemflow.dsl.findings import Findings
from stemflow.dsl.source import read
from stemflow.errors import StemflowError

INDENT = 2
_OPENS = (tokens.FlowMappingStartToken, tokens.FlowSequenceStartToken)
_CLOSES = (tokens.FlowMappingEndToken, tokens.FlowSequenceEndToken)


_OTHER_BREAK = re.compile("[\r\x85\u2028\u2029]")
"""What ends a line in YAML, too."""


class CannotFormat(StemflowError):
    """The layout of a file is left as it is; the message says why."""


@dataclass(slots=True)
class _Piece:
    """The part of a token on one line. `first`: the token begins here."""

    start: int
    end: int
    token: Any
    first: bool


@dataclass(slots=True)
class _Line:
    """One line: its pieces, and the column at which it is to begin; None: it moves with its neighbours."""

    text: str
    pieces: list[_Piece] = field(default_factory=list)
    indent: int | None = None
    shift_of: int | None = None
    """The line with which this one moves: that on which its token or flow collection begins."""
    least: int = 0
    literal: bool = False
    """Content of a block scalar: what follows the indentation is part of the value."""

    @property
    def column(self) -> int:
        """The column of the first character."""
        return len(self.text) - len(self.text.lstrip(" "))

    @property
    def is_blank(self) -> bool:
        return not self.text.strip() and not self.literal


@dataclass(slots=True)
class _Block:
    """An open block collection, with the column that it gets. `implied`: a list at the column of its own key."""

    is_list: bool
    column: int
    implied: bool = False


def formatted(text: str) -> str:
    """The text in the standard layout. Raises CannotFormat for a file that cannot be read."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    odd = _OTHER_BREAK.search(text)
    if odd is not None:
        raise CannotFormat(f"expected lines that end with a line feed, got one that ends with U+{ord(odd[0]):04X}")
    before = read(text, Findings(""))
    if before is None:
        raise CannotFormat("expected a file that can be read; `stemflow validate` says what is wrong")
    result = _Layout(text).written()
    after = read(result, Findings(""))
    if after is None or not _same(before.value, after.value):
        raise CannotFormat("expected a layout that can be changed without a change of the values; it stays as it is")
    return result


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal, with keys in the same order."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


class _Layout:
    """Reads the tokens of a text, gives each line a column, and writes the lines."""

    def __init__(self, text: str) -> None:
        self.lines = [_Line(one) for one in text.rstrip("\n").split("\n")]
        self.blocks: list[_Block] = []
        self.flow = 0
        self.flow_line = 0
        self.key = False
        """The next token begins a key."""
        self.last_text = 0
        try:
            for token in yaml.scan(text, Loader=CSafeLoader):
                self.add(token)
        except yaml.YAMLError as error:
            raise CannotFormat(f"expected YAML, got {getattr(error, 'problem', error)}") from None

    # -- tokens

    def add(self, token: Any) -> None:
        match token:
            case tokens.BlockMappingStartToken() | tokens.BlockSequenceStartToken():
                is_list = isinstance(token, tokens.BlockSequenceStartToken)
                self.blocks.append(_Block(is_list, self.inner_column()))
            case tokens.BlockEndToken():
                self.leave_implied()
                if self.blocks:
                    self.blocks.pop()
            case tokens.KeyToken():
                if token.end_mark.index > token.start_mark.index:
                    raise CannotFormat("expected keys without `?`")
                if not self.flow:
                    self.leave_implied()
                    self.key = True
            case tokens.DirectiveToken():
                raise CannotFormat("expected no directives")
            case tokens.BlockEntryToken():
                if not self.blocks or not self.blocks[-1].is_list:
                    self.blocks.append(_Block(True, self.inner_column(), implied=True))
                self.place(token, self.blocks[-1].column)
            case _ if token.end_mark.index > token.start_mark.index:
                self.add_real(token)

    def add_real(self, token: Any) -> None:
        if isinstance(token, _CLOSES):
            self.flow -= 1
        line = token.start_mark.line
        if self.key and self.blocks:
            self.place(token, self.blocks[-1].column)
        elif self.flow or isinstance(token, _CLOSES):
            self.place(token, None, self.flow_line if line > self.flow_line else None)
        else:
            self.place(token, self.inner_column() if self.blocks else 0)
        self.key = False
        if isinstance(token, _OPENS):
            if not self.flow:
                self.flow_line = line
            self.flow += 1

    def inner_column(self) -> int:
        """The column of what is inside the innermost open collection."""
        return self.blocks[-1].column + INDENT if self.blocks else 0

    def leave_implied(self) -> None:
        if self.blocks and self.blocks[-1].implied:
            self.blocks.pop()

    def place(self, token: Any, column: int | None, moves_with: int | None = None) -> None:
        """Note the parts of a token on its lines; `column`: where the line begins if the token is its first."""
        start, end = token.start_mark, token.end_mark
        line = self.lines[start.line]
        if not line.pieces:
            line.indent, line.shift_of, line.least = column, moves_with, self.inner_column()
        if isinstance(token, tokens.ScalarToken) and token.style in ("|", ">"):
            self.place_block_scalar(token)
            return
        last = end.line if end.column or end.line == start.line else end.line - 1
        stop = end.column if last == start.line else len(line.text)
        line.pieces.append(_Piece(start.column, stop, token, True))
        for number in range(start.line + 1, last + 1):
            inner = self.lines[number]
            inner.shift_of, inner.least = start.line, self.inner_column()
            stop = end.column if number == end.line else len(inner.text)
            inner.pieces.append(_Piece(inner.column, stop, token, False))

    def place_block_scalar(self, token: Any) -> None:
        """The header is text of its line; the content moves as a whole."""
        first = token.start_mark.line
        header = self.lines[first]
        stop = len(header.text.split(" #")[0].rstrip()) if " #" in header.text[token.start_mark.column :] else None
        header.pieces.append(_Piece(token.start_mark.column, stop or len(header.text.rstrip()), token, True))
        end = token.end_mark.line if token.end_mark.line > first else first + 1
        inside = list(range(first + 1, min(end, len(self.lines))))
        keeps = "+" in header.text[token.start_mark.column :]
        while inside and not self.lines[inside[-1]].text.strip() and not keeps:
            inside.pop()
        given = header.text[token.start_mark.column + 1 :].lstrip("-+")
        filled = [number for number in inside if self.lines[number].text.strip()]
        for number in inside:
            line = self.lines[number]
            line.literal = True
            line.shift_of, line.least = first, self.inner_column()
        if filled and not given[:1].isdigit():
            # The indentation of the first line that is not blank is that of the scalar.
            own = self.lines[filled[0]].column
            for number in inside:
                self.lines[number].indent = self.lines[number].column - own + self.inner_column()

    # -- writing

    def written(self) -> str:
        columns = self.columns()
        out: list[str] = []
        for number, line in enumerate(self.lines):
            if line.literal:
                text = line.text.lstrip(" ")
                out.append(" " * max(columns[number], 0) + text if text else "")
            elif line.is_blank:
                if out and out[-1] and number + 1 < len(self.lines):
                    out.append("")
            else:
                out.append(" " * columns[number] + self.content(line))
        while out and not out[-1] and not self.lines[-1].literal:
            out.pop()
        return "\n".join(out) + "\n"

    def columns(self) -> list[int]:
        """The column at which each line is to begin."""
        found: list[int] = []
        for line in self.lines:
            column = line.column
            if line.indent is not None:
                column = line.indent
            elif line.shift_of is not None:
                column = line.column + found[line.shift_of] - self.lines[line.shift_of].column
                column = max(column, line.least) if not line.literal else column
            found.append(column)
        following: int | None = None
        for number in range(len(self.lines) - 1, -1, -1):
            line = self.lines[number]
            if line.pieces and line.indent is not None and not line.literal:
                following = number
            elif not line.pieces and not line.literal and not line.is_blank:
                found[number] = self.comment_column(number, following, found)
        return found

    def comment_column(self, number: int, following: int | None, found: list[int]) -> int:
        """A comment begins where the line at its column begins that it belongs to: the next, else one above."""
        column = self.lines[number].column
        if following is not None and self.lines[following].column == column:
            return found[following]
        for above in range(number - 1, -1, -1):
            line = self.lines[above]
            if line.pieces and line.indent is not None and not line.literal and line.column <= column:
                return found[above] + (column - line.column)
        return found[following] if following is not None and column else 0

    def content(self, line: _Line) -> str:
        """The tokens of a line with standard gaps, and its comment."""
        if not line.pieces:
            return line.text.strip()
        out, end = "", line.pieces[0].start
        for before, piece in zip([None, *line.pieces], line.pieces, strict=False):
            if before is not None:
                out += _gap(before.token, piece.token, line.text[end : piece.start])
            out += line.text[piece.start : piece.end]
            end = piece.end
        rest = line.text[end:].strip()
        if rest and not rest.startswith("#"):
            return out + line.text[end:]
        return out.rstrip() + (f"  {rest}" if rest else "")


def _gap(before: Any, after: Any, given: str) -> str:
    """The space between two tokens on one line."""
    if isinstance(before, _OPENS) or isinstance(after, (*_CLOSES, tokens.FlowEntryToken)):
        return ""
    if isinstance(after, tokens.ValueToken):
        return given[:1] if isinstance(before, tokens.AliasToken) else ""
    return " "
