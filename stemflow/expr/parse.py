"""From source text to a checked `ast` tree, and from its nodes to offsets in what the user wrote."""

from __future__ import annotations

import ast
import keyword
import re
import warnings

from stemflow.expr.errors import ExpressionError, ExpressionLimitError, Span
from stemflow.expr.limits import SOURCE_BYTES, SOURCE_DEPTH

# What Python may warn of: an escape that it does not know, as in the pattern '\d+', and a number before a word.
_WARNED = re.compile(r"\\|\d[A-Za-z_]")

_STRING = r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\""
_FOREIGN = re.compile(
    rf"{_STRING}|(&&|\|\||===|!==|!(?!=)|\?\.|\?\?|\?|\$\{{\{{|=>|(?<![=!<>:])=(?!=))|\.[ ]*([A-Za-z_]\w*)",
    re.DOTALL,
)
_ADVICE = {
    "&&": "write 'and'",
    "||": "write 'or'",
    "!": "write 'not'",
    "===": "write '=='",
    "!==": "write '!='",
    "?": "write 'yes if condition else no'",
    "??": "write get(path, default)",
    "?.": "write get(path, default)",
    "=>": "write [... for x in list]",
    "=": "write '==' to compare",
    "${{": "write the bare expression: this place is an expression already",
}


class Source:
    """The text of one expression; `offset` is where it begins in the scalar that holds it."""

    def __init__(self, text: str, offset: int = 0) -> None:
        self.text = text
        self.offset = offset
        self._plain = text.isascii()
        # ast counts bytes within lines; one bracket precedes the first line.
        self._starts = [0]
        for line in text.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def span(self, node: ast.expr | ast.keyword | ast.comprehension) -> Span:
        """The place of `node` in the scalar."""
        if isinstance(node, ast.comprehension):
            return self.span(node.target)
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return Span(self._place(node.lineno, node.col_offset), self._place(end_line, end_column))

    def whole(self) -> Span:
        """All of the expression without the white space around it."""
        lead = len(self.text) - len(self.text.lstrip())
        return Span(self.offset + lead, self.offset + max(len(self.text.rstrip()), lead))

    def _place(self, line: int, column: int) -> int:
        if line == 1:
            column -= 1
        if self._plain:
            return self.offset + self._starts[line - 1] + column
        start, stop = self._starts[line - 1 : line + 1]
        before = self.text[start:stop].encode()[:column]
        return self.offset + start + len(before.decode(errors="ignore"))

    def parse(self) -> ast.expr:
        """The tree of the expression; raise ExpressionError for what is not one Python expression."""
        self._check_size()
        # The bracket lets an expression run over several lines, as written in YAML.
        try:
            body = _parse(f"[{self.text}\n]")
        except SyntaxError as error:
            raise self._syntax_error(error) from None
        except (RecursionError, MemoryError):
            raise self._too_deep() from None
        except ValueError:
            raise self._error("the expression holds a character that is not text", None) from None
        if not isinstance(body, ast.List):
            raise self._unlisted(body)
        if len(body.elts) != 1 or isinstance(body.elts[0], ast.Starred):
            raise self._error("expected one expression, got a sequence", "write [a, b] for a list")
        self._check_depth(body.elts[0])
        return body.elts[0]

    def _check_size(self) -> None:
        if not self.text.strip():
            raise self._error("the expression is empty", "write a value, such as inputs.name")
        if any(mark in self.text for mark in "\0\r\f"):
            raise self._error("the expression holds a control character", "use spaces and line feeds only")
        size = len(self.text.strip().encode(errors="replace"))
        if size > SOURCE_BYTES:
            whole = self.whole()
            raise ExpressionLimitError(
                f"an expression of {size:,} bytes is above the limit of {SOURCE_BYTES:,}",
                whole.column,
                whole.end,
                "move the work into a task, or into several steps",
            )

    def _check_depth(self, tree: ast.expr) -> None:
        if len(self.text) <= SOURCE_DEPTH:
            return  # each level takes a character at least
        level: list[ast.AST] = [tree]
        for _ in range(SOURCE_DEPTH):
            level = [child for node in level for child in ast.iter_child_nodes(node) if _is_nesting(child)]
            if not level:
                return
        raise self._too_deep()

    def _too_deep(self) -> ExpressionError:
        whole = self.whole()
        message = f"the expression is nested deeper than {SOURCE_DEPTH} levels"
        return ExpressionLimitError(message, whole.column, whole.end, "split it over several steps")

    def _error(self, message: str, hint: str | None) -> ExpressionError:
        whole = self.whole()
        return ExpressionError(message, whole.column, whole.end, hint)

    def _unlisted(self, body: ast.expr) -> ExpressionError:
        if isinstance(body, ast.ListComp):
            return self._error("a loop needs brackets", "write [... for x in list]")
        return self._error("the brackets of the expression do not match", "check each '[' and ']'")

    def _syntax_error(self, error: SyntaxError) -> ExpressionError:
        for found in _FOREIGN.finditer(self.text):
            if found[1] == "=" and "'=='" not in error.msg:
                continue  # a keyword argument
            if found[1]:
                what = f"'{found[1]}' is not an operator here"
                return self._at(found.span(1), what, _ADVICE[found[1]])
            if found[2] and keyword.iskeyword(found[2]):
                what = f"'.{found[2]}' cannot be written as a field, because '{found[2]}' is a word of the language"
                return self._at(found.span(), what, f"write ['{found[2]}']")
        line = min(error.lineno or 1, len(self._starts) - 1)
        column = self._clip(self._starts[line - 1] + (error.offset or 1) - (2 if line == 1 else 1))
        reason = (error.msg or "invalid syntax").removesuffix(". Perhaps you forgot a comma?")
        if "too many nested" in reason:
            return self._too_deep()
        if ("was never closed" in reason and column == self.offset) or "closing parenthesis" in reason:
            reason = "the brackets of the expression do not match"
        return ExpressionError(f"this is not an expression: {reason}", column, min(column + 1, self.whole().end))

    def _at(self, span: tuple[int, int], message: str, hint: str) -> ExpressionError:
        return ExpressionError(message, self.offset + span[0], self.offset + span[1], hint)

    def _clip(self, column: int) -> int:
        whole = self.whole()
        return max(whole.column, min(self.offset + column, whole.end - 1))


def _parse(text: str) -> ast.expr:
    if _WARNED.search(text) is None:
        return ast.parse(text, mode="eval").body
    # Filters of warnings belong to the whole process, so they are changed only where they matter.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode="eval").body


def _is_nesting(node: ast.AST) -> bool:
    return isinstance(node, (ast.expr, ast.comprehension, ast.keyword))
