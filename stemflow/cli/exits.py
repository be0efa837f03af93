"""Exit codes, and the error that carries one."""

from __future__ import annotations

from typing import Final

from stemflow.errors import StemflowError

FINE: Final = 0
RUN_FAILED: Final = 1
INVALID_FILE: Final = 2
WRONG_USAGE: Final = 3
"""Wrong usage, tasks that cannot be found, a run that cannot be found, or a store that cannot be used."""
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141


class Refused(StemflowError):
    """The command cannot be carried out; `code` is its exit code. `more`: further sentences, a line each."""

    def __init__(self, message: str, code: int = WRONG_USAGE, more: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.more = more
