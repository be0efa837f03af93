"""`stemflow doctor`: how safe a store is, which workers serve it, and which work makes no progress."""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
from typing import Any, Final

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, RUN_FAILED
from stemflow.cli.text import json_text, shown
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.doctor import Diagnosis, diagnose
from stemflow.store.health import Finding

INDENT: Final = 23
NARROWEST: Final = 30


def main(arguments: Arguments) -> int:
    """Print the findings; the exit code is 1 where one of them is an error."""
    found = asyncio.run(diagnose(arguments.store, SystemClock()))
    print(json_text(_data(found)) if arguments.json else _text(found))
    return RUN_FAILED if found.level == "error" else FINE


def _data(found: Diagnosis) -> dict[str, Any]:
    return {
        "store": found.url,
        "level": found.level,
        "findings": [
            {"check": one.check, "level": one.level, "text": one.text, "advice": one.advice or None}
            for one in found.findings
        ],
    }


def _text(found: Diagnosis) -> str:
    width = shutil.get_terminal_size().columns - INDENT if sys.stdout.isatty() else None
    lines = [line for one in found.findings for line in _lines(one, width)]
    return "\n".join([f"store {shown(found.url)}", *lines, _count(found)])


def _lines(one: Finding, width: int | None) -> list[str]:
    """The finding and its next step; in a terminal they are broken at its width and stay in their column."""
    lines = _broken(shown(one.text), width) + (_broken(f"-> {shown(one.advice)}", width) if one.advice else [])
    first = f"{one.level:<7}  {one.check:<12}  {lines[0]}"
    return [first, *(f"{'':<{INDENT}}{line}" for line in lines[1:])]


def _broken(text: str, width: int | None) -> list[str]:
    return [text] if width is None else textwrap.wrap(text, max(width, NARROWEST), break_long_words=False)


def _count(found: Diagnosis) -> str:
    levels = [one.level for one in found.findings]
    counts = [(levels.count("error"), "error"), (levels.count("warning"), "warning")]
    said = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for count, name in counts if count)
    return said or "nothing amiss"
