"""`stemflow doctor`: how safe a store is, who works on it, and what stands still in it."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Any

from stemflow.cli.exits import FINE, RUN_FAILED
from stemflow.cli.text import json_text, shown
from stemflow.runtime.clock import SystemClock
from stemflow.runtime.doctor import Diagnosis, diagnose
from stemflow.store.health import Finding


def main(arguments: Namespace) -> int:
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
    return "\n".join([f"store {shown(found.url)}", *map(_line, found.findings), _count(found)])


def _line(one: Finding) -> str:
    line = f"{one.level:<7}  {one.check:<12}  {shown(one.text)}"
    return f"{line}\n{'':<23}-> {shown(one.advice)}" if one.advice else line


def _count(found: Diagnosis) -> str:
    levels = [one.level for one in found.findings]
    counts = [(levels.count("error"), "error"), (levels.count("warning"), "warning")]
    said = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for count, name in counts if count)
    return said or "nothing amiss"
