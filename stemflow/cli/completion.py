"""`stemflow completion`: the script that a shell loads to complete commands, options, files and run ids."""

from __future__ import annotations

from typing import Final

from click.shell_completion import get_completion_class

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE
from stemflow.cli.grammar.program import PROGRAM

VARIABLE: Final = "_STEMFLOW_COMPLETE"
"""Set by the script when the shell asks for completions."""


def main(arguments: Arguments) -> int:
    """Print the script of one shell."""
    kind = get_completion_class(arguments.shell)
    assert kind is not None
    print(kind(PROGRAM, {}, "stemflow", VARIABLE).source(), end="")
    return FINE
