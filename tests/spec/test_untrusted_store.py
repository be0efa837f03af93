"""What somebody writes into the store who has no key: plain values, declarations of tasks, and JSON Schemas."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from msgspec import json

from stemflow import AesGcmEncoder, Canvas, SigningKeys, TaskPayloadEncoderRegistry, TaskRegistry, UnknownTask
from stemflow.runtime.catalog.published import KEPT_MS, TOPIC, Declaration, Declarations
from stemflow.runtime.catalog.remote_parameters import DeclaredConverter, bounded
from stemflow.runtime.payloads.encoders import encoder_of
from tests.spec.conftest import OpenApp
from tests.spec.intruder import intruder_of

KEYS = SigningKeys({"k": b"sixteen bytes or more"}, "k")


def secret(**more: Any) -> TaskPayloadEncoderRegistry:
    aes = AesGcmEncoder({"k": b"0123456789abcdef"}, "k")
    return TaskPayloadEncoderRegistry(aes, args="aes-gcm", results="aes-gcm", **more)


@pytest.mark.parametrize("accepted", [False, True])
async def test_plain_arguments_are_refused_where_values_are_encrypted_and_records_are_not_signed(
    accepted: bool, open_app: OpenApp, registry: TaskRegistry
) -> None:
    ran: list[int] = []

    @registry.task("keep")
    async def keep(n: int) -> int:
        ran.append(n)
        return n

    producer = await open_app(worker=False, encoders=secret())
    # Given a run whose arguments somebody without the key has replaced
    handle = await producer.submit(keep.s(1))
    intruder_of(producer).alter_header(handle.id, inputs=b'{"args":[666],"kwargs":{}}')
    app = await open_app(encoders=secret(accept_plain=accepted))
    result = await (await app.handle(handle.id)).wait(60)
    # Then its handler is not called, unless plain values are accepted
    assert (result.status, ran) == (("succeeded", [666]) if accepted else ("failed", []))
    if not accepted:
        assert result.error is not None and "expected one that 'aes-gcm' has written" in result.error.message
        assert [letter.reason for letter in await app.store.dead_letters()] == ["bad-arguments"]


async def test_a_plain_result_is_refused_where_values_are_encrypted(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.task("give")
    async def give(given: int) -> int:
        return 1

    app = await open_app(encoders=secret())
    handle = await app.submit(Canvas.chain(give.s(0), give.s()))
    assert (await handle.wait(60)).status == "succeeded"
    intruder_of(app).alter((handle.id, "[0]"), result=b"666")
    app.library.finished.clear()
    with pytest.raises(Exception, match="expected one that 'aes-gcm' has written"):
        await handle.value_of("[0]")


def declared(**options: Any) -> bytes:
    return json.encode(Declarations(1, {"forged": Declaration(options=options)}))


async def test_declarations_that_nobody_has_signed_are_passed_over(open_app: OpenApp, registry: TaskRegistry) -> None:
    signing, plain = await open_app(signing=KEYS, worker=False), await open_app(worker=False)
    await signing.store.put_hint(TOPIC, "zz", declared(queue="elsewhere"), KEPT_MS)
    with pytest.raises(UnknownTask):
        await signing.submit(Canvas.task("forged"))
    await plain.submit(Canvas.task("forged"))


async def test_declarations_of_a_worker_that_signs_are_accepted(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.task("known")
    async def known(n: int) -> int:
        return n

    await open_app(signing=KEYS)
    await asyncio.sleep(1)
    producer = await open_app(TaskRegistry(), signing=KEYS, worker=False)
    assert (await (await producer.submit(Canvas.task("known", 3))).wait(60)).value == 3


async def test_a_declaration_cannot_turn_encryption_off(open_app: OpenApp, registry: TaskRegistry) -> None:
    app = await open_app(encoders=secret(), worker=False)
    await app.store.put_hint(TOPIC, "zz", declared(args_encoder="json", result_encoder="json"), KEPT_MS)
    handle = await app.submit(Canvas.task("forged", x="a secret"))
    header = await app.library.header(handle.id)
    assert encoder_of(header.inputs) == "aes-gcm"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"properties": {"x": {"$ref": "#"}}, "$ref": "#"},
        {"$ref": "#/definitions/a", "definitions": {"a": {"$ref": "#/definitions/a"}}},
        {"$ref": "#/definitions/none"},
        {"type": "string", "pattern": "^(a+)+$"},
        {"patternProperties": {"^(a+)+$": {}}, "uniqueItems": True, "if": {}, "contains": {}},
        {"type": "no such type"},
        {"items": {"uniqueItems": True}},
    ],
)
def test_a_declared_schema_follows_no_reference_and_runs_no_pattern(schema: dict[str, Any]) -> None:
    began = time.process_time()
    convert = DeclaredConverter(schema).convert
    assert convert is not None
    assert convert("a" * 40 + "!") == "a" * 40 + "!"
    assert time.process_time() - began < 1
    text = json.encode(bounded(schema)).decode()
    assert "pattern" not in text and "uniqueItems" not in text and "http" not in text and "file:" not in text


def test_a_schema_without_end_is_cut() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"items": deep}
    assert DeclaredConverter(deep).convert is not None
    assert json.encode(bounded(deep)).count(b"items") <= 65
