"""Building a command, and the options that several commands share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import click

from stemflow.cli.arguments import DEFAULT_STORE, STORE_VARIABLE, TASKS_VARIABLE, Arguments
from stemflow.cli.grammar.types import Positive, Rate, RunId, Since, Store

Check = Callable[[Arguments], None]


class OrderedGroup(click.Group):
    """Lists its commands in the order in which they are declared."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class TopicGroup(OrderedGroup):
    """Lists its commands under headings: `topics` has (heading, commands), each command under one of them."""

    def __init__(self, name: str, topics: Sequence[tuple[str, Sequence[click.Command]]], **more: Any) -> None:
        super().__init__(name, commands=[one for _, commands in topics for one in commands], **more)
        self._topics = topics

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(len(name) for name in self.commands)
        for heading, commands in self._topics:
            with formatter.section(heading):
                limit = formatter.width - 6 - widest
                rows = [(f"{one.name or '':<{widest}}", one.get_short_help_str(limit)) for one in commands]
                formatter.write_dl(rows)


class CommandGroup(OrderedGroup):
    """A command with options of its own, and actions: `stemflow worker` and `stemflow worker drain NAME`."""

    def __init__(self, alone: click.Command, actions: list[click.Command]) -> None:
        super().__init__(
            alone.name, commands=actions, params=alone.params, callback=click.pass_context(self._alone),
            invoke_without_command=True, help=alone.help, short_help=alone.short_help,
        )  # fmt: skip
        self._command = alone

    def _alone(self, ctx: click.Context, /, **given: Any) -> Any:
        """Carry out the command itself, where no action is named."""
        if ctx.invoked_subcommand is None and self._command.callback is not None:
            return self._command.callback(**given)
        return None


def command(name: str, summary: str, *params: click.Parameter, module: str = "", check: Check | None = None,
            existing: bool = False, **more: Any) -> click.Command:  # fmt: skip
    """A command that `stemflow.cli.MODULE.main(arguments)` carries out; the module is imported when the command runs.

    `summary` is the line of `stemflow --help`, `module` the command's name unless given, `check` looks at what one
    option alone cannot know. With `existing` a database file that is not there is refused, and not created. `more` are
    arguments that the module gets besides the options.
    """

    def carry_out(**given: Any) -> int:
        arguments = Arguments(**given, **more)
        if check is not None:
            check(arguments)
        if existing:
            importlib.import_module("stemflow.cli.existing").require_store(arguments.store)
        code: int = importlib.import_module(f"stemflow.cli.{module or name}").main(arguments)
        return code

    help_text = f"{summary[0].upper()}{summary[1:]}."
    return click.Command(name, params=list(params), callback=carry_out, help=help_text, short_help=summary)


def store() -> list[click.Parameter]:
    """`--store`, and `--json` for the commands that print an object."""
    return [store_url(), click.Option(["--json"], is_flag=True, help="Print JSON on standard output.")]


def store_url(default: str = DEFAULT_STORE) -> click.Option:
    """`--store`, also read from the environment."""
    text = ("sqlite:PATH, sqlite: for .stemflow/stemflow.db (the default), redis://HOST:PORT/DB, memory:, or @FILE "
            "for a file that holds the URL.")  # fmt: skip
    return click.Option(
        ["--store"], type=Store(), metavar="URL", default=default, envvar=STORE_VARIABLE, show_envvar=True, help=text
    )


def tasks(text: str = "") -> click.Option:
    """`--tasks`."""
    default = "Where the tasks are; may be repeated (default: pyproject.toml, else tasks.py next to the file)."
    return click.Option(
        ["--tasks"], metavar="MODULE[:REGISTRY]", multiple=True, callback=_as_list, help=text or default,
        envvar=TASKS_VARIABLE, show_envvar=True,
    )  # fmt: skip


def keys() -> click.Option:
    """`--tasks` of commands that read and change records, for the keys and encoders of its registry."""
    return tasks("Whose registry has the signing keys and encoders of the store; only needed if it has any.")


def concurrency() -> click.Option:
    """`--concurrency`."""
    return click.Option(
        ["--concurrency"], type=Positive(), default=100, metavar="N", help="Tasks at the same time (100)."
    )


def run_id(text: str = "The id of the run, or the beginning of it.") -> click.Argument:
    """The argument RUN."""
    return click.Argument(["run"], metavar="RUN", type=RunId(), help=text)


STATES = ("active", "stopping", "succeeded", "failed", "cancelled")


def run_filters() -> list[click.Parameter]:
    """The filters that choose runs."""
    return [
        click.Option(
            ["--state"], type=click.Choice(STATES), multiple=True, help="Only runs in this state; may be repeated."
        ),
        click.Option(["--name"], metavar="NAME", help="Only runs of this workflow or task."),
        click.Option(["--since"], type=Since(), metavar="TIME", help="Created since: 2h, or 2026-01-31T03:00."),
        click.Option(
            ["--label"], metavar="NAME=VALUE", multiple=True, help="Only with this label or `meta`; may be repeated."
        ),
        click.Option(["--task"], metavar="NAME", multiple=True, help="Only runs with this task; may be repeated."),
        click.Option(
            ["--not", "excluded"], metavar="FIELD:VALUE", multiple=True,
            help="Without name:NAME, state:STATE, task:TASK or label:NAME=VALUE; may be repeated.",
        ),
    ]  # fmt: skip


def chosen_runs() -> list[click.Parameter]:
    """The argument RUN, or filters and how to go through what they choose; see `one_run_or_filters`."""
    return [
        click.Argument(["run"], metavar="[RUN]", type=RunId(), required=False,
                       help="The id of the run, or the beginning of it; or filters choose many."),
        *run_filters(),
        click.Option(["--all"], is_flag=True, help="Every run for which it makes sense."),
        click.Option(["--limit"], type=Positive(), metavar="N", help="Of many, only the newest N."),
        click.Option(["--dry-run"], is_flag=True, help="List what would be done, and change nothing."),
        click.Option(["--yes"], is_flag=True, help="Of many: do not ask."),
        rate(),
    ]  # fmt: skip


def rate() -> click.Option:
    """`--rate`."""
    return click.Option(["--rate"], type=Rate(), metavar="N/s", help="Of many, at most so many at a time: 20/s, 100/m.")


def one_run_or_filters(arguments: Arguments) -> None:
    """The check of a command with `chosen_runs`."""
    filters = [arguments.state, arguments.name, arguments.since, arguments.label, arguments.task, arguments.excluded]
    many = any(filters) or arguments.all
    if arguments.run is None and not many:
        raise click.UsageError("expected RUN, filters (as of `stemflow runs`), or --all")
    if arguments.run is not None and (many or arguments.limit or arguments.yes or arguments.rate):
        raise click.UsageError("expected RUN or filters, got both; --all, --limit, --rate and --yes are for filters")


def workflow_file() -> list[click.Parameter]:
    """The argument FILE and the inputs of its run."""
    return [
        click.Argument(["file"], metavar="FILE", type=click.Path(), help="The workflow file."),
        click.Option(
            ["-i", "--input"], metavar="NAME=VALUE", multiple=True, callback=_as_list, help="An input; may be repeated."
        ),
        click.Option(
            ["--inputs"], metavar="FILE", type=click.Path(), help="A JSON or YAML file of inputs; -i overrides it."
        ),
        click.Option(
            ["--again"], is_flag=True, help="Run although a finished run holds the same unique key."
        ),
        click.Option(["--no-cache"], is_flag=True, help="Neither read nor write cached results."),
    ]  # fmt: skip


def _as_list(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    return list(value)
