"""Random workflow files with every kind of step and modifier, and what became of a run of one on a store.

Nothing in them depends on which of two things comes first at one instant: each task, wait and time limit takes a time
of its own, and what waits for an event or a person has a time limit.
"""

from __future__ import annotations

import asyncio
import json
import random
import zlib
from collections import Counter
from typing import Any, NamedTuple

from stemflow import Stemflow, TaskContext, TaskRegistry
from stemflow.dsl import parse_workflow
from stemflow.model.records import Node
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.workflow_files import WorkflowFile
from stemflow.runtime.tasks.context import Reject
from stemflow.store.base import Store
from stemflow.testing.simulation.virtual_loop import SeededIds, VirtualClock

DEPTH = 3
STEPS = 14
"""About how many tasks and other leaves a file has."""
LEAVES = ("task", "task", "task", "task", "set", "fail", "wait", "event", "approval", "emit")
COMPOSITES = ("chain", "group", "chord", "map", "switch", "loop", "steps", "workflow")


class Growing:
    """Draws one file. `used` counts the kinds and modifiers that it has."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.used: Counter[str] = Counter()
        self.left = STEPS
        self.numbers = iter(range(1, 10_000))

    def whole(self) -> str:
        """The text of the file."""
        steps: dict[str, Any] = self.graph(DEPTH)
        file: dict[str, Any] = {"stemflow": "1", "name": "drawn", "inputs": {"n": {"type": "integer", "default": 2}}}
        file |= {"steps": steps, "outputs": {"seen": [f"${{{{ get(steps.{name}.output) }}}}" for name in steps]}}
        if self.may("undo", 0.5):
            file["on_failure"] = {"compensate": True}
        if self.may("run finally", 0.3):
            file["finally"] = self.task()
        return json.dumps(file)

    def may(self, what: str, chance: float) -> bool:
        drawn = self.rng.random() < chance
        self.used[what] += drawn
        return drawn

    def time(self) -> str:
        """A duration that no other part of the file has."""
        return f"{next(self.numbers) * 7_919 % 3_989 + 20}ms"

    def step(self, depth: int) -> dict[str, Any]:
        kind = self.rng.choice(LEAVES if depth == 0 or self.left <= 0 else (*COMPOSITES, *COMPOSITES, *LEAVES))
        self.used[kind] += 1
        return self.modified(getattr(self, f"_{kind}")(depth - 1), kind)

    def modified(self, step: dict[str, Any], kind: str) -> dict[str, Any]:
        if self.may("when", 0.15):
            step["when"] = self.rng.choice(["inputs.n > 1", "inputs.n > 2"])
        if self.may("on_error", 0.25):
            step["on_error"] = self.rng.choice(["continue", "skip_dependents"])
        if self.may("catch", 0.12):
            step["catch"] = {"do": self.task()} | self.rng.choice([{}, {"on": ["Drawn"]}, {"when": "inputs.n > 2"}])
        if self.may("finally", 0.12):
            step["finally"] = self.task()
        if kind not in ("wait", "event", "emit", "approval", "set", "fail") and self.may("timeout", 0.08):
            step["timeout"] = self.time()
        if kind == "task" and self.may("compensate", 0.4):
            step["compensate"] = {"task": "undo", "args": {"of": "${{ self.output }}"}}
        return step

    # -- leaves

    def task(self) -> dict[str, Any]:
        self.left -= 1
        number = next(self.numbers)
        args = {"number": number, "takes": self.time(), "fails": self.rng.choice([0, 0, 0, 1, 9])}
        step: dict[str, Any] = {"task": "work", "args": args}
        if self.may("cache", 0.1):
            step["cache"] = {"ttl": "1h", "key": f"k{number % 3}-{args['fails']}"}
        elif self.may("retry", 0.3):
            step["retry"] = {"max": 1, "backoff": {"kind": "fixed", "initial": self.time(), "jitter": 0}}
        return step

    def _task(self, depth: int) -> dict[str, Any]:
        return self.task()

    def _set(self, depth: int) -> dict[str, Any]:
        return {"set": {"n": "${{ inputs.n * 2 }}", "bad": self.rng.choice([1, 1, 1, "${{ 1 // (inputs.n - 2) }}"])}}

    def _fail(self, depth: int) -> dict[str, Any]:
        return {"fail": {"type": "Drawn", "message": "as drawn"}}

    def _wait(self, depth: int) -> dict[str, Any]:
        return {"wait": {"for": f"${{{{ inputs.n * 0 + {self.time()[:-2]} }}}}ms"}}

    def _event(self, depth: int) -> dict[str, Any]:
        how = self.rng.choice(["fail", "continue", "skip"])
        return {"event": {"type": f"e{self.rng.randrange(3)}", "match": "event.data.n == inputs.n",
                          "timeout": self.time(), "on_timeout": how}}  # fmt: skip

    def _approval(self, depth: int) -> dict[str, Any]:
        how = self.rng.choice(["fail", "approve", "reject", "skip"])
        return {"approval": {"timeout": self.time(), "on_timeout": how,
                             "on_reject": self.rng.choice(["fail", "continue"])}}  # fmt: skip

    def _emit(self, depth: int) -> dict[str, Any]:
        return {"emit": {"type": f"e{self.rng.randrange(3)}", "data": {"n": self.rng.choice([2, 3])}}}

    # -- composites

    def some(self, depth: int, least: int = 1) -> list[dict[str, Any]]:
        return [self.step(depth) for _ in range(self.rng.randint(least, 3))]

    def ends(self, step: dict[str, Any], size: int) -> dict[str, Any]:
        """Says when a group or map is decided."""
        match self.rng.choice(["policy", "policy", "race", "quorum", "tolerate"]):
            case "policy":
                step["on_member_error"] = self.rng.choice(["fail_fast", "collect", "ignore"])
            case "race" if size > 1:
                step["race"] = True
                self.used["race"] += 1
            case "quorum" if size > 1:
                step["quorum"] = self.rng.randint(1, size - 1)
                self.used["quorum"] += 1
            case "tolerate" if size > 1:
                step["tolerate"] = self.rng.choice([1, "50%"])
                self.used["tolerate"] += 1
        return step

    def _chain(self, depth: int) -> dict[str, Any]:
        return {"chain": self.some(depth)}

    def _group(self, depth: int) -> dict[str, Any]:
        members = self.some(depth)
        return self.ends({"group": members}, len(members))

    def _chord(self, depth: int) -> dict[str, Any]:
        policy = self.rng.choice(["fail_fast", "collect", "ignore"])
        return {"chord": {"group": self.some(depth), "then": self.step(depth)}, "on_member_error": policy}

    def _map(self, depth: int) -> dict[str, Any]:
        items = list(range(self.rng.randint(0, 4)))
        body = {"items": items, "do": self.step(depth)} | self.rng.choice([{}, {"batch": 2}, {"concurrency": 1}])
        return self.ends({"map": body}, len(items))

    def _switch(self, depth: int) -> dict[str, Any]:
        default = {"default": self.step(depth)} if self.rng.random() < 0.5 else {}
        return {"switch": {"on": self.rng.choice(["inputs.n", "'none'"]), "cases": {"2": self.step(depth)}} | default}

    def _loop(self, depth: int) -> dict[str, Any]:
        ends = self.rng.choice([{"until": "index >= 2", "max": 3}, {"while": "index < 2", "max": 3}, {"max": 2},
                                {"until": "index > 5", "max": 2}])  # fmt: skip
        return {"loop": {**ends, "do": self.step(depth)}}

    def _steps(self, depth: int) -> dict[str, Any]:
        return {"steps": self.graph(depth)}

    def _workflow(self, depth: int) -> dict[str, Any]:
        given = self.rng.choice([2, 2, "${{ inputs.n + 1 }}", "${{ from_json(json(inputs)) }}"])  # no integer
        return {"workflow": {"ref": "called", "inputs": {"n": given}}}

    def graph(self, depth: int) -> dict[str, Any]:
        """Steps `a`, `b`, ..., each after some of those before it, by data or by order."""
        steps: dict[str, Any] = {}
        for name in "abcd"[: self.rng.randint(2, 4)]:
            step = self.step(depth)
            before = [one for one in steps if self.rng.random() < 0.4]
            if before:
                if "args" in step and self.rng.random() < 0.5:
                    step["args"]["before"] = [f"${{{{ steps.{one}.output }}}}" for one in before]
                else:
                    step["needs"] = before
                if self.may("run_on", 0.4):
                    step["run_on"] = self.rng.choice(["failure", "done", "any_success", "always"])
            steps[name] = step
        return steps


CALLED = """
stemflow: "1"
name: called
inputs: {n: {type: integer}}
steps:
  a: {task: work, args: {number: 1, takes: 333ms, fails: 0}, compensate: {task: undo, args: {of: a}}}
  b: {when: inputs.n > 2, needs: [a], fail: {type: Drawn, message: called}}
on_failure: {compensate: true}
outputs: {n: "${{ inputs.n }}"}
"""


def drawn(seed: int) -> tuple[str, Counter[str]]:
    """The text of a file, and what it has."""
    growing = Growing(seed)
    return growing.whole(), growing.used


class Ended(NamedTuple):
    """How a run ended: its status, value and error, every record, and how often each task was called."""

    status: str
    value: Any
    error: str | None
    nodes: dict[str, tuple[Any, ...]]
    calls: Counter[str]


def registry_of(calls: Counter[str]) -> TaskRegistry:
    registry = TaskRegistry()

    @registry.task("work")
    async def work(context: TaskContext, number: int, takes: str, fails: int, before: Any = None) -> int:
        """Fails the first `fails` times; members of a map differ in the time that they take."""
        calls[f"work {number}"] += 1
        attempt = context.attempt + 1
        await asyncio.sleep((int(takes.removesuffix("ms")) + zlib.crc32(context.node.encode()) % 199) / 1_000)
        if attempt <= fails:
            raise ConnectionError("away") if fails < 9 else Reject("no")
        return number

    @registry.task("undo")
    async def undo(of: Any) -> None:
        calls[f"undo {of}"] += 1

    called = parse_workflow(CALLED, "called.yaml").workflow
    assert called is not None
    registry.add_workflow(called)
    return registry


def workflow_of(text: str, registry: TaskRegistry) -> Workflow:
    checked = WorkflowFile.of(text, "drawn.yaml").checked(registry)
    wrong = [one.message for one in checked.found if one.severity == "error"]
    assert checked.workflow is not None and not wrong, (wrong, text)
    return checked.workflow


async def ended(text: str, url: str, store: Store | None, clock: VirtualClock, seed: int) -> Ended:
    """Run a file on a store that is empty."""
    calls: Counter[str] = Counter()
    registry = registry_of(calls)
    async with Stemflow(url, registry, clock=clock, ids=SeededIds(random.Random(seed)), store=store) as app:
        handle = await app.submit(workflow_of(text, registry))
        result = await handle.wait(timeout=3_000)
        assert not result.timed_out, [(node.path, node.state) for node in await handle.records()]
        nodes = {node.path: _shown(node) for node in await handle.records()}
        error = None if result.error is None else f"{result.failed_at}: {result.error.type}: {result.error.message}"
        return Ended(result.status, _timeless(result.raw), error, nodes, calls)


def _shown(node: Node) -> tuple[Any, ...]:
    one = node.tally
    bits = None if one is None else (one.size, one.ok, one.failed, one.skipped, one.upstream, one.cancelled)
    error = None if node.error is None else (node.error.type, node.error.message)
    return node.state, node.cause, node.verdict, node.attempt, node.failed_at, bits, error


def _timeless(value: Any) -> Any:
    """The value without instants and ids of runs."""
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in ("at", "time", "id")}
    return [_timeless(one) for one in value] if isinstance(value, list) else value
