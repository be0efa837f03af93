"""A group of processes whose memory the kernel bounds, where this user may make one: it kills what passes the bound."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stemflow.testing.servers.server import until_true

TREE = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A cgroup. `version` 1: a tree of its own for memory; 2: one tree for everything."""

    def __init__(self, limit: int) -> None:
        self.version = 1 if (TREE / "memory").is_dir() else 2
        tree = TREE / "memory" if self.version == 1 else TREE
        self.path = tree / f"stemflow-test-{os.getpid()}"
        self._limit = limit

    def make(self) -> None:
        """Raises OSError where that is not allowed."""
        self.path.mkdir()
        try:
            name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
            (self.path / name).write_text(str(self._limit))
        except OSError:
            self.path.rmdir()
            raise

    def is_empty(self) -> bool:
        return not (self.path / "cgroup.procs").read_text()

    def kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        told = (self.path / ("memory.oom_control" if self.version == 1 else "memory.events")).read_text()
        found = re.search(r"^oom_kill (\d+)$", told, re.M)
        assert found is not None, told
        return int(found[1])


@contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup | None]:
    """A group of at most `limit` bytes, or None where none can be made. At the end its processes must end."""
    group = MemoryGroup(limit)
    try:
        group.make()
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        until_true(group.is_empty)
        group.path.rmdir()
