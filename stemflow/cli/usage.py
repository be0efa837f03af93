"""Parsing a command line with click, and wrong usage as this program reports it."""

from __future__ import annotations

import os
import sys

import click
from click.exceptions import Abort, Exit, NoArgsIsHelpError
from click.shell_completion import shell_complete

from stemflow.cli.completion import VARIABLE
from stemflow.cli.exits import INTERRUPTED, WRONG_USAGE
from stemflow.cli.grammar.program import PROGRAM
from stemflow.cli.text import shown


def run(words: list[str]) -> int:
    """Parse the words, run the command and return its exit code."""
    asked = os.environ.get(VARIABLE)
    if asked:
        return shell_complete(PROGRAM, {}, "stemflow", VARIABLE, asked)
    try:
        with PROGRAM.make_context("stemflow", words) as context:
            code: int = PROGRAM.invoke(context)
            return code
    except Exit as left:
        return left.exit_code
    except Abort:
        return INTERRUPTED
    except NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return WRONG_USAGE
    except click.UsageError as error:
        return _wrong(error)


def _wrong(error: click.UsageError) -> int:
    """The usage of the command, what is wrong with the call, and where to read more."""
    context = error.ctx
    path = "stemflow" if context is None else context.command_path
    if context is not None:
        print(context.get_usage().replace("Usage:", "usage:", 1), file=sys.stderr)
    message = error.format_message().rstrip(".")
    print(f"error: {shown(message[:1].lower() + message[1:])}", file=sys.stderr)
    print(f"help: `{path} --help`", file=sys.stderr)
    return WRONG_USAGE
