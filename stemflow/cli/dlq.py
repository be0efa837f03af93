"""`stemflow dlq`: the tasks that failed for good. They are listed, shown, run again, or thrown away."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from stemflow.cli.arguments import Arguments
from stemflow.cli.bulk import freeze_and_carry_out
from stemflow.cli.exits import FINE, WRONG_USAGE, Refused
from stemflow.cli.follow import command
from stemflow.cli.letter_text import letter_data, letter_id, line, story
from stemflow.cli.operator import operator, operator_engine
from stemflow.cli.text import json_text, shown
from stemflow.errors import StemflowError
from stemflow.model.effects import DeadLetter
from stemflow.model.records import task_keys
from stemflow.runtime.client.bulk import PLAIN, BulkOptions, BulkResult
from stemflow.runtime.client.dead_letters import Replayed, replayed_as
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.tasks.discovery import find_tasks

MOST_RECORDED = 100
"""Dead letters that are named in one record of the audit."""
_FILTERS = ("queue", "task", "reason", "error", "since", "run", "limit")


def main(arguments: Arguments) -> int:
    """Carry out one of the four actions."""
    return asyncio.run(_dlq(arguments))


async def _dlq(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        if arguments.action == "list":
            return await _list(app, arguments)
        if arguments.action == "show":
            return await _show(app, arguments)
        if arguments.action == "replay":
            before = [one for given in arguments.letters if (one := await _taken_up(app, given)) is not None]
            named = [given for given in arguments.letters if not any(_is(given, one) for one in before)]
            letters = [] if before and not named else await _meant(app, arguments, named)
            return await _replay(app, letters, before, arguments)
        return await _purge(app, await _meant(app, arguments, arguments.letters), arguments)


# -- which letters


async def _chosen(app: Stemflow, arguments: Arguments) -> list[DeadLetter]:
    """Those that fit the filters; the run may be given by the beginning of its id."""
    found = await app.dead_letters(
        queue=arguments.queue, task=arguments.task, reason=arguments.reason, since=arguments.since
    )
    if arguments.error is not None:
        found = [letter for letter in found if letter.error is not None and letter.error.type == arguments.error]
    if arguments.run is not None:
        found = _of_run(found, arguments.run)
    return found


def _of_run(letters: list[DeadLetter], given: str) -> list[DeadLetter]:
    """Those of one run; raises Refused when several runs begin so."""
    exact = [letter for letter in letters if letter.run == given]
    found = exact or [letter for letter in letters if letter.run.startswith(given)]
    runs = list(dict.fromkeys(letter.run for letter in found))
    if len(runs) > 1:
        names = ", ".join(runs[:4]) + (", ..." if len(runs) > 4 else "")
        raise Refused(f"run {shown(given)}: expected the beginning of one run, got that of several ({names}); "
                      "write more of it")  # fmt: skip
    return found


def _named(letters: list[DeadLetter], given: str) -> list[DeadLetter]:
    """The letters of `RUN`, or the one of `RUN/PATH`. Raises Refused when there is none."""
    for run, path in task_keys(given):
        found = [one for one in _of_run(letters, run) if not path or one.path == path]
        if found:
            break
    else:
        raise Refused(f"dead letter {shown(given)}: expected it in the store, found none; "
                      "`stemflow dlq list` lists those that are there")  # fmt: skip
    return found


async def _meant(app: Stemflow, arguments: Arguments, named: list[str]) -> list[DeadLetter]:
    """The letters that `replay` or `purge` applies to: those `named` by id, else what the filters choose.

    Every letter only with `--all`.
    """
    given = named or [name for name in _FILTERS if getattr(arguments, name) is not None]
    if not given and not arguments.all:
        raise Refused(f"dlq {arguments.action}: expected letters by id, a filter, or `--all` for every one; "
                      "`stemflow dlq list` lists them")  # fmt: skip
    letters = await _chosen(app, arguments)
    if named:
        found = [letter for given in named for letter in _named(letters, given)]
        letters = list({letter.key: letter for letter in found}.values())
    return letters[: arguments.limit]


async def _taken_up(app: Stemflow, given: str) -> Replayed | None:
    """The result of a run that was replayed before and has left no letter since."""
    for run, _ in task_keys(given):
        runs = await app.store.runs(2, run)
        if runs:
            break
    if len(runs) != 1 or await app.dead_letters(run=runs[0].header.run):
        return None
    new = replayed_as(runs[0].root, app.store)
    (root,) = await app.store.read([(new, "")])
    return None if root is None else Replayed(runs[0].header.run, (), new)


def _is(given: str, one: Replayed) -> bool:
    return any(one.run.startswith(run) for run, _ in task_keys(given))


# -- the actions


async def _list(app: Stemflow, arguments: Arguments) -> int:
    most = 50 if arguments.limit is None else arguments.limit
    letters = await _chosen(app, arguments)
    if arguments.json:
        print(json_text([letter_data(one) for one in letters[:most]]))
        return FINE
    for one in letters[:most]:
        print(line(one, app.store.now_ms()))
    if not letters:
        print("no dead letters", file=sys.stderr)
        return FINE
    if len(letters) > most:
        print(f"and {len(letters) - most:,} more; `--limit` shows them", file=sys.stderr)
    print(f"next: {command(arguments, 'dlq', 'show', letter_id(letters[0]))} shows the details of the newest",
          file=sys.stderr)  # fmt: skip
    return FINE


async def _show(app: Stemflow, arguments: Arguments) -> int:
    letters = _named(await app.dead_letters(), arguments.letter)
    if arguments.json:
        print(json_text([await _full(app, one) for one in letters]))
        return FINE
    for number, one in enumerate(letters):
        if number:
            print()
        for text in await story(app, one):
            print(text)
    run = letters[0].run
    print(f"next: {command(arguments, 'dlq', 'replay', run)} runs again what failed, "
          f"{command(arguments, 'dlq', 'purge', run)} throws it away, "
          f"{command(arguments, 'show', run)} shows the whole run", file=sys.stderr)  # fmt: skip
    return FINE


async def _full(app: Stemflow, letter: DeadLetter) -> dict[str, Any]:
    header = await app.store.header(letter.run)
    more = {
        "traceback": letter.error.traceback if letter.error is not None else "",
        "name": header.name if header is not None else None,
        "file": header.file if header is not None else None,
    }
    return {**letter_data(letter), **more}


async def _replay(app: Stemflow, letters: list[DeadLetter], before: list[Replayed], arguments: Arguments) -> int:
    known = _known(letters, arguments.tasks)
    if arguments.letters or arguments.dry_run:
        await _record(app, arguments, letters)
        done = before + await app.replay(
            letters, delay=arguments.delay / 1_000, dry_run=arguments.dry_run,
            allow_unknown=arguments.allow_unknown, known_tasks=known,
        )  # fmt: skip
        if not arguments.json:
            _print_replayed(done, arguments)
    else:
        done = await _replay_many(app, letters, known, arguments)
    refused = [one for one in done if one.refused is not None]
    if arguments.json:
        print(json_text({"dry_run": arguments.dry_run, "runs": [_replayed_data(one) for one in done]}))
    for one in refused:
        print(f"error: {shown(str(one.refused))}", file=sys.stderr)
    return WRONG_USAGE if refused else FINE


async def _replay_many(
    app: Stemflow, letters: list[DeadLetter], known: frozenset[str], arguments: Arguments
) -> list[Replayed]:
    """Replay what the filters chose, as a bulk action; each answer is printed as it comes."""
    of_run: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        of_run.setdefault(letter.run, []).append(letter)
    done: list[Replayed] = []

    def add(one: BulkResult) -> None:
        done.append(Replayed(one.run, tuple(of_run[one.run]), one.run_id, one.refused))
        if not arguments.json:
            _print_one(done[-1], arguments)

    if letters:
        options = BulkOptions(
            delay_ms=arguments.delay, allow_unknown=arguments.allow_unknown, known_tasks=tuple(sorted(known))
        )
        await freeze_and_carry_out(app, arguments, "replay", letters, options, add)
    if not arguments.json:
        _print_next(done, arguments)
    return done


async def _record(app: Stemflow, arguments: Arguments, letters: list[DeadLetter]) -> None:
    """Put a replay or purge of letters that are named into the audit, one record for each run."""
    by_run: dict[str, list[str]] = {}
    for letter in () if arguments.dry_run else letters:
        by_run.setdefault(letter.run, []).append(letter.path)
    for run, paths in by_run.items():
        details = {"steps": paths[:MOST_RECORDED]}
        await app.control.record_on_run(arguments.action, run, operator(arguments), arguments.note, details)


def _print_replayed(done: list[Replayed], arguments: Arguments) -> None:
    for one in done:
        _print_one(one, arguments)
    _print_next(done, arguments)


def _print_one(one: Replayed, arguments: Arguments) -> None:
    if one.run_id is None:
        return
    failed = ", ".join(shown(letter.task or letter.path or "the run") for letter in one.letters[:4])
    more = f", and {len(one.letters) - 4} more" if len(one.letters) > 4 else ""
    verb = "has taken" if not one.letters else "would take" if arguments.dry_run else "takes"
    print(f"{one.run_id}  {verb} up {one.run}{': ' if failed else ''}{failed}{more}")


def _print_next(done: list[Replayed], arguments: Arguments) -> None:
    made = [one for one in done if one.run_id is not None]
    if not done:
        print("no dead letters fit; nothing was done", file=sys.stderr)
    elif arguments.dry_run:
        print("nothing was changed; without --dry-run it is done", file=sys.stderr)
    elif made:
        resume = command(arguments, "resume", str(made[0].run_id))
        print(f"next: a worker goes on with them; without one, {resume} does", file=sys.stderr)


def _replayed_data(one: Replayed) -> dict[str, Any]:
    letters = [letter_id(letter) for letter in one.letters]
    return {"run": one.run, "letters": letters, "run_id": one.run_id, "refused": one.refused}


def _known(letters: list[DeadLetter], named: list[str]) -> frozenset[str]:
    """The tasks that `resume` would find here."""
    try:
        return frozenset(find_tasks(named, Path.cwd() / "workflow")) if letters else frozenset()
    except StemflowError:
        if named:
            raise
        return frozenset()


async def _purge(app: Stemflow, letters: list[DeadLetter], arguments: Arguments) -> int:
    if arguments.letters or arguments.dry_run:
        await _record(app, arguments, letters)
        gone = await app.purge(letters, dry_run=arguments.dry_run)
    else:
        gone = await _purge_many(app, letters, arguments)
    if arguments.json:
        print(json_text({"dry_run": arguments.dry_run, "purged": [letter_id(one) for one in gone]}))
        return FINE
    for one in gone:
        print(f"{'would be purged' if arguments.dry_run else 'purged'}  {letter_id(one)}  {shown(one.task)}")
    if not gone:
        print("no dead letters fit; nothing was done", file=sys.stderr)
    elif arguments.dry_run:
        print("nothing was changed; without --dry-run it is done", file=sys.stderr)
    return FINE


async def _purge_many(app: Stemflow, letters: list[DeadLetter], arguments: Arguments) -> list[DeadLetter]:
    """Purge what the filters chose, as a bulk action; return those that were there."""
    gone: set[str] = set()

    def add(one: BulkResult) -> None:
        gone.update(() if one.before or one.refused else (one.run,))

    if letters:
        await freeze_and_carry_out(app, arguments, "purge", letters, PLAIN, add)
    return [one for one in letters if one.run in gone]
