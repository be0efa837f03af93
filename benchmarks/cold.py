"""Commands from cold, whole processes, in turn with a bare interpreter; and the imports that cost most."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ORDER = str(Path(__file__).parents[1] / "workflows" / "order.yaml")
PACKAGE = str(Path(__file__).parents[1])
STEMFLOW = ["-m", "stemflow.cli.main"]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "stemflow --version": [*STEMFLOW, "--version"],
    "stemflow validate order.yaml": [*STEMFLOW, "validate", ORDER],
    "stemflow run order.yaml": [*STEMFLOW, "run", ORDER],
}
TOP = 10


def once(arguments: list[str]) -> tuple[float, str]:
    """(seconds, what it wrote to stderr) of a whole process in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        paths = os.pathsep.join(filter(None, (PACKAGE, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "STEMFLOW_DEMO_DIR": f"{folder}/demo", "PYTHONPATH": paths}
        command = [sys.executable, *arguments]
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
        return time.perf_counter() - begun, done.stderr


def imports(arguments: list[str]) -> list[tuple[int, int, str]]:
    """(cumulative us, own us, module) of the modules that cost most with all that they import."""
    rows = []
    for line in once(["-X", "importtime", *arguments])[1].splitlines():
        own, separator, rest = line.removeprefix("import time:").partition("|")
        whole, _, module = rest.partition("|")
        if separator and own.strip().isdigit() and whole.strip().isdigit():
            rows.append((int(whole), int(own), module.strip()))
    return sorted(rows, reverse=True)[:TOP]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    rounds = options.parse_args().rounds
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            found[name].append(once(arguments)[0] * 1_000)
    bare = statistics.median(found["python -c pass"])
    for name, values in found.items():
        middle = statistics.median(values)
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"{name:<30}{middle:7.0f} ms  {spread:>14}  {middle / bare:5.1f} x a bare interpreter")
    for name, arguments in list(COMMANDS.items())[2:]:
        print(f"\n{name}: imports, ms with all that they import (own)")
        for whole, own, module in imports(arguments):
            print(f"  {whole / 1_000:7.1f} ({own / 1_000:5.1f})  {module}")


if __name__ == "__main__":
    main()
