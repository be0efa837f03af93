"""Signing: who can write to the store but has no key makes no handler start."""

from __future__ import annotations

import asyncio
import copy
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import structs

from stemflow import (
    Canvas,
    OptionError,
    RunHandle,
    SignatureInvalid,
    SigningKeys,
    Stemflow,
    TaskContext,
    TaskRegistry,
    UnknownKey,
)
from stemflow.model import wire
from stemflow.model.plan import LeafPlan, Plan
from stemflow.model.rates import Rate
from stemflow.model.records import Awaits, ErrorInfo, Header, Node, Tally
from stemflow.runtime.payloads.signing import Trust
from tests.spec.intruder import intruder_of

if TYPE_CHECKING:
    from tests.spec.conftest import OpenApp

K1, K2 = b"1" * 32, b"2" * 32
REQUIRED = SigningKeys({"k1": K1}, "k1")
A_WHILE_S = 60
AN_HOUR_S = 3_600

MOVED = {"rev", "delivery", "losses", "at_ms", "journal", "unlisted"}
"""What stores, and workers without a key, move by themselves; see `docs/tasks/encoders.md`."""


class Scene:
    """A signed run of one task that waits for a worker, and a witness of all that was started."""

    def __init__(self, open_app: OpenApp, registry: TaskRegistry, producer: Stemflow) -> None:
        self.open_app, self.registry, self.producer = open_app, registry, producer
        self.started: list[Any] = []
        self.intruder = intruder_of(producer)

        @registry.task("note", max_retries=3)
        async def note(*what: Any) -> Any:
            self.started.append(what[0] if what else None)
            return what[0] if what else None

        self.note = note

    async def worker(self, signing: SigningKeys | None = REQUIRED, **settings: Any) -> Stemflow:
        return await self.open_app(signing=signing, **settings)

    async def refused(self, run: str, **settings: Any) -> None:
        """A worker comes, and starts nothing; the run is FAILED, and the operator is given the reason."""
        app = await self.worker(**settings)
        handle = await app.handle(run)
        await asyncio.sleep(A_WHILE_S)
        assert self.started == []
        root = await handle.root()
        assert (root.state, root.error and root.error.type) == ("failed", "SignatureInvalid")
        letters = await app.dead_letters(run=run)
        assert [letter.reason for letter in letters] == ["signature-invalid"]

    async def starts_nothing(self) -> None:
        """A worker comes, and starts nothing, whatever becomes of the run."""
        await self.worker()
        await asyncio.sleep(A_WHILE_S)
        assert self.started == []


@pytest.fixture
async def scene(open_app: OpenApp, registry: TaskRegistry) -> Scene:
    return Scene(open_app, registry, await open_app(worker=False, signing=REQUIRED))


# -- it works


def _shapes(registry: TaskRegistry) -> dict[str, tuple[Any, Any]]:
    @registry.task("keep")
    async def keep(x: Any, *more: Any) -> Any:
        return x

    @registry.task("total")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    @registry.task("adds")
    async def adds(context: TaskContext) -> int:
        await context.add_to_group(keep.s(2))
        return 1

    @registry.task("replaced")
    async def replaced(context: TaskContext) -> None:
        await context.replace(keep.s(1) | keep.s())

    @registry.task("once", unique=True)
    async def once(x: int) -> int:
        return x

    return {
        "lone": (keep.s(1), 1),
        "chain": (keep.s(1) | keep.s() | keep.s(), 1),
        "chord": (Canvas.chord([keep.s(1), keep.s(2)], total.s()), 3),
        "map": (Canvas.map(keep.s(), list(range(1_001))), list(range(1_001))),
        "nested": (Canvas.group(Canvas.map(keep.s() | keep.s(), [1]), keep.s(1) | Canvas.group(keep.s())), [[1], [1]]),
        "added": (Canvas.group(adds.s()), [1, 2]),
        "replaced": (replaced.s() | keep.s(), 1),
        "hooks": (keep.s(1).on_success(keep.s()), 1),
        "unique": (Canvas.group(once.s(1), once.s(1)), [1, 1]),
        "delayed": (keep.with_options(countdown=5).s(1) | keep.with_options(countdown=5).s(), 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    "shape", ["lone", "chain", "chord", "map", "nested", "added", "replaced", "hooks", "unique", "delayed"]
)
async def test_a_signed_run_ends_as_one_that_is_not(open_app: OpenApp, registry: TaskRegistry, shape: str) -> None:
    # Given a producer and a worker with the same keys, both of which require signatures
    producer = await open_app(worker=False, signing=REQUIRED)
    await open_app(signing=REQUIRED)
    sig, value = _shapes(registry)[shape]

    # When a run of any shape is submitted, then it ends well
    result = await (await producer.submit(sig)).wait()
    assert (result.status, result.value) == ("succeeded", value)


async def test_a_signed_run_is_rerun_with_what_it_keeps(open_app: OpenApp, registry: TaskRegistry) -> None:
    app = await open_app(signing=REQUIRED)
    fails = [True, False]

    @registry.task("items")
    async def items(x: int) -> int:
        return x

    @registry.task("last")
    async def last(numbers: list[int]) -> int:
        if fails.pop(0):
            raise ValueError("not yet")
        return sum(numbers)

    first = await app.submit(Canvas.map(items.s(), [1, 2]) | last.s())
    assert (await first.wait()).status == "failed"
    assert (await (await app.rerun(first.id, failed=True)).wait()).value == 3


async def test_retries_losses_and_cancel_keep_the_seal(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given a task that fails twice and then is stopped
    app = await open_app(signing=REQUIRED)
    attempts: list[int] = []

    @registry.task("flaky", max_retries=5)
    async def flaky(context: TaskContext) -> None:
        attempts.append(context.attempt)
        if context.attempt < 2:
            raise ValueError("not yet")
        await asyncio.sleep(AN_HOUR_S)

    handle = await app.submit(flaky.s())
    await asyncio.sleep(60)
    await handle.cancel()
    assert (await handle.wait()).status == "cancelled"
    assert attempts == [0, 1, 2]


# -- altered

ALTERED: dict[str, Any] = {
    "run": "other", "path": "[7]", "plan": "0" * 32, "node": 0, "index": 1, "state": "stopping", "attempt": -5,
    "queue": "other", "priority": 9, "turn": 3, "limits": (Rate(1, 1),), "lease_ms": 1, "due_at_ms": 2**45,
    "tally": Tally(1), "extra": (("0" * 32, 1),), "verdict": "succeeded", "kill": True, "handling": True,
    "result": b"1", "alias": ("other", ""), "error": ErrorInfo("E", "m"), "failed_at": "x", "cause": "condition",
    "claim": "c", "slot": "s", "inputs": ("other", b"[]"), "stand_in": ("other", ""), "duplicates": 1,
    "opened_at_ms": 1, "started_at_ms": 1, "ended_at_ms": 1, "base": 9, "stopped": True, "seal": None,
    "awaits": Awaits("topic", 3), "retries": (1,), "taken": (("topic", 3),), "bound": 5,
}  # fmt: skip


def test_every_field_of_a_record_is_altered_below_but_those_that_stores_move() -> None:
    assert set(ALTERED) | MOVED == set(Node.__struct_fields__)


@pytest.mark.parametrize("field", sorted(set(ALTERED) - {"run", "path", "state", "tally"}))
async def test_a_task_whose_record_was_altered_never_starts(scene: Scene, field: str) -> None:
    handle = await scene.producer.submit(Canvas.group(scene.note.s(1)))
    scene.intruder.alter((handle.id, "[0]"), **{field: ALTERED[field]})
    await scene.refused(handle.id)


@pytest.mark.parametrize("field", ["run", "path", "state", "tally"])
async def test_a_task_whose_record_became_another_never_starts(scene: Scene, field: str) -> None:
    handle = await scene.producer.submit(Canvas.group(scene.note.s(1)))
    scene.intruder.alter((handle.id, "[0]"), **{field: ALTERED[field]})
    await scene.starts_nothing()


@pytest.mark.parametrize("field", ["index", "tally", "extra", "verdict", "kill", "plan", "node", "handling", "seal"])
async def test_a_task_never_starts_below_a_scope_that_was_altered(scene: Scene, field: str) -> None:
    handle = await scene.producer.submit(Canvas.group(scene.note.s(1)))
    altered = ALTERED[field] if field != "node" else 1
    if field == "tally":
        altered = copy.copy(scene.intruder.node((handle.id, "")).tally)
        altered.size = 2
    scene.intruder.alter((handle.id, ""), **{field: altered})
    await scene.refused(handle.id)


HEADER: dict[str, Any] = {
    "run": "other", "plan": "0" * 32, "name": "n", "inputs": b'{"args":[2],"kwargs":{}}', "created_at_ms": 1,
    "claim": None, "file": "f", "tasks": ("t",), "headers": {"tenant": "other"}, "meta": {"a": 1},
    "parent": ("r", "p"), "root": "r", "rerun_of": "r", "origin": "o", "reply_to": "x", "redo": ("x",), "seal": None,
    "base": 9, "not_before_ms": 1, "labels": {"team": "pay"}, "no_cache": True,
}  # fmt: skip


@pytest.mark.parametrize("field", [name for name in Header.__struct_fields__ if name != "claim"])
async def test_a_task_never_starts_under_a_header_that_was_altered(scene: Scene, field: str) -> None:
    handle = await scene.producer.submit(scene.note.s(1))
    scene.intruder.alter_header(handle.id, **{field: HEADER[field]})
    await scene.refused(handle.id)


@pytest.mark.parametrize("change", ["args", "task", "options"])
async def test_a_task_never_starts_by_a_plan_that_was_altered(scene: Scene, change: str) -> None:
    # Given a plan in which another call, task or option was written under the same digest
    handle = await scene.producer.submit(Canvas.group(scene.note.s(1)))

    @scene.registry.task("other")
    async def other(*what: Any) -> None:
        scene.started.append("other")

    def altered(plan: Plan) -> Plan:
        root, leaf = plan.nodes
        assert isinstance(leaf, LeafPlan)
        if change == "options":
            return structs.replace(plan, options=tuple(structs.replace(one, max_retries=9) for one in plan.options))
        given = {"args": (2,)} if change == "args" else {"task": "other"}
        return structs.replace(plan, nodes=(root, structs.replace(leaf, **given)))

    scene.intruder.alter_plan((await scene.producer.library.header(handle.id)).plan, altered)
    await scene.refused(handle.id)


@pytest.mark.parametrize("change", ["value", "stripped", "other place"])
async def test_a_task_never_starts_with_an_item_that_was_altered(scene: Scene, change: str) -> None:
    handle = await scene.producer.submit(Canvas.map(scene.note.s(), ["one", "two"]))
    other = await scene.producer.submit(Canvas.map(scene.note.s(), ["three", "four"]))
    pages: list[bytes] = []
    scene.intruder.alter_page((other.id, ""), lambda page: pages.append(page) or page)
    changes: dict[str, Callable[[bytes], bytes]] = {
        "value": lambda page: page.replace(b"one", b"six"),
        "stripped": lambda page: page[page.index(b"[") :],
        "other place": lambda page: pages[0],
    }
    scene.intruder.alter_page((handle.id, ""), changes[change])
    app = await scene.worker()
    assert (await (await app.handle(handle.id)).wait()).status == "failed"
    assert "one" not in scene.started
    assert "six" not in scene.started
    assert scene.started in (["three", "four"], ["four", "three"])


async def test_a_task_never_starts_with_a_result_that_was_altered(scene: Scene) -> None:
    # Given a chain whose second task waits
    app = await scene.worker()
    handle = await app.submit(scene.note.s("good") | scene.note.with_options(countdown=60).s())
    await asyncio.sleep(1)
    assert scene.started == ["good"]

    # When the result of the first is altered in the meantime, then the second does not start
    scene.intruder.alter((handle.id, "[0]"), result=b'"evil"')
    result = await handle.wait()
    assert (result.status, result.error and result.error.type) == ("failed", "SignatureInvalid")
    assert scene.started == ["good"]


async def test_a_waiter_does_not_get_a_result_that_was_altered(scene: Scene) -> None:
    app = await scene.worker()
    handle = await app.submit(scene.note.s("good"))
    await handle.wait()
    scene.intruder.alter((handle.id, ""), result=b'"evil"')
    with pytest.raises(SignatureInvalid, match="it was altered since it was signed under key 'k1'"):
        await (await scene.producer.handle(handle.id)).wait()


async def test_a_claim_that_was_altered_gives_no_key_away(scene: Scene) -> None:
    # Given a unique task that waits for its worker, whose claim was made to look as if its holder had ended
    once = scene.note.with_options(unique=True)
    handle = await scene.producer.submit(once.s(1))
    (key,) = scene.intruder.claims()
    scene.intruder.alter_claim(key, finished=True)

    # When the same is submitted again, then the submission is refused, and nothing of it is stored
    with pytest.raises(SignatureInvalid, match=f"record {key}"):
        await scene.producer.submit(once.s(1))
    assert [info.header.run for info in await scene.producer.store.runs(10)] == [handle.id]


async def test_seals_cannot_be_exchanged(scene: Scene) -> None:
    # Given two members of one group that differ in nothing but their place
    handle = await scene.producer.submit(Canvas.group(scene.note.s(1), scene.note.s(1)))
    first, second = (scene.intruder.node((handle.id, f"[{i}]")) for i in range(2))

    # When their seals are exchanged, then neither starts
    scene.intruder.alter(first.key, seal=second.seal)
    scene.intruder.alter(second.key, seal=first.seal)
    await scene.refused(handle.id)


@pytest.mark.parametrize("seal", [b"", b"\x01", b"\x02", b"\x00\x02k1" + bytes(32), b"\x01\x02k1", b"\x01\xffk1"])
async def test_another_form_of_signature_is_refused(scene: Scene, seal: bytes) -> None:
    handle = await scene.producer.submit(scene.note.s(1))
    scene.intruder.alter((handle.id, ""), seal=seal)
    await scene.refused(handle.id)


async def test_no_other_algorithm_is_accepted(scene: Scene) -> None:
    # Given a record that says of itself that it was signed in another way, under the right key
    handle = await scene.producer.submit(scene.note.s(1))
    record = scene.intruder.node((handle.id, ""))
    assert record.seal is not None
    weak = bytes((2,)) + record.seal[1:4] + hmac.digest(K1, b"", "md5") * 2
    scene.intruder.alter((handle.id, ""), seal=weak)
    await scene.refused(handle.id)


async def test_another_namespace_with_the_same_keys_is_another_world(scene: Scene) -> None:
    handle = await scene.producer.submit(scene.note.s(1))
    app = await scene.worker(SigningKeys({"k1": K1}, "k1", namespace="staging"))
    await asyncio.sleep(A_WHILE_S)
    assert scene.started == []
    assert (await (await app.handle(handle.id)).root()).state == "failed"


# -- replayed


async def test_a_record_that_is_put_back_after_its_task_has_ended_starts_nothing(scene: Scene) -> None:
    # Given what an intruder has kept of a run: its records as they waited for a worker, with good signatures
    sig = Canvas.chain(Canvas.group(scene.note.s(1), scene.note.s(2)), scene.note.si(3))
    handle = await scene.producer.submit(sig)
    kept = {path: scene.intruder.node((handle.id, path)) for path in ("[0][0]", "[0][1]", "[0]")}
    first = await scene.worker()
    await (await first.handle(handle.id)).wait()
    assert sorted(scene.started) == [1, 2, 3]

    # When they are put back one by one, and all together, then nothing starts again
    scene.started.clear()
    for path in kept:
        scene.intruder.put((handle.id, path), kept[path])
    await scene.starts_nothing()


async def test_a_lone_task_that_is_put_back_before_the_worker_that_ran_it_starts_nothing(scene: Scene) -> None:
    handle = await scene.producer.submit(scene.note.s(1))
    kept = scene.intruder.node((handle.id, ""))
    app = await scene.worker()
    await (await app.handle(handle.id)).wait()
    scene.intruder.put((handle.id, ""), kept)
    assert app.service is not None
    app.service.slots.wake()
    await asyncio.sleep(A_WHILE_S)
    assert scene.started == [1]


async def test_a_record_that_is_copied_into_another_runs_place_starts_nothing(scene: Scene) -> None:
    # Given a run that has ended
    done = await scene.producer.submit(Canvas.group(scene.note.s("done")))
    kept = scene.intruder.node((done.id, "[0]"))
    app = await scene.worker()
    await (await app.handle(done.id)).wait()
    await app.hand_back()
    scene.started.clear()

    # When the record of its task is in the place of one that waits, then neither starts
    waiting = await scene.producer.submit(Canvas.group(scene.note.s("waiting")))
    scene.intruder.put((waiting.id, "[0]"), kept)
    await scene.starts_nothing()


async def test_submitting_a_run_again_under_its_id_starts_nothing(scene: Scene) -> None:
    app = await scene.worker()
    for _ in range(3):
        handle = await app.submit(scene.note.s(1), run_id="once")
        assert (await handle.wait()).value == 1
    assert scene.started == [1]


async def test_a_task_does_not_start_by_another_queue_than_its_own(scene: Scene) -> None:
    # Given a task for another queue, that an intruder moves into this one
    handle = await scene.producer.submit(scene.note.with_options(queue="careful").s(1))
    scene.intruder.move((handle.id, ""), "default")
    await scene.refused(handle.id, queues=("default",))


async def test_a_task_does_not_start_before_its_time(scene: Scene) -> None:
    # Given a task for later, that an intruder makes ready now
    handle = await scene.producer.submit(scene.note.with_options(countdown="60s").s(1))
    scene.intruder.alter((handle.id, ""), at_ms=0)
    app = await scene.worker()

    # When the worker takes it, then it waits all the same
    await asyncio.sleep(50)
    assert scene.started == []
    assert (await (await app.handle(handle.id)).wait()).value == 1


# -- keys and modes


@pytest.mark.parametrize("keys", [None, SigningKeys({"k2": K2}, "k2")], ids=["none", "another"])
async def test_a_worker_without_the_key_leaves_the_task_to_one_that_has_it(
    scene: Scene, keys: SigningKeys | None
) -> None:
    # Given a signed run, and a worker that cannot check it
    sig = Canvas.group(scene.note.s(1), scene.note.s(2))
    handle = await scene.producer.submit(sig)
    await scene.worker(keys)
    await asyncio.sleep(A_WHILE_S)
    assert scene.started == []
    states = {node.path: node.state for node in await handle.records() if node.path}
    assert set(states.values()) <= {"ready", "running"}

    # When one with the key comes, then the task runs, and nothing was charged to it
    await scene.worker()
    result = await handle.wait()
    assert result.value == [1, 2]
    assert sorted(scene.started) == [1, 2]
    assert [(node.attempt, node.losses) for node in await handle.records()] == [(0, 0)] * 3


async def test_a_timer_that_a_worker_without_the_key_sees_is_left_to_one_that_has_it(scene: Scene) -> None:
    # Given a task that expires before it may start, and a worker that cannot check it
    handle = await scene.producer.submit(scene.note.with_options(countdown="1d", expires="10s").s(1))
    await scene.worker(None)
    await asyncio.sleep(60)
    assert (await handle.root()).state == "ready"

    # When one with the key comes, then it expires
    await scene.worker()
    result = await handle.wait()
    assert result.error is not None
    assert result.error.type == "Expired"


async def test_a_process_without_the_key_cannot_cancel(scene: Scene) -> None:
    handle = await scene.producer.submit(scene.note.s(1))
    stranger = await scene.worker(None, worker=False)
    with pytest.raises(UnknownKey, match=r"pass it in Stemflow\(signing=SigningKeys"):
        await stranger.cancel(handle.id)
    assert (await handle.root()).state == "ready"


async def test_keys_rotate_without_a_pause(scene: Scene) -> None:
    # Given runs signed under the old key, under both, and under the new one
    old = await scene.producer.submit(scene.note.s("old"))
    both = SigningKeys({"k1": K1, "k2": K2}, "k2")
    new = await (await scene.worker(both, worker=False)).submit(scene.note.s("new"))

    # When a worker that has both keys comes, then both run, and what it writes is signed under the new one
    await scene.worker(both)
    for handle in (old, new):
        assert (await handle.wait() if handle is new else await (await scene.worker(both, worker=False)).handle(old.id))
    await asyncio.sleep(1)
    assert sorted(scene.started) == ["new", "old"]
    seal = scene.intruder.node((old.id, "")).seal
    assert seal is not None
    assert seal.startswith(b"\x01\x02k2")


async def test_what_nobody_has_signed_is_refused_where_signatures_are_required(scene: Scene) -> None:
    plain = await scene.worker(None, worker=False)
    handle = await plain.submit(scene.note.s(1))
    await scene.refused(handle.id)


async def test_what_nobody_has_signed_runs_where_signing_is_being_introduced(scene: Scene) -> None:
    # Given a run that was submitted before there were keys
    plain = await scene.worker(None, worker=False)
    handle = await plain.submit(scene.note.s(1) | scene.note.s())

    # When a worker in the mode `sign` comes, then it runs; what it writes is signed, and what was altered is refused
    sign = SigningKeys({"k1": K1}, "k1", mode="sign")
    app = await scene.worker(sign)
    assert (await (await app.handle(handle.id)).wait()).value == 1
    assert scene.intruder.node((handle.id, "")).seal is not None
    scene.started.clear()
    altered = await scene.producer.submit(Canvas.group(scene.note.with_options(countdown=60).s(1)))
    scene.intruder.alter((altered.id, "[0]"), priority=9)
    assert (await (await app.handle(altered.id)).wait()).status == "failed"
    assert scene.started == []


async def test_keys_of_the_registry_serve_an_app_that_names_none(open_app: OpenApp, registry: TaskRegistry) -> None:
    registry.signing = REQUIRED

    @registry.task("one")
    async def one() -> int:
        return 1

    app = await open_app()
    handle = await app.submit(one.s())
    assert (await handle.wait()).value == 1
    assert (await handle.root()).seal is not None


async def test_nothing_is_sealed_where_there_are_no_keys(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("one")
    async def one() -> int:
        return 1

    handle: RunHandle = await app.submit(Canvas.group(one.s()))
    await handle.wait()
    assert [node.seal for node in await handle.records()] == [None, None]


def test_keys_that_are_none_are_refused_and_no_key_is_shown() -> None:
    with pytest.raises(OptionError, match="at least 16 bytes") as caught:
        SigningKeys({"k": b"short"}, "k")
    assert "short" not in str(caught.value)
    with pytest.raises(OptionError, match="expected the active key among k, got 'other'"):
        SigningKeys({"k": K1}, "other")
    with pytest.raises(OptionError, match="mode: expected sign or required, got 'off'"):
        SigningKeys({"k": K1}, "k", mode="off")  # type: ignore[arg-type]
    assert K1.decode() not in repr(REQUIRED)


def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    trust = Trust(REQUIRED)
    header = Header(run="r", plan="p")
    assert trust.is_valid(structs.replace(header, seal=trust.seal_of(header)))
    assert len(compared) == 1


def test_a_seal_survives_being_written_and_read() -> None:
    trust = Trust(REQUIRED)
    node = Node(run="r", path="a", plan="p", node=1, state="ready", error=ErrorInfo("E", "m", data={"a": (1, 2.0)}))
    node.seal = trust.seal_of(node)
    assert trust.is_valid(wire.decode_node(wire.encode(node)))
    assert msgspec.msgpack.decode(wire.encode(node))["seal"] == node.seal
