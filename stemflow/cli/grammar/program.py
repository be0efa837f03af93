"""`stemflow` itself: every command, and `--version`."""

from __future__ import annotations

import click

from stemflow.cli.grammar import files, letters, running, stores
from stemflow.cli.grammar.options import OrderedGroup
from stemflow.version import __version__


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"stemflow {__version__}")
        ctx.exit()


PROGRAM = OrderedGroup(
    "stemflow",
    commands=[*running.COMMANDS, *stores.COMMANDS, *letters.COMMANDS, *files.COMMANDS],
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version,
            help="Print the version and exit.",
        )
    ],
    help="Run declarative workflows, durably.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
