"""A workflow as a file: what is read again has the same plan, for random documents and canvases with every option."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from stemflow import Canvas, RetryPolicy, TaskRegistry, load_workflow
from stemflow.compile.freeze import compile_plan
from stemflow.dsl import parse_workflow
from stemflow.dsl.export import to_yaml
from stemflow.dsl.export_canvas import bound
from stemflow.dsl.export_options import CannotExport
from stemflow.model.policy import effective, normalise
from stemflow.model.workflow import Workflow
from stemflow.testing import Rehearsal, virtual_time

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted([*(ROOT / "workflows").glob("*.yaml"), *(ROOT / "tests" / "dsl" / "golden").glob("*.yaml")])
REGISTRY = TaskRegistry()


@REGISTRY.task("add")
async def add(a: Any, b: Any = 1, c: Any = 0) -> Any:
    return [a, b, c]


@REGISTRY.task("none")
async def none() -> None: ...


def names(task: str) -> tuple[str, ...] | None:
    known = REGISTRY.get(task)
    return None if known is None else known.params


def digest(workflow: Workflow) -> str:
    defaults = normalise(workflow.task_defaults, "defaults")
    return compile_plan(
        workflow.body, lambda sig: effective(sig.task, defaults, normalise(sig.options, sig.task)),
        outputs=workflow.outputs, compensate_on=workflow.compensate_on,
    ).digest  # fmt: skip


def read(text: str) -> Workflow | None:
    return parse_workflow(text, "x").workflow


def check(workflow: Workflow) -> None:
    text = to_yaml(workflow)
    again = read(text)
    assert again is not None, parse_workflow(text, "x").diagnostics
    assert digest(again) == digest(workflow)
    assert to_yaml(again) == text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_file_has_the_same_plan_after_it_was_exported(path: Path) -> None:
    workflow = read(path.read_text())
    if workflow is not None and path.stem not in ("cycle", "two_cycles"):
        check(workflow)


class Documents:
    """Random workflow files with every kind and option; `rng` decides."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.count = rng, 0

    def maybe(self, of: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in of.items() if self.rng.random() < 0.3}

    def text(self) -> str:
        return self.rng.choice(["plain", "on", "1:30", "~", "a: b", "'q'", 'd"q', "#x", "two\nlines", "é", " s "])

    def value(self) -> Any:
        inputs = "${{ inputs.n + 1 }}"
        nested = {"k": self.text(), "e": inputs}
        return self.rng.choice([1, 2.5, True, None, self.text(), inputs, [1, self.text()], nested])

    def options(self) -> dict[str, Any]:
        backoff = self.maybe({"initial": "3s", "factor": 3, "max": "90s", "jitter": 0.5})
        retry = self.maybe({"max": 3, "retry_on": ["E", "m.F"], "never_retry_on": ["G"], "when": "error.type == 'E'",
                            "budget": "1h"})  # fmt: skip
        if self.rng.random() < 0.3 or not retry:
            retry["backoff"] = {"kind": self.rng.choice(["fixed", "linear", "exponential"]), **backoff}
        rules = [{"on": ["E", "m.F"], "max": 3, "backoff": "fixed"},
                 {"when": "error.message == 'x'", "max": 2, "budget": "1h"}]  # fmt: skip
        keyed = {"key": "${{ args.x }}", "for": "5m", "on_conflict": "reject"}
        unique = {"unique": self.rng.choice([True, False, keyed])}
        cached = {"cache": self.rng.choice(["2h", False, {"ttl": "1d", "key": "${{ args.x }}"}])}
        return self.rng.choice([unique, cached, {}]) | self.maybe({
            "queue": "q", "priority": 7, "timeout": self.rng.choice(["30s", {"soft": "5s", "hard": "1m"}]),
            "retry": self.rng.choice([retry, rules]), "group_rate_limit": "9/s", "group_rate_key_header": "tenant",
            "group_rate_limiter_failure_mode": "closed", "expires": "2h",
            "concurrency": {"key": "k-${{ args.x }}", "limit": 2},
            "rate_limit": self.rng.choice(["5/s", [{"limit": 3, "per": "1m", "key": "u"},
                                                   {"rate": "9/s", "pace": True}]]),
            "env": {"LANG": "C", "TOKEN": "${{ secrets.token }}"}, "returns": {"type": "object", "required": ["k"]},
        })  # fmt: skip

    def task(self) -> dict[str, Any]:
        given = {"x": self.value(), **self.maybe({"y": self.value(), "key": "${{ secrets.token }}"})}
        return {"task": self.rng.choice(["add", "psp.charge"]), "args": given, **self.options()}

    def step(self, depth: int, named: bool = False) -> dict[str, Any]:
        kinds = ["task", "set", "fail", "wait", "event", "emit", "approval"]
        kinds += ["chain", "group", "chord", "map", "switch", "loop", "steps"] if depth else []
        kind = self.rng.choice(kinds)
        make = {
            "task": self.task,
            "set": lambda: {"set": {"v": self.value()}},
            "fail": lambda: {"fail": self.rng.choice([self.text(), {"message": "m", "type": "T", "data": {"d": 1}}])},
            "wait": lambda: {"wait": self.rng.choice([{"for": "90s"}, {"for": "${{ inputs.n }}m"},
                                                      {"until": "2030-01-01T00:00:00Z"}])},
            "event": lambda: {"event": {"type": "t", "timeout": "5m", **self.maybe({"match": "event.data.n == 1",
                                                                                    "on_timeout": "skip"})}},
            "emit": lambda: {"emit": {"type": "t", **self.maybe({"data": self.value(), "id": "x", "keep": "2h"})}},
            "approval": lambda: {"approval": {"timeout": "3d", **self.maybe({
                "by": ["a", "b"], "message": self.text(), "on_timeout": "reject", "on_reject": "continue",
                "inputs": {"n": {"type": "integer"}},
            })}},
            "chain": lambda: {"chain": self.many(depth)},
            "group": lambda: {"group": self.rng.choice([self.many(depth), self.members(depth)])},
            "chord": lambda: {"chord": {"group": self.members(depth), "then": self.step(depth - 1)}},
            "map": lambda: {"map": {**self.items(), "do": self.step(depth - 1),
                                    **self.maybe({"as": "one", "index": "at",
                                                  "concurrency": self.rng.choice([4, "${{ inputs.n }}"])})}},
            "switch": lambda: {"switch": {"on": "inputs.n", "cases": {"a": self.step(depth - 1), "4 0": self.task()},
                                          **self.maybe({"default": self.step(depth - 1)})}},
            "loop": lambda: {"loop": {"max": self.rng.choice([5, "${{ inputs.n }}"]), "do": self.step(depth - 1),
                                      **self.maybe({"carry": self.value()}),
                                      **self.rng.choice([{}, {"while": "index < 3"}, {"until": "carry == 1"}])}},
            "steps": lambda: {"steps": self.members(depth), **self.maybe({"fail_fast": True, "outputs": {"o": 1}})},
        }  # fmt: skip
        found = make[kind]()
        found |= self.maybe({"when": "inputs.n > 0", "on_error": "continue"})
        found |= self.maybe({"finally": {"task": "none"}, "labels": {"team": "a"}})
        found |= self.maybe({"catch": {"on": ["E"], "do": self.task()}})
        if kind in ("group", "chord", "map"):
            found |= self.maybe({"on_member_error": "collect"})
        if kind in ("group", "map"):
            found |= self.rng.choice([{}, {"race": True}, {"quorum": 1}, {"tolerate": 1}, {"tolerate": "12.5%"}])
        if kind not in ("set", "fail", "wait", "event", "emit", "approval"):
            found |= self.maybe({"compensate": {"task": "none", "args": {"o": "${{ self.output }}"}, "timeout": "9s"}})
        if kind not in ("task", "set", "fail", "wait", "event", "emit", "approval"):
            found |= self.maybe({"timeout": self.rng.choice(["1h", "${{ inputs.n }}m"]),
                                 "concurrency": {"key": "c", "limit": 3}})  # fmt: skip
        return found

    def items(self) -> dict[str, Any]:
        """What a map is over."""
        matrix = {"a": [1, 2], "b": "${{ inputs.list }}"}
        of: dict[str, Any] = self.rng.choice([{"items": "inputs.list"}, {"items": [1, 2, 3]}, {"matrix": matrix}])
        return of | self.maybe({"batch": 2 if "matrix" not in of else "${{ inputs.n }}"})

    def many(self, depth: int) -> list[Any]:
        return [self.step(depth - 1) for _ in range(self.rng.randint(1, 3))]

    def members(self, depth: int) -> dict[str, Any]:
        found = {}
        for _ in range(self.rng.randint(1, 3)):
            self.count += 1
            found[f"s{self.count}"] = self.step(depth - 1)
        return found

    def body(self) -> dict[str, Any]:
        """The body of the file: a graph, or one of the other kinds that may be one."""
        kind = self.rng.choice(["steps", "steps", "steps", "chain", "group", "chord"])
        if kind == "steps":
            return {"steps": self.graph(), **self.maybe({"fail_fast": True})}
        body: Any = self.many(3) if kind == "chain" else self.members(3)
        return {kind: {"group": body, "then": self.step(2)} if kind == "chord" else body}

    def graph(self) -> dict[str, Any]:
        steps = self.members(3)
        first, *others = steps
        for name in others:
            if self.rng.random() < 0.5:
                steps[name] |= {"needs": [first], **self.maybe({"run_on": self.rng.choice(["done", "always"])})}
        return steps

    def file(self) -> dict[str, Any]:
        inputs = {"n": {"type": "integer", "default": 1}, "list": {"type": "array", "default": [1]}}
        return {
            "stemflow": "1", "name": "random", "inputs": inputs,
            "secrets": {"token": {"env": "T"}, "b": {"file": "/b"}}, **self.body(),
            **self.maybe({
                "version": "1.0", "description": self.text(), "labels": {"a": self.text()}, "vars": {"v": self.text()},
                "timeout": "1d", "defaults": {
                    "task": {"timeout": "9s", "retry": {"max": 2}},
                    "tasks": {"psp.*": {"args": {"y": "${{ inputs.n }}"}, "queue": "pay", "retry": {"budget": "1h"}}},
                },
                "on": {"schedule": {"nightly": {"cron": "30 2 * * *", "inputs": {"n": 2}}},
                       "event": {"type": "order.paid", "match": "event.data.n > 1",
                                 "inputs": {"n": "${{ event.data.n }}"}}},
                "finally": {"task": "none"}, "on_success": {"do": {"task": "none"}},
                "unique": {"key": "u-${{ inputs.n }}", "for": "1h"}, "concurrency": {"key": "f", "limit": 2},
                "outputs": {"o": "${{ inputs.n }}", "t": self.text()}, "on_failure": {"compensate": True},
                "on_cancel": {"compensate": True, "do": {"task": "none"}},
            }),
        }  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_a_random_file_has_the_same_plan_after_it_was_exported(seed: int) -> None:
    text = yaml.safe_dump(Documents(random.Random(seed)).file(), sort_keys=False)
    parsed = parse_workflow(text, "x")
    assert parsed.workflow is not None, (text, parsed.diagnostics)
    check(parsed.workflow)


def canvas(rng: random.Random, depth: int, fed: bool) -> Any:
    """A random canvas with options. A task takes the value before it as its first argument if there is one."""
    sig = _canvas(rng, depth, fed)
    if rng.random() < 0.2:
        sig = sig.catch(none.si(), on=["E"], when="error.message == 'x'").finally_(none.si())
    if rng.random() < 0.2:
        sig = sig.with_when("1 < 2").with_on_error("continue")
    if sig.MEMBERS and rng.random() < 0.2:
        sig = sig.with_timeout("1h").with_concurrency("k", 2)
    return sig


def _canvas(rng: random.Random, depth: int, fed: bool) -> Any:
    composites = ["chain", "group", "chord", "map", "switch", "loop", "race"] if depth else []
    kind = rng.choice(["task", "wait", "fail", "event", "emit", "approval", *composites])
    below = depth - 1
    limits: Any = rng.choice([{}, {"quorum": 1}, {"tolerate": "20%"}, {"on_member_error": "collect"}])
    match kind:
        case "task":
            first = [] if fed else [rng.choice([1, "x", "a ${{ b }}", "0o17"])]
            task = Canvas.task("add", *first, **({"c": 2} if rng.random() < 0.5 else {}))
            rules = [RetryPolicy.of(retry_on="ValueError", max_retries=2), RetryPolicy.of(max_retries=1, jitter=0)]
            options = {"priority": 3, "max_retries": 2, "queue": "default", "rate_limit": "9/s", "cache": "1h",
                       "retry": rng.choice([RetryPolicy.of(initial=5, retry_on="ValueError"), rules]),
                       "hard_time_limit": 30, "concurrency": {"key": "c"}}  # fmt: skip
            return task.with_options(**{key: value for key, value in options.items() if rng.random() < 0.3})
        case "wait":
            return Canvas.wait("3s")
        case "fail":
            return Canvas.fail("no", data={"why": 1})
        case "event":
            return Canvas.event("t", match="event.data.n == 1", timeout="5m", on_timeout="skip")
        case "emit":
            return Canvas.emit("t", {"n": 1}, id="x", keep="2h")
        case "approval":
            return Canvas.approval(["ann"], message="go?", timeout="3d", on_timeout="reject")
        case "chain":
            return Canvas.chain([canvas(rng, below, fed or bool(i)) for i in range(rng.randint(1, 3))])
        case "group":
            return Canvas.group([canvas(rng, below, fed) for _ in range(rng.randint(1, 3))], **limits)
        case "race":
            return Canvas.race([canvas(rng, below, fed) for _ in range(2)])
        case "chord":
            return Canvas.chord(Canvas.group([canvas(rng, below, fed)]), canvas(rng, below, True))
        case "map":
            return Canvas.map(canvas(rng, below, True), rng.choice([[1, 2], range(3)]), concurrency=2, **limits)
        case "switch":
            return Canvas.switch("1", {"1": canvas(rng, below, fed), "b": canvas(rng, below, fed)})
    loop = {"while_": "index < 3"} if rng.random() < 0.5 else {"until": "carry == 1"}
    return Canvas.loop(canvas(rng, below, True), max=2, carry=1, **loop)


@pytest.mark.parametrize("seed", range(25))
def test_a_random_canvas_has_the_same_plan_after_it_was_exported(seed: int) -> None:
    rng = random.Random(seed)
    sig = canvas(rng, 3, False)
    if rng.random() < 0.3:
        sig = Canvas.chain([sig]).on_failure(none.si()).on_cancel(none.si())
    again = read(sig.to_yaml(REGISTRY, name="canvas"))
    assert again is not None
    own, around = (Workflow(name="canvas", body=bound(one, names)) for one in (sig, Canvas.chain([sig])))
    assert digest(again) in (digest(own), digest(around))


@pytest.mark.parametrize(
    "sig",
    [
        Canvas.chain(Canvas.task("add", 1), Canvas.task("add", 2), Canvas.task("add", c=5)),
        Canvas.chain(Canvas.group(Canvas.task("add", 1), Canvas.task("add", "${{ x }}")), Canvas.task("add")),
        Canvas.chord(Canvas.group(Canvas.task("add", 1), Canvas.task("add", 2)), Canvas.task("add", 7)),
        Canvas.chain(Canvas.map(Canvas.task("add", c=3), range(4)), Canvas.task("add")),
        Canvas.chain(Canvas.task("add", 1), Canvas.switch("len(prev)", {3: Canvas.task("add")})),
        Canvas.chain(Canvas.loop(Canvas.task("add"), max=2, carry=0)),
    ],
)
def test_the_file_of_a_canvas_gives_what_the_canvas_gives(sig: Any) -> None:
    workflow = read(sig.to_yaml(REGISTRY))
    assert workflow is not None

    @virtual_time
    async def both() -> tuple[Any, Any]:
        async with Rehearsal(REGISTRY) as rehearsal:
            return await rehearsal.run(sig), await rehearsal.run(workflow)

    of_canvas, of_file = both()
    assert of_canvas == of_file


@pytest.mark.parametrize(
    ("sig", "says"),
    [
        (Canvas.task("unknown", 1), "expected to know the parameters of unknown"),
        (Canvas.chunks(Canvas.task("add"), [1, 2], 2), "expected a map of items"),
        (Canvas.chain(Canvas.task("none")).with_options(isolation="thread"), "the options isolation"),
        (Canvas.chain(Canvas.task("none").on_success(none.si())), "cannot hold `success_hooks`"),
        (Canvas.chain(Canvas.task("none")).catch(Canvas.task("none")), "expected none with all its arguments"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(sig: Any, says: str) -> None:
    with pytest.raises(CannotExport, match=says):
        sig.to_yaml()


def test_a_file_that_calls_others_has_the_same_plan_after_it_was_exported(tmp_path: Path) -> None:
    (tmp_path / "child.yaml").write_text(
        'stemflow: "1"\nname: child\ninputs: {n: {type: integer}}\nchain: [{set: {m: "${{ inputs.n }}"}}]\n'
    )
    (tmp_path / "a.yaml").write_text(
        'stemflow: "1"\nname: a\nsteps:\n'
        "  x: {workflow: {ref: child.yaml, inputs: {n: 1}}, catch: {do: {task: add}}}\n"
        "  y: {workflow: {ref: child.yaml, inputs: {n: 2}, wait: false}, needs: [x]}\n"
    )
    workflow = load_workflow(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(workflow.to_yaml())
    assert digest(load_workflow(tmp_path / "b.yaml")) == digest(workflow)


def test_the_method_of_a_workflow_gives_the_text_of_the_function(tmp_path: Path) -> None:
    workflow = load_workflow(ROOT / "workflows" / "order.yaml")
    assert workflow.to_yaml() == to_yaml(workflow)
    assert workflow.to_yaml(name="other") == to_yaml(workflow).replace("name: order", "name: other", 1)
