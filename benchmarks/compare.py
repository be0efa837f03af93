"""Two checkouts of stemflow in turn: medians, ranges and the ratio of the second to the first.

    python benchmarks/compare.py ../before . --rounds 7
    python benchmarks/compare.py ../before . --program field --rounds 3

Each round runs the program of each checkout once, as a process of its own with that checkout's package, in alternating
order. `field` starts a server and runs both checkouts as engines of this checkout's `field.py`.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
ROW = re.compile(r"(?P<label>\S.*?) {2,}(?P<value>[\d,.]+) (?P<unit>/s|ms)\b")
"""A row of drain.py or cold.py: label, median of its single round, unit."""


def once(program: str, checkout: Path, more: list[str]) -> dict[tuple[str, str], float]:
    """(label, unit) -> figure, of one round of a checkout's own program."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(checkout / "benchmarks" / f"{program}.py"), "--rounds", "1", *more]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    rows = map(ROW.match, done.stdout.splitlines())
    return {(row["label"], row["unit"]): float(row["value"].replace(",", "")) for row in rows if row is not None}


def in_turn(program: str, checkouts: list[Path], rounds: int, more: list[str]) -> None:
    found: dict[tuple[str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for number in range(rounds):
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            for label, value in once(program, checkouts[place], more).items():
                found[label][place].append(value)
        print(f"round {number + 1} of {rounds} is done", file=sys.stderr)
    print(f"{'':<36}{'first':>10} {'range':>22}{'second':>12} {'range':>22}   second/first")
    for (label, unit), series in found.items():
        if all(series):
            first, second = (statistics.median(values) for values in series)
            texts = [f"{min(values):,.0f} to {max(values):,.0f} {unit}" for values in series]
            print(f"{label:<36}{first:>10,.0f} {texts[0]:>22}{second:>12,.0f} {texts[1]:>22}   {second / first:.3f}")


def field(checkouts: list[Path], rounds: int, more: list[str]) -> None:
    """Both checkouts as engines of field.py, which interleaves them: `stemflow` is the first, `second` the second."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{checkouts[1]}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        peer = checkouts[1] / "benchmarks" / "field" / "stemflow_peer.py"
        command = [sys.executable, str(HERE / "field.py"), "--engines", "stemflow", "--rounds", str(rounds)]
        command += ["--program", f"second={python}:{peer}", *more]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(checkouts[0])}, check=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkouts", nargs=2, type=lambda text: Path(text).absolute(), metavar="CHECKOUT")
    options.add_argument("--program", choices=("drain", "cold", "field"), default="drain")
    options.add_argument("--rounds", type=int, default=5)
    given, more = options.parse_known_args()
    if given.program == "field":
        field(given.checkouts, given.rounds, more)
    else:
        in_turn(given.program, given.checkouts, given.rounds, more)


if __name__ == "__main__":
    main()
