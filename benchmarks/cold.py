"""Commands from cold, whole processes, in turn with a bare interpreter."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ORDER = str(Path(__file__).parents[1] / "workflows" / "order.yaml")
ROUNDS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "stemflow --version": ["-m", "stemflow.cli.main", "--version"],
    "stemflow validate order.yaml": ["-m", "stemflow.cli.main", "validate", ORDER],
    "stemflow run order.yaml": ["-m", "stemflow.cli.main", "run", ORDER],
}


def once(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "STEMFLOW_DEMO_DIR": f"{folder}/demo"}
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - begun


def main() -> None:
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            found[name].append(once(arguments))
    bare = statistics.median(found["python -c pass"])
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"{name:<30}{middle * 1_000:7.0f} ms  ({min(values) * 1_000:.0f} to {max(values) * 1_000:.0f})"
              f"  {middle / bare:5.1f} x a bare interpreter")  # fmt: skip


if __name__ == "__main__":
    main()
