"""`secrets` of workflow files: read by a task right before it is called, and hidden everywhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from stemflow import RunFailed, Stemflow, TaskContext, TaskRegistry, load_workflow
from stemflow.cli.run_data import run_data as shown
from stemflow.runtime.tasks.secrets import Redaction
from stemflow.store.base import Store
from tests.spec.conftest import OpenApp

VALUE = 'hunter2-"quoted"\\and-long'
FILE = """\
stemflow: "1"
name: secretive
secrets:
  token: {env: SPEC_TOKEN}
  other: {vault: kv/other}
steps:
  use:
    task: use
    args: {token: "${{ secrets.token }}", header: "Bearer ${{ secrets.token }}", mode: MODE}
    env: {OTHER: "${{ secrets.other }}"}
    unique: {key: "${{ args.token }}"}
    retry: {max: 1, backoff: {initial: 1s}}
outputs:
  result: ${{ steps.use.output }}
"""


@pytest.fixture
def seen(registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("SPEC_TOKEN", VALUE)
    seen: list[Any] = []

    @registry.secret_provider("vault")
    async def vault(key: str) -> str:
        return f"from-the-vault-{key}"

    @registry.task("use")
    async def use(context: TaskContext, token: str, header: str, mode: str) -> Any:
        seen.append((token, header, dict(context.env)))
        context.logger.warning("using %s for %s", token, mode)
        await context.progress(50, {"token": token})
        if mode == "fail":
            raise ValueError(f"refused {token} and {header!r} {context.env['OTHER']}")
        if mode == "start":
            await context.enqueue(other.s(token))
        if mode == "replace":
            context.replace(other.s({"deep": [header]}))
        return {"echo": header, token: [context.env["OTHER"]]}

    @registry.task("other")
    async def other(value: Any) -> Any:
        return value

    return seen


def loaded(folder: Path, mode: str = "ok") -> Any:
    path = folder / "secretive.yaml"
    path.write_text(FILE.replace("MODE", mode), "utf-8")
    return load_workflow(path)


def everything(store: Store, folder: Path, url: str) -> bytes:
    """All that the store holds."""
    if url.startswith("redis"):
        return b"\n".join(_values(url))
    if url.startswith("sqlite"):
        return b"".join(path.read_bytes() for path in folder.glob("spec.db*"))
    return repr(_reachable(store)).encode()


def _reachable(store: Store) -> list[Any]:
    """The texts and bytes that an object in memory leads to."""
    found: list[Any] = []
    pending: list[Any] = [vars(store)]
    done: set[int] = set()
    while pending:
        one = pending.pop()
        if id(one) in done:
            continue
        done.add(id(one))
        if isinstance(one, (str, bytes)):
            found.append(one)
        elif isinstance(one, dict):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            pending += list(one)
        elif type(one).__module__.startswith("stemflow") and not callable(one):
            names = getattr(type(one), "__struct_fields__", None) or getattr(one, "__dict__", None) or ()
            slots = (name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ()))
            pending += [getattr(one, name, None) for name in (*names, *slots)]
    return found


def _values(url: str) -> Iterator[bytes]:
    """The keys of a server and all that they hold."""
    client: Any = redis.Redis.from_url(url)
    read = {
        b"string": lambda key: [client.get(key)],
        b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": lambda key: [repr(client.xrange(key)).encode()],
    }
    for key in client.scan_iter(count=10_000):
        yield key
        yield from read[client.type(key)](key)
    client.close()


async def test_a_called_workflow_reads_its_own_secrets(
    app: Stemflow, seen: list[Any], tmp_path: Path, url: str
) -> None:
    loaded(tmp_path)
    caller = tmp_path / "caller.yaml"
    caller.write_text(
        'stemflow: "1"\nname: caller\nsteps: {call: {workflow: {ref: ./secretive.yaml}}}\n'
        'outputs: {result: "${{ steps.call.output.result }}"}\n',
        "utf-8",
    )
    assert await app.run(load_workflow(caller)) == {"result": {"echo": "Bearer ***", "***": ["***"]}}
    assert seen == [(VALUE, f"Bearer {VALUE}", {"OTHER": "from-the-vault-kv/other"})]
    assert VALUE not in everything(app.store, tmp_path, url).decode("utf-8", "replace")


async def test_an_argument_that_cannot_be_evaluated_does_not_show_the_value(
    app: Stemflow, seen: list[Any], tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secretive.yaml"
    bad = "\"${{ {'a': 1}[secrets.token] }}\""
    text = FILE.replace('"Bearer ${{ secrets.token }}"', bad).replace('    unique: {key: "${{ args.token }}"}\n', "")
    path.write_text(text, "utf-8")
    result = await (await app.submit(load_workflow(path))).wait(timeout=600)
    assert result.error is not None and "***" in result.error.message
    assert VALUE not in everything(app.store, tmp_path, url).decode("utf-8", "replace") + caplog.text
    assert seen == []


@pytest.mark.parametrize("mode", ["ok", "fail", "start", "replace"])
async def test_the_value_of_a_secret_is_only_in_the_call(
    app: Stemflow, registry: TaskRegistry, seen: list[Any], tmp_path: Path, url: str, mode: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    events: list[Any] = []
    for signal in (registry.signals.postrun, registry.signals.progress, registry.signals.failed):
        signal.connect(lambda event: events.append((event.signal, event.error, event.progress)))
    with caplog.at_level(logging.DEBUG):
        handle = await app.submit(loaded(tmp_path, mode))
        result = await handle.wait(timeout=600)
    # Then the handler had the values
    assert seen[0] == (VALUE, f"Bearer {VALUE}", {"OTHER": "from-the-vault-kv/other"})
    assert result.status == ("succeeded" if mode == "ok" else "failed")
    # And neither the store, nor logs, signals, results, errors, dead letters and what `show` prints have them
    letters = await app.dead_letters()
    texts = {
        "store": everything(app.store, tmp_path, url).decode("utf-8", "replace"),
        "logs": caplog.text,
        "events": repr(events),
        "result": repr(result),
        "letters": repr(letters),
        "show": repr(await shown(app, handle)),
    }
    hidden = Redaction([VALUE, "from-the-vault-kv/other"])
    assert [name for name, text in texts.items() if hidden.holds(text)] == []
    assert "***" in caplog.text and (mode != "ok" or "Bearer ***" in texts["show"])
    assert len(letters) == (0 if mode == "ok" else 1)
    assert {one[0] for one in events} >= {"postrun", "progress"}
    # And the store holds what is not secret
    assert "kv/other" in texts["store"] and "***" in texts["store"]


async def test_a_secret_without_a_value_fails_the_attempt_and_is_looked_for_again(
    app: Stemflow, seen: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEC_TOKEN")
    with pytest.raises(RunFailed, match=r"secrets.token: expected the environment variable SPEC_TOKEN") as caught:
        await app.run(loaded(tmp_path))
    assert caught.value.attempt == 1 and not seen


async def test_a_worker_without_the_provider_says_so(
    open_app: OpenApp, seen: list[Any], registry: TaskRegistry, tmp_path: Path
) -> None:
    del registry.secrets.providers["vault"]
    app = await open_app()
    with pytest.raises(RunFailed, match=r"expected a provider 'vault', this worker has env, file"):
        await app.run(loaded(tmp_path))


async def test_a_secret_may_be_in_a_file(
    app: Stemflow, registry: TaskRegistry, seen: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("from a file\n")
    path = tmp_path / "file.yaml"
    path.write_text(FILE.replace("{env: SPEC_TOKEN}", f"{{file: {tmp_path / 'token'}}}").replace("MODE", "ok"))
    await app.run(load_workflow(path))
    assert seen[0][0] == "from a file"


def test_a_redaction_finds_values_in_other_forms_and_at_the_ends_of_a_cut_text() -> None:
    hidden = Redaction(["one-secret", 'a "b"\nc'])
    assert hidden.text("x one-secret y a \\\"b\\\"\\nc z") == "x *** y *** z"
    assert hidden.text("cut at one-sec") == "cut at ***" and hidden.text("secret at the start") == "*** at the start"
    assert hidden.data({"one-secret": [1, "a one-secret"]}) == {"***": [1, "a ***"]}
