"""Operators of a store that is signed and encrypted: what they see and can do with the keys, and without them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from stemflow import Stemflow
from stemflow.runtime.tasks.discovery import load_named
from tests.cli.world import Cli

SECRETS = """
from stemflow import AesGcmEncoder, SigningKeys, TaskPayloadEncoderRegistry, TaskRegistry

registry = TaskRegistry()
registry.signing = SigningKeys({"k": b"sixteen bytes or more"}, "k")
registry.encoders = TaskPayloadEncoderRegistry(
    AesGcmEncoder({"k": b"0123456789abcdef"}, "k"), args="aes-gcm", results="aes-gcm"
)


@registry.task("tell")
async def tell(x: int) -> str:
    return f"hidden {x}"


@registry.task("fails", max_retries=0)
async def fails() -> None:
    raise ValueError("no")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "secret_jobs.py").write_text(SECRETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def _submitted(folder: Path) -> tuple[str, str, str]:
    """Ids of a run that succeeded, of one that failed, and of one that waits for a worker."""
    registry = load_named(["secret_jobs"], folder, "test")
    tell, fails = registry.get("tell"), registry.get("fails")
    assert tell is not None and fails is not None
    async with Stemflow("sqlite:", registry) as app:
        done, failed = await app.submit(tell.s(7)), await app.submit(fails.s())
        await asyncio.gather(done.wait(30), failed.wait(30))
        waiting = await app.submit(tell.with_options(countdown="1h").s(8))
    return done.id, failed.id, waiting.id


def test_an_operator_uses_a_signed_and_encrypted_store(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, failed, waiting = asyncio.run(_submitted(folder))
    sys.modules.pop("secret_jobs", None)
    # Without keys what is not secret is shown
    shown = cli("show", done)
    assert shown.code == 0 and "tell" in shown.out and "--tasks MODULE names the registry" in shown.out
    assert "hidden" not in shown.out + shown.err
    (node,) = json.loads(cli("show", done, "--json").out)["nodes"]
    assert (node["state"], node["result"]) == ("succeeded", None)
    assert len(json.loads(cli("runs", "--json").out)) == 3
    assert [one["id"] for one in json.loads(cli("dlq", "list", "--json").out)] == [failed]
    assert "ValueError: no" in cli("dlq", "show", failed).out
    # And what is signed cannot be changed; the message says how
    for words in (("cancel", waiting), ("dlq", "replay", failed, "--allow-unknown")):
        ran = cli(*words)
        assert ran.code == 3 and "--tasks MODULE, whose registry has it" in ran.err, (words, ran)
    # With the keys of the registry all of it works
    assert '= "hidden 7"' in cli("show", done, "--tasks", "secret_jobs").out
    assert cli("dlq", "replay", failed, "--tasks", "secret_jobs.py").code == 0
    monkeypatch.setenv("STEMFLOW_TASKS", "secret_jobs")
    assert f"run {waiting} is cancelled" in cli("cancel", waiting).err
    assert json.loads(cli("show", done, "--json").out)["outputs"] == "hidden 7"
