"""One action on many runs or dead letters: it shows how many, asks, freezes the selection, and goes through it.

`stemflow bulk list` and `bulk resume` are for what was interrupted.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, WRONG_USAGE, Refused
from stemflow.cli.follow import command
from stemflow.cli.operator import operator, operator_engine
from stemflow.cli.reasons import instant
from stemflow.cli.run_filters import run_query
from stemflow.cli.table import table
from stemflow.cli.text import json_text, shown
from stemflow.model.effects import DeadLetter
from stemflow.runtime.client.bulk import PLAIN, Bulk, BulkAction, BulkOptions, BulkResult
from stemflow.runtime.client.run_list import ListedRun, all_runs, public_state
from stemflow.runtime.engine import Stemflow

SENSIBLE: Final = {"cancel": ("active", "stopping"), "rerun": ("failed", "cancelled", "succeeded")}
"""The states of runs to which an action applies."""
USUAL: Final = {"cancel": ("active",), "rerun": ("failed", "cancelled")}
"""Those that are meant where no state is given."""
MOST_LISTED: Final = 20
EVERY: Final = 1_000_000_000


def main(arguments: Arguments) -> int:
    """`stemflow bulk list` and `stemflow bulk resume`."""
    return asyncio.run(_list(arguments) if arguments.action == "list" else _resume(arguments))


async def on_runs(app: Stemflow, arguments: Arguments, action: BulkAction, options: BulkOptions = PLAIN) -> int:
    """Cancel or rerun what the filters choose."""
    wrong = sorted(set(arguments.state) - set(SENSIBLE[action]))
    if wrong:
        raise Refused(f"{action}: --state: expected {' or '.join(SENSIBLE[action])}, got {', '.join(wrong)}")
    arguments.state = arguments.state or USUAL[action]
    chosen = await all_runs(app.store, run_query(arguments, app.store.now_ms()), arguments.limit or EVERY)
    if arguments.dry_run:
        return would_do(chosen, action, arguments)
    if not chosen and not arguments.json:
        print("no runs fit; nothing was done", file=sys.stderr)
        return FINE
    if chosen and not arguments.yes and not _agreed(f"{action} {_runs(len(chosen))}?"):
        raise Refused(f"{action}: {_runs(len(chosen))} fit; nothing was done: add --yes, or --dry-run to list them")
    ids = [one.info.header.run for one in chosen]
    lines = _Lines(arguments)
    bulk = await freeze_and_carry_out(app, arguments, action, ids, options, lines.add)
    return lines.finish(bulk)


def would_do(chosen: Sequence[ListedRun], action: str, arguments: Arguments) -> int:
    """The answer of `--dry-run`: what was chosen."""
    if arguments.json:
        print(json_text({"dry_run": True, "action": action, "runs": [one.info.header.run for one in chosen]}))
        return FINE
    rows = [
        (shown(one.info.header.run), public_state(one.info.root.state), shown(one.info.header.name))
        for one in chosen[:MOST_LISTED]
    ]
    for line in table(("run", "state", "name"), rows):
        print(line)
    if len(chosen) > MOST_LISTED:
        print(f"and {len(chosen) - MOST_LISTED:,} more")
    print(f"{action}: {_runs(len(chosen))} fit; nothing was changed, without --dry-run it is done", file=sys.stderr)
    return FINE


async def freeze_and_carry_out(
    app: Stemflow, arguments: Arguments, action: BulkAction, targets: Sequence[str | DeadLetter],
    options: BulkOptions, on_result: Callable[[BulkResult], object],
) -> Bulk:  # fmt: skip
    """Freeze the targets, say under which id, and carry the action out on them."""
    why = getattr(arguments, "note", "") or (arguments.reason if action in SENSIBLE else "")
    bulk = await app.control.bulk.freeze(action, targets, options, by=operator(arguments), reason=why)
    what = _runs(bulk.total) if action in SENSIBLE else f"{_letters(len(targets))} of {_runs(bulk.total)}"
    print(f"{what}, frozen at {instant(bulk.at_ms, app.store.now_ms())} as bulk {bulk.id}", file=sys.stderr)
    return await _carry_out(app, arguments, bulk, on_result)


async def _carry_out(
    app: Stemflow, arguments: Arguments, bulk: Bulk, on_result: Callable[[BulkResult], object]
) -> Bulk:
    try:
        return await app.control.bulk.carry_out(bulk.id, per_second=arguments.rate, on_result=on_result)
    except asyncio.CancelledError:
        print(f"stopped; {command(arguments, 'bulk', 'resume', bulk.id)} goes on", file=sys.stderr)
        raise


class _Lines:
    """What became of each run, a line each, and the sum; or the one object of `--json`."""

    def __init__(self, arguments: Arguments) -> None:
        self._json = arguments.json
        self._results: list[BulkResult] = []

    def add(self, one: BulkResult) -> None:
        self._results.append(one)
        if one.refused is not None:
            print(f"error: {shown(one.refused)}", file=sys.stderr)
        elif not self._json:
            taken = f"  taken up by {one.run_id}" if one.run_id is not None else ""
            print(f"{shown(one.run)}{taken}{'  had been done before' if one.before else '  done'}")

    def finish(self, bulk: Bulk) -> int:
        if self._json:
            print(json_text({**bulk_data(bulk), "results": [_result_data(one) for one in self._results]}))
        else:
            print(_sum(bulk), file=sys.stderr)
        return WRONG_USAGE if bulk.refused else FINE


async def _list(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        found, now_ms = await app.control.bulk.list(), app.store.now_ms()
    if arguments.json:
        print(json_text([bulk_data(one) for one in found]))
        return FINE
    for one in found:
        by = f"  by {shown(one.by)}" if one.by else ""
        reason = f": {shown(one.reason)}" if one.reason else ""
        print(f"{_sum(one)}  {instant(one.at_ms, now_ms)}{by}{reason}")
    if not found:
        print("no bulk actions in the last 30 days", file=sys.stderr)
    return FINE


async def _resume(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        bulk = await app.control.bulk.get(arguments.bulk)
        lines = _Lines(arguments)
        if bulk.done < bulk.total:
            details = {"action": bulk.action, "done": bulk.done, "total": bulk.total}
            await app.control.record("bulk", f"bulk:{bulk.id}", operator(arguments), arguments.reason, details)
            bulk = await _carry_out(app, arguments, bulk, lines.add)
        return lines.finish(bulk)


def _sum(bulk: Bulk) -> str:
    return f"{bulk.id}  {bulk.action}  {bulk.done:,}/{bulk.total:,}  {bulk.refused:,} refused"


def bulk_data(bulk: Bulk) -> dict[str, Any]:
    """A selection as `--json` shows it."""
    return {
        "bulk": bulk.id, "action": bulk.action, "total": bulk.total, "done": bulk.done, "refused": bulk.refused,
        "at_ms": bulk.at_ms, "by": bulk.by, "reason": bulk.reason,
    }  # fmt: skip


def _result_data(one: BulkResult) -> dict[str, Any]:
    return {"run": one.run, "run_id": one.run_id, "before": one.before, "refused": one.refused}


def _agreed(question: str) -> bool:
    """Ask on the terminal; without one, nobody agrees."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _runs(count: int) -> str:
    return f"{count:,} run{'s' * (count != 1)}"


def _letters(count: int) -> str:
    return f"{count:,} dead letter{'s' * (count != 1)}"
