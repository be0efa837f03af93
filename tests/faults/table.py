"""The table of docs/faults.md, written from what tests measured: `python -m tests.faults.table [arguments of pytest]`.

A test calls `record` once for each fault; what servers of other versions do (marked `long`) stays out. The rows of
those that were run and passed replace their old ones; the others stay as they were measured before.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct, json

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
ROWS = "STEMFLOW_FAULT_ROWS"
"""The variable with the file that `record` writes to."""
HEAD = "| fault | test | runs | tries | lost | doubled | stuck |\n|---|---|---|---|---|---|---|\n"


class Row(Struct, frozen=True):
    """What one test measured of one fault; `fault` begins with its number and may name a variant: `F-19 client`."""

    fault: str
    runs: int
    tries: int
    lost: int
    doubled: int
    stuck: int
    test: str

    def line(self) -> str:
        numbers = (self.runs, self.tries, self.lost, self.doubled, self.stuck)
        return f"| {self.fault} | `{self.test.partition('[')[0]}` | {' | '.join(map(str, numbers))} |\n"


def record(fault: str, *, runs: int, tries: int, lost: int, doubled: int, stuck: int) -> None:
    """Record what was measured: runs that were judged, faults that struck, runs that were lost, deliveries beyond the
    first of an attempt, runs that did not end."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
    row = Row(fault, runs, tries, lost, doubled, stuck, test)
    print(f"\n{fault}: runs {runs}, tries {tries}, lost {lost}, doubled {doubled}, stuck {stuck}")
    if path := os.environ.get(ROWS):
        with Path(path).open("ab") as file:
            file.write(json.encode(row) + b"\n")


def merged(page: str, rows: list[Row]) -> str:
    """The page with these rows in its table, sorted by number."""
    before, head, rest = page.partition(HEAD)
    if not head:
        raise SystemExit(f"{PAGE}: expected a table that begins with {HEAD.splitlines()[0]!r}; restore its head")
    old = re.match(r"(?:\|.*\n)*", rest)
    assert old is not None
    lines = {line.split("|")[1].strip(): line for line in old[0].splitlines(keepends=True)}
    lines |= {row.fault: row.line() for row in rows}
    return before + head + "".join(lines[fault] for fault in sorted(lines)) + rest[old.end() :]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        path.touch()
        command = [sys.executable, "-m", "pytest", "-q", "-m", "faults and not long", *(arguments or ["tests/faults"])]
        code = subprocess.run(command, cwd=ROOT, env={**os.environ, ROWS: str(path)}, check=False).returncode
        rows = [json.decode(line, type=Row) for line in path.read_bytes().splitlines()]
    PAGE.write_text(merged(PAGE.read_text("utf-8"), rows), "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
