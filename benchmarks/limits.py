"""How large a workflow may be: processor time and peak memory by size, with the exponent of growth, one process a case.

Processor time, as the machine may have other work; an exponent of 1 means that twice the size takes twice the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import CONSUMERS, registry, store_url

from stemflow import Stemflow, load_workflow

Case = Callable[[int], str]
HEAD = 'stemflow: "1"\nname: limits\n'


def steps(count: int) -> str:
    """Independent steps, every tenth of which reads the one before."""
    reads = '{task: same, args: {value: "${{ steps.s%d.output }}"}}'
    return HEAD + "steps:\n" + "".join(
        f"  s{i}: " + (reads % (i - 1) if i % 10 == 9 else f"{{task: same, args: {{value: {i}}}}}") + "\n"
        for i in range(count)
    )  # fmt: skip


def map_items(count: int) -> str:
    """One task for each number, in windows of 1,000."""
    do = '{task: same, args: {value: "${{ item }}"}}'
    items = f"inputs: {{n: {{default: {count}}}}}\n"
    return HEAD + items + f'steps: {{m: {{map: {{items: "range(inputs.n)", do: {do}}}}}}}\n'


def loop(count: int) -> str:
    """One task for each iteration."""
    do = '{task: same, args: {value: "${{ index }}"}}'
    return HEAD + f"steps: {{l: {{loop: {{while: index < {count}, max: {count}, do: {do}}}}}}}\n"


def nesting(count: int) -> str:
    """Groups in groups around one task."""
    step = "{task: noop}"
    for _ in range(count - 1):
        step = f"{{group: [{step}]}}"
    return HEAD + f"steps: {{s: {step}}}\n"


CASES: dict[str, tuple[Case, tuple[int, ...]]] = {
    "static steps": (steps, (1_000, 3_000, 10_000)),
    "items of a map": (map_items, (10_000, 30_000, 100_000)),
    "iterations of a loop": (loop, (1_000, 3_000, 10_000)),
    "nesting": (nesting, (8, 16, 32)),
}


async def once(what: str, count: int, kind: str) -> dict[str, float]:
    """One run in this process: processor seconds to check and to run, peak memory, records at the end."""
    with tempfile.TemporaryDirectory() as folder, store_url(kind) as url:
        path = Path(folder) / "limits.yaml"
        path.write_text(CASES[what][0](count))
        begun = time.process_time()
        workflow = load_workflow(path)
        checked = time.process_time()
        async with Stemflow(url, registry, concurrency=CONSUMERS) as app:
            handle = await app.submit(workflow)
            await app.store.watch(handle.id)
            root = await handle.root()
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1_048_576 if sys.platform == "darwin" else 1_024)
    assert root.state == "succeeded", (root.state, root.error)
    return {"check": checked - begun, "run": time.process_time() - checked, "peak": used}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--store", default="sqlite", choices=("memory", "sqlite", "redis"))
    options.add_argument("--only", choices=CASES)
    options.add_argument("--sizes", type=int, nargs="+", help="with --only: other sizes")
    options.add_argument("--one", nargs=2, metavar=("CASE", "SIZE"), help="one run, here; prints JSON")
    given = options.parse_args()
    if given.one:
        print(json.dumps(asyncio.run(once(given.one[0], int(given.one[1]), given.store))))
        return
    print(f"{given.store + ':':<24}{'size':>9}{'check s':>9}{'run s':>9}{'exponent':>10}{'peak MiB':>10}")
    for what, (_, sizes) in CASES.items():
        before: tuple[int, float] | None = None
        for size in (given.sizes or sizes) if given.only in (None, what) else ():
            command = [sys.executable, __file__, "--store", given.store, "--one", what, str(size)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            growth = math.log(found["run"] / before[1]) / math.log(size / before[0]) if before else math.nan
            shown = "" if before is None else f"{growth:.2f}"
            print(f"{what:<24}{size:>9,}{found['check']:>9.2f}{found['run']:>9.2f}{shown:>10}{found['peak']:>10.0f}",
                  flush=True)  # fmt: skip
            before = (size, found["run"])


if __name__ == "__main__":
    main()
