"""Where findings are, to the character: each file has one fault, whose place is between two brackets. The brackets are
taken out before the file is checked."""

from __future__ import annotations

import re

import pytest

from stemflow.runtime.client.workflow_files import WorkflowFile
from tests.dsl.files import HEAD

OPEN, CLOSE = "\N{LEFT SQUARE BRACKET WITH QUILL}", "\N{RIGHT SQUARE BRACKET WITH QUILL}"
B = "  b:\n    task: do\n"
A = "steps:\n  a: {task: do}\n"
ARGS = A + B + "    args:\n      what: "

ROWS: dict[str, tuple[str, str]] = {
    # Expressions in scalars of each style
    "plain": ("SF205", ARGS + "${{ ⁅inputs.nope⁆ }}\n"),
    "plain, the second of two": ("SF205", ARGS + "x ${{ 1 }} ${{ ⁅inputs.nope⁆ }}\n"),
    "plain, the same text before": ("SF205", ARGS + "inputs.nope ${{ ⁅inputs.nope⁆ }}\n"),
    "plain over two lines": ("SF205", ARGS + "some\n        text ${{ ⁅inputs.nope⁆ }}\n"),
    "plain over lines with a blank one": ("SF205", ARGS + "some\n\n        text ${{ 1 +\n        ⁅inputs.nope⁆ }}\n"),
    "single quotes": ("SF205", ARGS + "'${{ ⁅inputs.nope⁆ }}'\n"),
    "single quotes, doubled": ("SF205", ARGS + "'it''s ${{ json([''a'', ⁅inputs.nope⁆]) }}'\n"),
    "single quotes over lines": ("SF205", ARGS + "'it''s\n\n        ${{ ⁅inputs.nope⁆ }}'\n"),
    "double quotes": ("SF205", ARGS + '"${{ ⁅inputs.nope⁆ }}"\n'),
    "double quotes, escapes before": ("SF205", ARGS + '"\\"\\t\\x41\\u00e9\\U0001F600 ${{ ⁅inputs.nope⁆ }}"\n'),
    "double quotes, escapes inside": ("SF205", ARGS + '"${{ [\\"a\\", ⁅inputs.nope⁆] }}"\n'),
    "double quotes, the fault is escaped": ("SF205", ARGS + '"${{ ⁅inputs[\\"no\\\\u0070e\\"]⁆ }}"\n'),
    "double quotes, letters as escapes": ("SF205", ARGS + '"${{ ⁅inp\\x75ts.nope⁆ }}"\n'),
    "double quotes, an escaped line break": ("SF205", ARGS + '"some \\\n        text ${{ ⁅inputs.nope⁆ }}"\n'),
    "double quotes, folded": ("SF205", ARGS + '"some\n        text ${{ ⁅inputs.nope⁆ }}"\n'),
    "literal": ("SF205", ARGS + "|\n        one\n          two ${{ ⁅inputs.nope⁆ }}\n"),
    "literal, an expression over lines": ("SF205", ARGS + "|\n        ${{ 1 +\n            ⁅inputs.nope⁆ }}\n"),
    "literal with a blank line": ("SF205", ARGS + "|-\n\n        one\n\n\n        ${{ ⁅inputs.nope⁆ }}\n"),
    "literal with an indicator": ("SF205", ARGS + "|2\n          one ${{ ⁅inputs.nope⁆ }}\n"),
    "literal with a comment": ("SF205", ARGS + "|- # 7\n        ${{ ⁅inputs.nope⁆ }}\n"),
    "literal, spaces alone": ("SF205", ARGS + "|\n        one\n           \n        ${{ ⁅inputs.nope⁆ }}\n"),
    "folded": ("SF205", ARGS + ">\n        one\n        two ${{ ⁅inputs.nope⁆ }}\n"),
    "folded with deeper lines": ("SF205", ARGS + ">-\n        one\n          two\n        ${{ ⁅inputs.nope⁆ }}\n"),
    "folded with blank lines": ("SF205", ARGS + ">+\n        one\n\n        two\n        ${{ ⁅inputs.nope⁆ }}\n\n"),
    "folded, the path before": ("SF205", ARGS + ">\n        inputs.nope\n        ${{ ⁅inputs.nope⁆ }}\n"),
    "from one line to the next": ("SF216", ARGS + "|\n        ${{ ⁅[1]⁆\n          - 1 }}\n"),
    # Characters
    "letters beyond ASCII": ("SF205", ARGS + '"\u00e4\u00f6 ${{ json([\'\u00fc\', ⁅inputs.nope⁆]) }}"\n'),
    "emoji": ("SF205", ARGS + '"\U0001f600 ${{ json([\'\U0001f680\', ⁅inputs.nope⁆]) }}"\n'),
    "a tab in a text": ("SF205", ARGS + '"\t${{\t⁅inputs.nope⁆ }}"\n'),
    "a tab that indents": ("SF001", "steps:\n⁅\t⁆a: {task: do}\n"),
    # Conditions
    "a bare condition": ("SF205", A + "  b: {task: do, when: ⁅inputs.nope⁆ == 1}\n"),
    "a condition in quotes": ("SF205", A + '  b: {task: do, when: "\\"x\\" == ⁅inputs.nope⁆"}\n'),
    "a condition in a block": ("SF205", A + B + "    when: >-\n      true and\n      ⁅inputs.nope⁆\n"),
    # Lists and mappings
    "an item of a flow list": ("SF101", A + "  b: {task: do, needs: [a, ⁅c⁆]}\n"),
    "an item of a flow list over lines": ("SF101", A + "  b: {task: do, needs: [\n    a,\n    ⁅c⁆ ]}\n"),
    "an item of a block list": ("SF101", A + B + "    needs:\n      - a\n      - ⁅c⁆\n"),
    "an item in quotes": ("SF101", A + "  b: {task: do, needs: [a, ⁅'c'⁆]}\n"),
    "a key": ("SF010", A + "  b: {task: do, ⁅tmeout⁆: 7s}\n"),
    "a key in quotes": ("SF010", A + '  b: {task: do, ⁅"tmeout"⁆: 7s}\n'),
    "a key after '?'": ("SF010", A + B + "    ? ⁅tmeout⁆\n    : 7s\n"),
    "a key that occurs twice": ("SF002", A + "  ⁅a⁆: {task: do}\n"),
    "a value": ("SF501", A + "  b: {task: do, timeout: ⁅7x⁆}\n"),
    "a value in quotes": ("SF501", A + "  b: {task: do, timeout: ⁅'7x'⁆}\n"),
    "a flow list as a value": ("SF011", A + "  b: {task: do, timeout: ⁅[7, 8]⁆}\n"),
    "a flow mapping as a value": ("SF011", A + "  b: {task: do, queue: ⁅{a: 1}⁆}\n"),
    "a block list as a value": ("SF011", A + B + "    queue:\n      ⁅-⁆ 7\n      - 8\n"),
    "a block mapping as a value": ("SF011", A + B + "    queue:\n      ⁅a⁆: 7\n"),
    "a block scalar as a value": ("SF501", A + B + "    timeout: ⁅|⁆\n      7x\n"),
    # Anchors, aliases, tags, merge keys
    "a value behind an anchor": ("SF501", A + "  b: {task: do, timeout: &t ⁅7x⁆}\n"),
    "a value behind a tag": ("SF501", A + "  b: {task: do, timeout: !!str ⁅7x⁆}\n"),
    "a value behind both": ("SF501", A + "  b: {task: do, timeout: !!str &t ⁅'7x'⁆}\n"),
    "a value on the line after its anchor": ("SF501", A + B + "    timeout: &t\n      ⁅7x⁆\n"),
    "a flow mapping behind an anchor": ("SF011", A + "  b: {task: do, queue: &q ⁅{a: 1}⁆}\n"),
    "a block mapping behind an anchor": ("SF011", A + B + "    queue: &q\n      ⁅a⁆: 7\n"),
    "an expression behind an anchor": ("SF205", ARGS + '&w "\\"${{ ⁅inputs.nope⁆ }}"\n'),
    "a block behind an anchor": ("SF205", ARGS + "&w |\n        one\n        ${{ ⁅inputs.nope⁆ }}\n"),
    "a tag that is not allowed": ("SF004", ARGS + "⁅!secret⁆ x\n"),
    "a tag behind an anchor": ("SF004", ARGS + "&w ⁅!secret⁆ x\n"),
    "an alias of nothing": ("SF001", A + "  b: {task: do, timeout: ⁅*t⁆}\n"),
    "a merge of a text": ("SF004", A + "  b: {<<: ⁅text⁆, task: do}\n"),
    "a merge of an alias": (
        "SF004", "vars: {l: &l [1]}\nsteps:\n  a: {task: do, args: {w: '${{ vars.l }}'}}\n  b: {<<: ⁅*l⁆, task: do}\n",
    ),
    "a value that a merge brings": (
        "SF501", "steps:\n  a: &a\n    task: do\n    timeout: ⁅7x⁆\n  b: {<<: *a, task: other}\n",
    ),
    # Documents
    "a second document": ("SF001", A + "⁅---⁆\nsteps: {}\n"),
    "a file that begins with a mark": ("SF205", "---\n" + ARGS + "${{ ⁅inputs.nope⁆ }}\n"),
    "a comment above": ("SF205", "# \U0001f600 ${{ inputs.nope }}\n" + ARGS + "${{ ⁅inputs.nope⁆ }}\n"),
}  # fmt: skip


def places(name: str, prefix: str = "", line_break: str = "\n") -> None:
    """The one finding of the row is exactly between its brackets."""
    code, text = ROWS[name]
    text = (HEAD + text if not text.startswith("---") else "---\n" + HEAD + text[4:]).replace("\n", line_break)
    before, marked, _ = re.split(f"[{OPEN}{CLOSE}]", text)
    line = before.count(line_break) + 1
    column = len(before) - (before.rfind(line_break) + len(line_break) if line > 1 else 0) + 1
    found = WorkflowFile.of(prefix + text.replace(OPEN, "").replace(CLOSE, ""), "x.yaml").checked(None).found
    told = [(one.code, one.line, one.column, one.end_column) for one in found]
    assert told == [(code, line, column, column + len(marked))], [one.message for one in found]


@pytest.mark.parametrize("name", ROWS)
def test_a_finding_is_exactly_where_the_fault_is(name: str) -> None:
    places(name)


@pytest.mark.parametrize("name", ROWS)
def test_a_finding_is_there_too_with_a_byte_order_mark_and_line_breaks_of_windows(name: str) -> None:
    places(name, prefix="\ufeff", line_break="\r\n")
