"""Run a command of stemflow in this process and kill it, as `kill -9` does, before or after its n-th store call."""

import os
import signal
import sys
from typing import Any

from stemflow.cli.main import main
from stemflow.store.sqlite.store import SqliteStore

CALLS = ("exchange", "take_expired")


def arm(when: str, at: int) -> None:
    """Count the calls of every SQLite store of this process; call number `at` is the last."""
    made = 0

    def wrapped(name: str) -> Any:
        original = getattr(SqliteStore, name)

        async def call(self: SqliteStore, *args: Any) -> Any:
            nonlocal made
            made += 1
            mine = made
            if mine == at and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = await original(self, *args)
            if mine == at and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    for name in CALLS:
        setattr(SqliteStore, name, wrapped(name))


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
