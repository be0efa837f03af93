"""Commands that send events and answer steps that wait for a person."""

from __future__ import annotations

import click

from stemflow.cli.grammar.options import OrderedGroup, command, run_id, store, tasks
from stemflow.cli.grammar.types import DURATION, Positive, RunId

_TASKS = "Where the tasks are, for a store whose records are signed or encrypted; may be repeated."

SEND = command(
    "send", "send an event to the steps that wait for it",
    click.Argument(["type"], metavar="TYPE", help="The type of the event, such as order.paid."),
    click.Option(["--data"], metavar="JSON", help="The data: JSON, or `-` to read it from standard input."),
    click.Option(["--id"], metavar="ID", help="An event of the same type and id is stored once."),
    click.Option(["--keep"], type=DURATION, metavar="TIME", help="How long the event is kept (1d)."),
    tasks(_TASKS), *store(), module="event", action="send",
)  # fmt: skip
EVENT = OrderedGroup(
    "event", commands=[SEND], help="Send events to steps that wait for them.",
    short_help="send events to steps that wait for them",
)  # fmt: skip


def _answer(name: str, summary: str, *more: click.Parameter) -> click.Command:
    return command(
        name, summary,
        run_id(),
        click.Argument(["step"], metavar="STEP", help="The path of the step, as `stemflow approvals` shows it."),
        click.Option(["--by"], metavar="NAME", required=True, help="The name of the person who answers."),
        click.Option(["--note"], metavar="TEXT", default="", help="A text that is stored with the answer."),
        *more, tasks(_TASKS), *store(), module="answer", existing=True, action=name,
    )  # fmt: skip


APPROVE = _answer(
    "approve", "approve a step that waits for it",
    click.Option(
        ["-i", "--input"], metavar="NAME=VALUE", multiple=True, help="What the step asks for; may be repeated."
    ),
    click.Option(["--inputs"], metavar="FILE", type=click.Path(), help="A JSON or YAML file of it; -i overrides it."),
)  # fmt: skip
REJECT = _answer("reject", "reject a step that waits for an approval")
APPROVALS = command(
    "approvals", "list the steps that wait for an approval",
    click.Argument(["run"], metavar="[RUN]", type=RunId(), required=False, help="Only those of this run."),
    click.Option(
        ["--limit"], type=Positive(), default=10_000, metavar="N", help="Look at the newest N runs (10,000)."
    ),
    tasks(_TASKS), *store(), existing=True,
)  # fmt: skip
