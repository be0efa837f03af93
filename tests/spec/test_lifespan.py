"""`registry.lifespan`, `registry.thread_cleanup` and the signal `registered`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stemflow import OptionError, Stemflow, SyncTaskContext, TaskContext, TaskRegistry
from stemflow.runtime.tasks.discovery import find_tasks
from stemflow.testing import context_for
from tests.spec.conftest import OpenApp


async def test_a_worker_enters_its_lifespan_before_the_first_lease_and_leaves_it_after_the_last_report(
    registry: TaskRegistry
) -> None:
    seen: list[Any] = []

    @registry.lifespan
    async def database() -> AsyncIterator[dict[str, Any]]:
        seen.append("entered")
        yield {"pool": 42}
        seen.append("left")

    @registry.task("use")
    async def use(context: TaskContext) -> int:
        seen.append(context.state)
        await asyncio.sleep(0)
        seen.append("used")
        return int(context.state["pool"])

    registry.signals.worker_init.connect(lambda event: seen.append("init"))
    registry.signals.worker_shutdown.connect(lambda event: seen.append("shutdown"))
    engine = Stemflow("memory:", registry)
    for _ in range(2):  # an engine that is opened again enters it again
        seen.clear()
        async with engine as app:
            assert await app.run(use.s()) == 42
        assert seen == ["entered", "init", {"pool": 42}, "used", "left", "shutdown"]
    async with Stemflow("memory:", registry, worker=False):
        assert seen.count("entered") == 1  # a mere producer does not


async def test_a_lifespan_that_raises_lets_the_engine_not_open(registry: TaskRegistry) -> None:
    @registry.lifespan
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    engine = Stemflow("memory:", registry)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="no database"):
            await engine.__aenter__()


async def test_a_lifespan_that_raises_when_it_is_left_is_logged(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    @registry.lifespan
    async def broken() -> AsyncIterator[None]:
        yield
        raise ConnectionError("gone")

    errors: list[Any] = []
    registry.signals.worker_error.connect(lambda event: errors.append(event.error.type))
    async with Stemflow("memory:", registry):
        pass
    assert errors == ["ConnectionError"]
    assert "a lifespan raised when it was left" in caplog.text


async def test_a_class_and_a_copied_registry(open_app: OpenApp, registry: TaskRegistry) -> None:
    @registry.lifespan
    class Connection:
        async def __aenter__(self) -> str:
            return "connected"

        async def __aexit__(self, *error: object) -> None: ...

    @registry.task("state")
    async def state(context: TaskContext) -> Any:
        return context.state

    app = await open_app(registry.copy())
    assert await app.run(state.s()) == "connected"
    context = context_for(state, state={"pool": 1})
    assert await state(context) == {"pool": 1}


def test_what_is_no_lifespan_is_refused(registry: TaskRegistry) -> None:
    async def lifespan() -> AsyncIterator[None]:
        yield

    def plain() -> Iterator[None]:
        yield

    def returns() -> None: ...

    registry.lifespan(lifespan)
    registry.lifespan(plain)
    for again, kind in ((lifespan, "async"), (plain, "plain")):
        with pytest.raises(OptionError, match=f"expected one {kind} lifespan"):
            registry.lifespan(again)
    with pytest.raises(OptionError, match="expected a function with one `yield`"):
        registry.lifespan(returns)
    with pytest.raises(OptionError, match="expected a plain function"):
        registry.thread_cleanup(asyncio.sleep)


async def test_lifespans_of_several_modules_give_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / f"life_{name}.py").write_text(
            "from stemflow import TaskContext, TaskRegistry\n"
            "registry = TaskRegistry()\n"
            f"@registry.lifespan\nasync def life():\n    yield {{'{name}': 1}}\n"
            f"@registry.task('{name}')\nasync def task(context: TaskContext): return dict(context.state)\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    registry = find_tasks(["life_one", "life_two"], None)
    async with Stemflow("memory:", registry) as app:
        for name in ("one", "two"):
            task = registry.get(name)
            assert task is not None
            assert await app.run(task.s()) == {"one": 1, "two": 1}


async def test_a_thread_is_cleaned_up_after_each_plain_function(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    @registry.thread_cleanup
    def broken() -> None:
        raise ValueError("not mine")

    @registry.thread_cleanup
    def close_connections() -> None:
        seen.append("cleaned up")

    @registry.task("plain", max_retries=0)
    def plain(context: SyncTaskContext, fails: bool) -> None:
        seen.append("ran")
        if fails:
            raise ValueError("failed")

    @registry.task("async")
    async def on_loop() -> None:
        seen.append("on the loop")

    async with Stemflow("memory:", registry) as app:
        for call in (plain.s(False), plain.s(True), on_loop.s()):
            await (await app.submit(call)).wait()
    assert seen == ["ran", "cleaned up", "ran", "cleaned up", "on the loop"]
    assert caplog.text.count("the thread clean-up") == 2


def test_a_signal_is_sent_when_a_task_is_registered(registry: TaskRegistry) -> None:
    seen: list[str] = []
    registry.signals.registered.connect(lambda event: seen.append(f"{event.signal} {event.task}"))

    @registry.signals.registered.connect
    async def no_loop_runs(event: object) -> None: ...

    @registry.task("a")
    async def a() -> None: ...

    registry.register(a, override=True)
    assert seen == ["registered a"] * 2
