"""Payload encoders: how arguments and results are stored, and that no path goes round them."""

from __future__ import annotations

import gzip
import zlib
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemflow import (
    AesGcmEncoder,
    BadPayload,
    Canvas,
    GzipEncoder,
    JsonEncoder,
    OptionError,
    RunFailed,
    Stemflow,
    TaskContext,
    TaskPayloadEncoder,
    TaskPayloadEncoderRegistry,
    TaskRegistry,
    UnknownEncoder,
)
from stemflow.dsl import parse_workflow
from stemflow.model import wire
from stemflow.runtime.payloads import json_data as payload
from stemflow.runtime.payloads.encoders import encoder_of

if TYPE_CHECKING:
    from tests.spec.conftest import OpenApp

KEY_1, KEY_2 = b"1" * 32, b"2" * 32
SECRET = "4929-1234-5678"


class DateEncoder(TaskPayloadEncoder):
    """Knows a type that JSON does not."""

    id = "dates"

    def encode(self, value: Any) -> bytes:
        return repr(value).encode()

    def decode(self, encoded: bytes) -> Any:
        return eval(encoded, {"datetime": __import__("datetime")})


class Stamp(TaskPayloadEncoder):
    """Marks what went through it."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.written: list[Any] = []
        self.read: list[Any] = []

    def encode(self, value: Any) -> bytes:
        self.written.append(value)
        return self.id.encode() + payload.encode(value, "value")

    def decode(self, encoded: bytes) -> Any:
        assert encoded.startswith(self.id.encode())
        value = payload.decode(encoded[len(self.id) :])
        self.read.append(value)
        return value


def aes(active: str = "k1", **keys: bytes) -> AesGcmEncoder:
    return AesGcmEncoder(keys or {"k1": KEY_1}, active)


def secret() -> TaskPayloadEncoderRegistry:
    """Everything is encrypted."""
    return TaskPayloadEncoderRegistry(aes(), args="aes-gcm", results="aes-gcm")


PACKED = AesGcmEncoder({"k": KEY_1}, "k", GzipEncoder())


async def everything_stored(app: Stemflow, run: str) -> bytes:
    """All bytes that a store keeps of a run."""
    header = await app.store.header(run)
    assert header is not None
    nodes = await app.store.nodes(run)
    plans = [await app.store.plan(digest) for digest in {header.plan, *(node.plan for node in nodes)}]
    pages = [await app.store.page(node.key, 0) or b"" for node in nodes]
    return b"\n".join([*map(wire.encode, (header, *nodes, *plans)), *pages])


# -- where encoders come from


async def test_json_is_the_default_and_is_stored_without_a_name(app: Stemflow, registry: TaskRegistry) -> None:
    # Given a task without a word about encoders
    @registry.task("twice")
    async def twice(x: int) -> dict[str, int]:
        return {"x": 2 * x}

    # When it has run, then its argument and its result are plain JSON
    handle = await app.submit(twice.s(4))
    assert (await handle.wait()).value == {"x": 8}
    assert (await app.library.header(handle.id)).inputs == b'{"args":[4],"kwargs":{}}'
    assert (await handle.root()).result == b'{"x":8}'


async def test_the_apps_encoders_write_the_arguments_and_results_of_every_task(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given an app with an encoder for arguments and one for results
    args, results = Stamp("in"), Stamp("out")
    app = await open_app(encoders=TaskPayloadEncoderRegistry(args, results, args="in", results="out"))

    @registry.task("twice")
    async def twice(x: int) -> int:
        return 2 * x

    # When a task has run
    handle = await app.submit(twice.s(4))
    assert (await handle.wait()).value == 8

    # Then each of them wrote and read what is its own
    assert args.written == [{"args": [4], "kwargs": {}}]
    assert args.read == args.written
    assert results.written == [8]
    assert results.read == [8]


async def test_a_task_may_name_its_own_encoders(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given a task with encoders of its own next to one without
    app = await open_app(encoders=TaskPayloadEncoderRegistry(Stamp("in"), Stamp("out")))

    @registry.task("own", args_encoder="in", result_encoder="out")
    async def own(x: int) -> int:
        return x

    @registry.task("plain")
    async def plain(x: int) -> int:
        return x

    # When both have run, then only what is of the first was written by them
    a, b = await app.submit(own.s(1)), await app.submit(plain.s(1))
    await a.wait()
    await b.wait()
    ids = [(encoder_of((await app.library.header(h.id)).inputs), encoder_of((await h.root()).result)) for h in (a, b)]
    assert ids == [("in", "out"), ("json", "json")]


async def test_a_handler_can_read_the_encoders_of_its_payload(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given tasks with encoders of their own, alone and in a canvas, next to one without
    app = await open_app(encoders=TaskPayloadEncoderRegistry(Stamp("in"), Stamp("out")))
    told: list[Any] = []

    @registry.task("own", args_encoder="in", result_encoder="out")
    async def own(context: TaskContext, x: int) -> int:
        told.append((dict(context.headers), dict(context.meta)))
        return x

    @registry.task("plain")
    async def plain(context: TaskContext, x: int) -> int:
        told.append((dict(context.headers), dict(context.meta)))
        return x

    # When they run, then the first finds the ids in its headers and meta, and the second finds nothing
    await app.run(own.s(1))
    await app.run(own.s(1) | plain.s())
    own_ids = ({"stem-args-encoder": "in"}, {"__stemArgsEncoder": "in", "__stemResultEncoder": "out"})
    assert told == [own_ids, own_ids, ({}, {})]


async def test_an_encoder_named_at_the_call_wins(open_app: OpenApp, registry: TaskRegistry) -> None:
    app = await open_app(encoders=TaskPayloadEncoderRegistry(Stamp("in"), Stamp("out"), results="out"))

    @registry.task("plain", result_encoder="in")
    async def plain(x: int) -> int:
        return x

    handle = await app.submit(plain.with_options(result_encoder="json").s(1))
    await handle.wait()
    assert encoder_of((await handle.root()).result) == "json"


async def test_encoders_of_the_registry_serve_an_app_that_names_none(open_app: OpenApp, registry: TaskRegistry) -> None:
    registry.encoders = TaskPayloadEncoderRegistry(GzipEncoder(), results="gzip")

    @registry.task("text")
    async def text() -> str:
        return "a" * 100

    app = await open_app()
    handle = await app.submit(text.s())
    assert (await handle.wait()).value == "a" * 100
    assert encoder_of((await handle.root()).result) == "gzip"


@pytest.mark.parametrize("settings", [{"args": "nope"}, {"results": "nope"}])
def test_a_default_that_is_not_registered_is_refused_with_those_that_are(settings: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="there is no encoder 'nope'; known are gzip, json"):
        TaskPayloadEncoderRegistry(GzipEncoder(), **settings)


def test_two_encoders_cannot_have_one_id() -> None:
    with pytest.raises(OptionError, match="'gzip' is registered already"):
        TaskPayloadEncoderRegistry(GzipEncoder(), GzipEncoder())
    with pytest.raises(OptionError, match="'json' is registered already"):
        TaskPayloadEncoderRegistry(JsonEncoder())


# -- through the canvas


async def test_an_upstream_result_is_decoded_by_its_own_encoder(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given a chord whose header has members with three encoders, and a callback with a fourth for its arguments
    a, b, c = Stamp("a"), Stamp("b"), Stamp("c")
    app = await open_app(encoders=TaskPayloadEncoderRegistry(a, b, c))

    def member(encoder: str) -> Any:
        @registry.task(f"member.{encoder}", result_encoder=encoder)
        async def member(x: int) -> int:
            return x

        return member

    @registry.task("total", args_encoder="c", result_encoder="c")
    async def total(numbers: list[int], extra: int) -> int:
        return sum(numbers) + extra

    @registry.task("next", args_encoder="b")
    async def following(x: int) -> int:
        return x + 1

    # When it runs
    header = Canvas.group(member("a").s(1), member("b").s(2), member("json").s(3))
    value = await app.run(Canvas.chord(header, total.s(10)) | following.s())

    # Then each result was read by the encoder that wrote it, and literal arguments by that of their task
    assert value == 17
    assert (a.written, a.read) == ([1], [1])
    assert (b.written, b.read) == ([2], [2])
    assert c.written == [{"args": [10], "kwargs": {}}, 16]
    assert c.read == c.written


def tasks_of(registry: TaskRegistry) -> Any:
    @registry.task("keep", max_retries=0)
    async def keep(x: Any, *more: Any) -> Any:
        return x

    return keep


@pytest.mark.parametrize("shape", ["lone", "chain", "group", "chord", "map", "starmap", "chunks", "hook", "nested map"])
async def test_no_shape_of_a_canvas_stores_an_argument_or_a_result_in_the_clear(
    open_app: OpenApp, registry: TaskRegistry, shape: str
) -> None:
    # Given an app that encrypts everything
    app = await open_app(encoders=secret())
    keep = tasks_of(registry)
    sig = {
        "lone": keep.s(SECRET),
        "chain": keep.s(SECRET) | keep.s() | keep.si(SECRET),
        "group": Canvas.group(keep.s(SECRET), keep.s(SECRET)),
        "chord": Canvas.chord([keep.s(SECRET)], keep.s(SECRET)),
        "map": Canvas.map(keep.s(), [SECRET, SECRET]),
        "starmap": Canvas.starmap(keep.s(), [(SECRET, 1)]),
        "chunks": Canvas.chunks(keep.s(), [(SECRET,)] * 3, 2),
        "hook": keep.s(1).on_success(keep.si(SECRET)),
        "nested map": Canvas.map(keep.s() | Canvas.map(keep.si(1), [SECRET]), [1]),
    }[shape]

    # When it has run, then its values are right, and the secret is nowhere in what is stored
    handle = await app.submit(sig)
    result = await handle.wait()
    assert result.status == "succeeded"
    found = await everything_stored(app, handle.id)
    assert SECRET.encode() not in found
    assert b"aes-gcm" in found


async def test_what_a_task_adds_or_is_replaced_by_is_encoded_too(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given tasks that add members and are replaced, under encryption
    app = await open_app(encoders=secret())
    keep = tasks_of(registry)

    @registry.task("adds")
    async def adds(context: TaskContext) -> int:
        await context.add_to_group(keep.s(SECRET))
        await context.add_to_group(Canvas.map(keep.s(), [SECRET, 2]))
        return 1

    @registry.task("replaced")
    async def replaced(context: TaskContext) -> None:
        await context.replace(keep.s(SECRET) | keep.s())

    # When they have run, then all is read again, and the secret is nowhere
    handle = await app.submit(Canvas.group(adds.s(), replaced.s()))
    assert (await handle.wait()).value == [1, SECRET, SECRET, [SECRET, 2]]
    assert SECRET.encode() not in await everything_stored(app, handle.id)


async def test_inputs_items_and_outputs_of_a_workflow_file_are_encoded(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given a workflow that maps over its input
    app = await open_app(encoders=secret())
    tasks_of(registry)
    parsed = parse_workflow(
        """
stemflow: "1"
name: cards
inputs:
  cards: {type: array}
steps:
  each:
    map:
      items: inputs.cards
      as: card
      do: {task: keep, args: {x: "${{ card }}"}}
outputs:
  first: "${{ steps.each.output[0] }}"
""",
        "cards.yaml",
    )
    assert parsed.workflow is not None, parsed

    # When it has run, then the outputs are right, and the secret is nowhere
    handle = await app.submit(parsed.workflow, inputs={"cards": [SECRET, "x"]})
    assert (await handle.wait()).value == {"first": SECRET}
    assert SECRET.encode() not in await everything_stored(app, handle.id)


async def test_items_of_a_map_are_written_by_the_encoder_of_the_task_that_they_go_to(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    app = await open_app(encoders=TaskPayloadEncoderRegistry(aes()))

    @registry.task("charge", args_encoder="aes-gcm")
    async def charge(card: str) -> int:
        return len(card)

    handle = await app.submit(Canvas.map(charge.s(), [SECRET]))
    assert (await handle.wait()).value == [len(SECRET)]
    assert SECRET.encode() not in await everything_stored(app, handle.id)


async def test_a_rerun_reads_the_values_that_it_keeps(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given a run under encryption that failed in its last step, and its rerun that failed again
    app = await open_app(encoders=secret())
    keep, fails = tasks_of(registry), [True, True, False]

    @registry.task("last")
    async def last(x: str, more: str) -> str:
        if fails.pop(0):
            raise ValueError("not yet")
        return x + more

    sig = keep.s(SECRET) | Canvas.map(keep.s(), ["1", "2"]) | keep.si("b") | last.s("c")
    first = await app.submit(sig)
    assert (await first.wait()).status == "failed"
    second = await app.rerun(first.id, failed=True)
    assert (await second.wait()).status == "failed"

    # When the rerun of the rerun ends well, then it has read what the first run wrote
    third = await app.rerun(second.id, failed=True)
    assert (await third.wait()).value == "bc"
    assert await third.value_of("[0]") == SECRET
    assert await third.value_of("[1]") == ["1", "2"]


async def test_values_that_json_has_not_travel_through_an_encoder_that_has_them(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    # Given tasks whose arguments and results are dates
    app = await open_app(encoders=TaskPayloadEncoderRegistry(DateEncoder(), args="dates", results="dates"))

    @registry.task("later")
    async def later(day: date, days: int) -> date:
        return date.fromordinal(day.toordinal() + days)

    # When they are chained and mapped, then dates arrive
    day = date(2024, 2, 28)
    assert await app.run(later.s(day, 1) | later.s(1)) == date(2024, 3, 1)
    assert await app.run(Canvas.map(later.s(2), [day])) == [date(2024, 3, 1)]
    assert await app.run(later.s(day, days=2)) == date(2024, 3, 1)


# -- what is not known, or not readable


async def test_an_unknown_encoder_of_arguments_is_refused_at_submit(app: Stemflow, registry: TaskRegistry) -> None:
    @registry.task("own", args_encoder="nope")
    async def own(x: int) -> int:
        return x

    for sig in (own.s(1), own.s(1) | own.s(), Canvas.map(own.s(), [1])):
        with pytest.raises(UnknownEncoder, match=r"expected an encoder that is known here \(json\), got 'nope'"):
            await app.submit(sig)
    assert await app.store.runs(10) == []


@pytest.mark.parametrize("shape", ["lone", "chain", "map"])
async def test_arguments_by_an_encoder_that_the_worker_lacks_fail_the_task_with_a_dead_letter(
    open_app: OpenApp, registry: TaskRegistry, shape: str
) -> None:
    # Given a producer with an encoder that the worker does not have
    producer = await open_app(worker=False, encoders=TaskPayloadEncoderRegistry(GzipEncoder(), args="gzip"))
    ran: list[Any] = []

    @registry.task("note", max_retries=5)
    async def note(*x: Any) -> None:
        ran.append(x)

    sig = {"lone": note.s(1), "chain": note.s(1) | note.s(2), "map": Canvas.map(note.s(), [1])}[shape]
    handle = await producer.submit(sig)

    # When the worker comes, then nothing runs, nothing is tried again, and the operator is given the reason
    app = await open_app()
    result = await (await app.handle(handle.id)).wait()
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.type == "UnknownEncoder"
    assert "got 'gzip'" in result.error.message
    assert result.attempt == 0
    assert ran == []
    assert [letter.reason for letter in await app.store.dead_letters(handle.id)] == ["unknown-encoder"]


async def test_a_result_encoder_that_the_worker_lacks_fails_the_task_before_it_starts(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    app = await open_app()
    ran: list[int] = []

    @registry.task("note", result_encoder="nope", max_retries=5)
    async def note() -> None:
        ran.append(1)

    handle = await app.submit(note.s())
    result = await handle.wait()
    assert (result.status, result.error and result.error.type, ran) == ("failed", "UnknownEncoder", [])
    assert [letter.reason for letter in await app.store.dead_letters()] == ["unknown-encoder"]


@pytest.mark.parametrize("gate", ["items", "when", "outputs"])
async def test_a_gate_over_a_value_that_cannot_be_read_here_fails_its_node_and_the_run_ends(
    open_app: OpenApp, registry: TaskRegistry, gate: str
) -> None:
    # Given a run whose input no process that goes on with it can read
    rest = {
        "items": "  next: {needs: [first], map: {items: inputs.x, as: i, do: {task: note}}}",
        "when": "  next: {needs: [first], task: note, when: 'inputs.x == 1'}",
        "outputs": 'outputs: {x: "${{ inputs.x }}"}',
    }[gate]
    head = "stemflow: '1'\nname: w\ninputs:\n  x: {type: array}\nsteps:\n  first: {task: first}\n"
    parsed = parse_workflow(head + rest, "w.yaml")
    assert parsed.workflow is not None, parsed
    producer = await open_app(worker=False, encoders=TaskPayloadEncoderRegistry(GzipEncoder(), args="gzip"))
    ran: list[int] = []

    @registry.task("first", queue="f")
    async def first() -> None: ...

    @registry.task("note", queue="wide")
    async def note(*x: Any) -> None:
        ran.append(1)

    handle = await producer.submit(parsed.workflow, inputs={"x": [1]})

    # When a worker without the encoder goes on with it, then it ends, failed for that reason, with a dead letter
    app = await open_app()
    result = await (await app.handle(handle.id)).wait()
    assert (result.status, result.error and result.error.type, ran) == ("failed", "UnknownEncoder", [])
    (letter,) = await app.store.dead_letters()
    assert (letter.reason, letter.attempts) == ("unknown-encoder", 0)
    # In the queue of the task, or of the first task in the composite
    assert letter.queue == ("f" if gate == "outputs" else "wide")


async def test_arguments_that_were_damaged_in_the_store_fail_the_task_as_bad_arguments(
    open_app: OpenApp, registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a submission whose compressed arguments are cut off on the way
    monkeypatch.setattr(GzipEncoder, "encode", lambda self, value: gzip.compress(b"[1]")[:-3])
    app = await open_app(encoders=TaskPayloadEncoderRegistry(GzipEncoder(), args="gzip"))
    ran: list[int] = []

    @registry.task("note", max_retries=5)
    async def note(x: int) -> None:
        ran.append(x)

    # When the worker reads them, then the task fails at once
    handle = await app.submit(note.s(1))
    result = await handle.wait()
    assert (result.status, result.error and result.error.type, ran) == ("failed", "BadPayload", [])
    assert [letter.reason for letter in await app.store.dead_letters()] == ["bad-arguments"]


async def test_a_result_that_the_encoder_cannot_write_fails_the_task_once(
    open_app: OpenApp, registry: TaskRegistry
) -> None:
    app = await open_app(encoders=TaskPayloadEncoderRegistry(GzipEncoder(), results="gzip"))

    @registry.task("odd", max_retries=5)
    async def odd() -> Any:
        return {"a": [1, {2}]}

    with pytest.raises(RunFailed, match=r"result of odd: value\.a\[1\]: expected a JSON value, got set") as caught:
        await app.run(odd.s())
    assert caught.value.attempt == 0


# -- gzip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("encoder", [JsonEncoder(), GzipEncoder(), aes(), PACKED], ids=["json", "gzip", "aes", "both"])
def test_what_is_written_is_read_again(encoder: TaskPayloadEncoder, value: Any) -> None:
    registry = TaskPayloadEncoderRegistry()
    registry._encoders[encoder.id] = encoder
    stored = registry.writer(encoder.id, "place")(value, "value")
    assert registry.read(stored, "place") == value
    assert encoder_of(stored) == encoder.id


def test_gzip_makes_what_repeats_smaller() -> None:
    value = [{"name": f"item {i}", "price": 100} for i in range(1_000)]
    assert len(GzipEncoder().encode(value)) < len(JsonEncoder().encode(value)) / 5


def test_a_value_that_its_reader_would_take_for_a_bomb_is_stored_without_compression() -> None:
    encoder = GzipEncoder()
    value = "a" * 1_000_000
    encoded = encoder.encode(value)
    assert len(encoded) > 1_000_000
    assert encoder.decode(encoded) == value


def test_a_bomb_is_refused_while_it_expands() -> None:
    # Given 200 MB of zeros in 200 KB, and the same packed twice
    bomb = b"".join(_zeros(200 * 1_048_576))
    nested = gzip.compress(bomb)

    # When they are read, then no more is expanded than is allowed
    for encoded, encoder in [
        (bomb, GzipEncoder()),
        (bomb, GzipEncoder(max_ratio=10_000)),
        (nested, GzipEncoder()),
    ]:
        with pytest.raises((BadPayload, Exception)) as caught:
            encoder.decode(encoded)
        assert "expected" in str(caught.value) or "JSON" in str(caught.value)
    with pytest.raises(BadPayload, match="expected at most 16777216 bytes from 2"):
        GzipEncoder(max_ratio=10_000).decode(bomb)


def _zeros(count: int) -> Any:
    writer = zlib.compressobj(9, wbits=31)
    block = b"0" * 1_048_576
    for _ in range(count // len(block)):
        yield writer.compress(block)
    yield writer.flush()


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b + b])
def test_a_stream_that_is_cut_off_or_followed_by_something_is_refused(change: Any) -> None:
    with pytest.raises(BadPayload, match="expected one whole stream"):
        GzipEncoder().decode(change(GzipEncoder().encode([1, 2, 3])))


async def test_the_limit_of_a_payload_is_that_of_what_is_stored(open_app: OpenApp, registry: TaskRegistry) -> None:
    # Given 4 MB of text that compresses well
    app = await open_app(encoders=TaskPayloadEncoderRegistry(GzipEncoder()))
    text = "".join(f"line {i}\n" for i in range(300_000))

    @registry.task("big")
    async def big(x: str) -> str:
        return x

    # When it is passed through JSON it is refused with size and limit; compressed it is not
    with pytest.raises(payload.NotSerializable, match=r"expected at most 1048576 bytes, got \d+"):
        await app.submit(big.s(text))
    assert await app.run(big.with_options(args_encoder="gzip", result_encoder="gzip").s(text)) == text


# -- AES-GCM


def test_keys_rotate_with_all_reading_and_one_writing() -> None:
    # Given what was written under the old key
    old = aes("k1", k1=KEY_1)
    written = old.at("p").encode("v")

    # When the new key is added everywhere, and then made the active one
    both, new = aes("k1", k1=KEY_1, k2=KEY_2), aes("k2", k1=KEY_1, k2=KEY_2)

    # Then each reads what the other wrote, and only those without the new key do not read the new
    assert both.at("p").decode(written) == new.at("p").decode(written) == "v"
    assert both.at("p").decode(new.at("p").encode("w")) == "w"
    with pytest.raises(UnknownEncoder, match="expected a key among k1, got 'k2'"):
        old.at("p").decode(new.at("p").encode("w"))


@pytest.mark.parametrize("place", ["run2/a: result", "run1/b: result", "run1/a: inputs"])
def test_a_ciphertext_that_was_moved_to_another_run_node_or_kind_cannot_be_read(place: str) -> None:
    encoded = aes().at("run1/a: result").encode("v")
    with pytest.raises(BadPayload, match="altered, moved"):
        aes().at(place).decode(encoded)


def test_every_altered_byte_is_noticed() -> None:
    encoded = aes().at("p").encode("v")
    for i in range(len(encoded)):
        with pytest.raises((BadPayload, UnknownEncoder)):
            aes().at("p").decode(encoded[:i] + bytes((encoded[i] ^ 1,)) + encoded[i + 1 :])


def test_one_value_is_never_written_the_same_way_twice() -> None:
    assert len({aes().encode("v") for _ in range(100)}) == 100


def test_a_key_that_is_none_is_refused_and_no_key_is_shown() -> None:
    with pytest.raises(OptionError, match="expected 16, 24 or 32 bytes") as caught:
        AesGcmEncoder({"k": b"too short"}, "k")
    assert "too short" not in str(caught.value)
    with pytest.raises(OptionError, match="expected the active key among k, got other"):
        AesGcmEncoder({"k": KEY_1}, "other")
    assert KEY_1.decode() not in repr(aes())
