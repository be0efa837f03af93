"""Processor time of checking large files, next to PyYAML's bare C loader and bare jsonschema on the same text."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import yaml

from stemflow.dsl.schema import load_schema
from stemflow.runtime.client.workflow_files import WorkflowFile


def text_of(steps: int, known: bool = True) -> str:
    """A chain of steps, each of which reads the one before, or a name that does not exist."""
    lines = ['stemflow: "1"', "name: big", "steps:", "  s0: {task: do}"]
    for i in range(1, steps):
        name = f"s{i - 1}" if known else f"stp_{i}"
        lines += [f"  s{i}:", "    task: do", f'    args: {{what: "${{{{ steps.{name}.output.x }}}}", n: {i}}}',
                  "    retry: {max: 3}", "    timeout: 30s"]  # fmt: skip
    return "\n".join(lines) + "\n"


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """The least processor time of a call, in seconds."""
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        call()
        found.append(time.process_time() - begun)
    return min(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    rounds = options.parse_args().rounds
    WorkflowFile.of(text_of(3), "warm.yaml").checked(None)
    judge = jsonschema.Draft7Validator(load_schema())
    for name, steps, known in (("1,000 steps", 1_000, True), ("10,000 steps", 10_000, True),
                               ("2,000 unknown references", 2_000, False)):  # fmt: skip
        text = text_of(steps, known)
        found = len(WorkflowFile.of(text, "big.yaml").checked(None).found)
        assert found == (0 if known else steps - 1), found
        ours = seconds(lambda text=text: WorkflowFile.of(text, "big.yaml").checked(None), rounds)
        load = seconds(lambda text=text: yaml.load(text, yaml.CSafeLoader), rounds)
        print(f"{name:<26}{ours:7.3f} s  {ours / load:5.1f} x the C loader ({load:.3f} s)", end="")
        if steps <= 1_000:
            tree = yaml.load(text, yaml.CSafeLoader)
            bare = seconds(lambda tree=tree: list(judge.iter_errors(tree)), rounds)
            print(f"  {ours / bare:5.1f} x jsonschema ({bare:.3f} s)", end="")
        print(flush=True)


if __name__ == "__main__":
    main()
