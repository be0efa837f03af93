"""The entry point of the command line: parse, import the one module that is needed, turn errors into messages and exit
codes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Final

from stemflow.cli.exits import FINE, INTERRUPTED, PIPE_CLOSED, WRONG_USAGE, Refused
from stemflow.cli.process_one import leave_process_one
from stemflow.cli.text import shown
from stemflow.errors import StemflowError
from stemflow.version import __version__

_ESCAPED: Final = "backslashreplace"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` defaults to the command line of the process."""
    if argv is None:
        leave_process_one()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPED)
    code = _guarded(sys.argv[1:] if argv is None else list(argv))
    if argv is None:
        _leave(code)
    return code


def _guarded(words: list[str]) -> int:
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except Refused as refused:
        return _say(refused, refused.code, refused.more)
    except StemflowError as error:
        return _say(error, WRONG_USAGE)
    except UnicodeEncodeError as error:
        return _say(Refused(f"expected UTF-8 text, got {error.object!r}; check the arguments and inputs"), WRONG_USAGE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has left; without this the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _run(words: list[str]) -> int:
    if words == ["--version"]:  # answered before click is imported
        print(f"stemflow {__version__}")
        return FINE
    from stemflow.cli.usage import run

    return run(words)


def _say(error: Exception, code: int, more: tuple[str, ...] = ()) -> int:
    for line in (str(error), *more):
        print(f"error: {shown(line)}", file=sys.stderr)
    return code


def _leave(code: int) -> None:
    """End the process at once if a disowned handler still occupies a thread: nothing waits for its report."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
