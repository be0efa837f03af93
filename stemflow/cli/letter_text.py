"""A dead letter for people and for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from stemflow.cli.attempts import own_frames
from stemflow.cli.text import clip, short_duration, shown
from stemflow.model.effects import DeadLetter
from stemflow.model.records import task_id
from stemflow.runtime.engine import Stemflow

_WIDEST_ERROR: Final = 80

_ADVICE: Final = {
    "max-retries-exhausted": "correct what the error says, or wait until what it needs is available again, then replay",
    "unregistered-task": "start a worker that has registered the task, then replay",
    "damaged": "look for the run id in the logs of the workers: its records cannot be relied on, so submit it again",
    "signature-invalid": "find out who wrote to the store and has no key, before anything is replayed",
    "unknown-encoder": "start workers that have registered the encoder which wrote the value, then replay",
    "bad-arguments": "a replay uses the same arguments: change the task so that it accepts them, or submit again",
    "poison": "its workers died while they ran it: look for memory, crashes in C and kills in their logs, then replay",
    "lost": "it may run at most once and its worker died: find out how far it came, then replay or purge",
    "expired": "it was not started in time: replay it if it is still wanted, else purge it",
}


def letter_id(letter: DeadLetter) -> str:
    """The id of the task that failed: RUN, or RUN/PATH."""
    return task_id(letter.key)


def letter_data(letter: DeadLetter) -> dict[str, Any]:
    """A letter as `dlq list --json` has it."""
    error = letter.error
    return {
        "id": letter_id(letter),
        "run": letter.run,
        "path": letter.path,
        "task": letter.task or None,
        "queue": letter.queue,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "at_ms": letter.at_ms,
        "until_ms": letter.at_ms + letter.keep_ms,
        "error": None if error is None else {"type": error.type, "message": error.message, "data": error.data},
    }


def line(letter: DeadLetter, now_ms: int) -> str:
    """One line: when, what, why, the error, and the id to type next."""
    ago = short_duration(now_ms - letter.at_ms)
    return (
        f"{shown(letter_id(letter))}  {_instant(letter.at_ms)} ({ago} ago)  {shown(letter.queue)}  "
        f"{shown(letter.task or 'a composite')}  {letter.reason} after {_attempts(letter)}{_why(letter)}"
    )


async def story(app: Stemflow, letter: DeadLetter) -> list[str]:
    """All that is known of the failure: task, reason, time, attempts, traceback, and the next step."""
    header = await app.store.header(letter.run)
    now_ms = app.store.now_ms()
    where = "" if header is None else f", {shown(header.name)}" + (f" of {shown(header.file)}" if header.file else "")
    error = letter.error
    lines = [
        f"dead letter {shown(letter_id(letter))}",
        f"  what      {shown(letter.task or 'a composite')} at {shown(letter.path or 'the root')}{where}",
        f"  queue     {shown(letter.queue)}",
        f"  why       {letter.reason}, after {_attempts(letter)}",
        f"  error     {'none was noted' if error is None else shown(f'{error.type}: {error.message}')}",
        f"  when      {_instant(letter.at_ms)}, {short_duration(now_ms - letter.at_ms)} ago",
        f"  kept      until {_instant(letter.at_ms + letter.keep_ms)}",
        f"  to do     {_ADVICE.get(letter.reason, _ADVICE['max-retries-exhausted'])}",
    ]
    if error is not None and error.traceback:
        lines += ["  traceback", *(f"    {shown(one)}" for one in own_frames(error.traceback))]
    return lines


def _attempts(letter: DeadLetter) -> str:
    return "1 attempt" if letter.attempts == 1 else f"{letter.attempts or 'no'} attempts"


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _why(letter: DeadLetter) -> str:
    if letter.error is None:
        return ""
    return f": {clip(shown(f'{letter.error.type}: {letter.error.message}'), _WIDEST_ERROR)}"
