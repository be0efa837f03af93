"""`isolation="process"`: handlers in processes of their own, which can be killed and may die."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stemflow import Canvas, OptionError, Processes, RunHandle, Stemflow, TaskRegistry
from tests.runtime import process_tasks as tasks

PATIENCE_S = 60


@pytest.fixture
async def app() -> AsyncIterator[Stemflow]:
    async with Stemflow("memory:", tasks.registry, concurrency=8, processes=Processes(size=2)) as app:
        yield app


async def ended(app: Stemflow, signature: Any, **given: Any) -> Any:
    """The result; a run that has not ended in time is reported with its state."""
    handle = await app.submit(signature, **given)
    result = await handle.wait(PATIENCE_S)
    assert not result.timed_out, [(n.path, n.state, n.attempt, n.losses) for n in await handle.records()]
    return result


async def begun(app: Stemflow, signature: Any) -> RunHandle:
    """Submit, and wait until its handler has reported progress."""
    handle = await app.submit(signature)
    async with asyncio.timeout(PATIENCE_S):
        while not await app.store.hints(f"run:{handle.id}"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return handle


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def until_dead(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while lives(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# -- where it runs


async def test_a_handler_runs_on_the_main_thread_of_a_process_that_is_used_again(app: Stemflow) -> None:
    first = (await ended(app, tasks.where.s("a", 1))).value
    second = (await ended(app, tasks.where_async.s("b"))).value
    pid, group, on_main, *rest = first
    assert pid != os.getpid()
    assert (group, on_main, rest) == (pid, True, ["a", 1])
    assert second == [pid, "b"]


@pytest.mark.parametrize(
    ("task", "isolation", "place"),
    [
        (tasks.place_plain, "auto", "another thread"),
        (tasks.place_plain, "thread", "another thread"),
        (tasks.place_plain, "process", "another process"),
        (tasks.place_async, "auto", "the loop"),
        (tasks.place_async, "async", "the loop"),
        (tasks.place_async, "process", "another process"),
    ],
)
async def test_where_a_handler_runs_is_what_its_isolation_says(
    app: Stemflow, task: Any, isolation: str, place: str
) -> None:
    pid, thread = (await ended(app, task.with_options(isolation=isolation).s())).value
    here = {(os.getpid(), threading.get_ident()): "the loop"}.get((pid, thread), "another thread")
    assert (here if pid == os.getpid() else "another process") == place


async def test_a_pool_has_so_many_processes_and_no_more(app: Stemflow) -> None:
    results = (await ended(app, Canvas.map(tasks.where.s(), range(20)))).value
    assert len({result[0] for result in results}) <= 2
    assert [result[-1] for result in results] == list(range(20))


async def test_arguments_are_converted_in_the_process_and_results_come_back_as_data(app: Stemflow) -> None:
    assert (await ended(app, tasks.mirrored.s({"x": 1, "y": 2}))).raw == {"x": 2, "y": 1}
    assert (await ended(app, tasks.doubled.call(tasks.Point(1, 2)))).value == 6
    assert (await ended(app, Canvas.chunks(tasks.where.s(), [1, 2, 3], size=2))).status == "succeeded"


@pytest.mark.parametrize("task", [tasks.asks, tasks.asks_async], ids=["plain", "async"])
async def test_the_context_works_across_the_pipe(app: Stemflow, task: Any) -> None:
    handle = await app.submit(Canvas.group(task.s()), headers={"tenant": "t1"})
    result = await handle.wait(PATIENCE_S)
    assert result.status == "succeeded", result.error
    asked, added = result.value
    assert added == 7
    assert (asked["id"], asked["attempt"], asked["headers"]) == (f"{handle.id}/[0]", 0, {"tenant": "t1"})
    assert (await (await app.handle(asked["run"])).wait(PATIENCE_S)).value == 3
    (note,) = (await app.store.hints(f"run:{handle.id}")).values()
    assert b'"half":true' in note


async def test_a_handler_in_a_process_retries_and_replaces_itself(app: Stemflow) -> None:
    assert (await ended(app, Canvas.chain(tasks.restless.s()))).value == 42


@pytest.mark.parametrize(
    ("how", "status", "kind"),
    [
        ("ValueError", "failed", "ValueError"),
        ("Reject", "failed", "Reject"),
        ("Ignore", "skipped", None),
        ("SystemExit", "failed", "SystemExit"),
        ("CancelledError", "failed", "CancelledError"),
        ("set", "failed", "NotSerializable"),
    ],
)
async def test_what_a_handler_raises_in_a_process_ends_its_attempt(
    app: Stemflow, how: str, status: str, kind: str | None
) -> None:
    result = await ended(app, tasks.raises.s(how))
    assert (result.status, result.error and result.error.type) == (status, kind)


async def test_a_strategy_is_asked_in_the_process_with_the_error_itself(app: Stemflow) -> None:
    assert (await ended(app, tasks.refused.s(503, 503))).value == 2
    result = await ended(app, tasks.refused.s(503, 404, 503))
    assert (result.status, result.attempt, result.error.message) == ("failed", 1, "refused with 404")


async def test_the_middleware_of_the_registry_wraps_the_call_in_the_process() -> None:
    async with Stemflow("memory:", tasks.watched) as app:
        for task in (tasks.watched_plain, tasks.watched_async):
            assert (await ended(app, task.s(21))).value == 42


async def test_what_a_handler_prints_goes_to_standard_error(app: Stemflow, capfd: pytest.CaptureFixture[str]) -> None:
    assert (await ended(app, tasks.prints.s())).status == "succeeded"
    await app.hand_back()
    out, err = capfd.readouterr()
    assert "a process prints" in err
    assert out == ""


PROGRAM = """
import asyncio
import sys
from stemflow import Stemflow, TaskRegistry

registry = TaskRegistry()


@registry.task("here", isolation="process")
def here() -> str:
    return __name__


async def main() -> None:
    async with Stemflow("memory:", registry) as app:
        print(await app.run(here.s()))


{start}
"""


@pytest.mark.parametrize("guarded", [True, False])
async def test_tasks_of_the_program_itself_are_found_if_what_starts_it_is_guarded(
    guarded: bool, tmp_path: Path
) -> None:
    start = "asyncio.run(main())"
    (tmp_path / "program.py").write_text(
        PROGRAM.format(start=f'if __name__ == "__main__":\n    {start}' if guarded else start)
    )
    program = await asyncio.create_subprocess_exec(
        sys.executable, "program.py", cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(program.communicate(), PATIENCE_S)
    if guarded:
        assert (program.returncode, out) == (0, b"__mp_main__\n"), err
    else:
        assert program.returncode == 1
        assert b'start it under `if __name__ == "__main__":`' in err


# -- limits and cancelling


async def test_to_wait_for_a_free_process_costs_a_task_none_of_its_time() -> None:
    """Three tasks of 0.8 s with a limit of 2 s, for which there is one process."""
    async with Stemflow("memory:", tasks.registry, processes=Processes(size=1)) as app:
        assert (await ended(app, Canvas.map(tasks.rests.s(), [0.8] * 3))).value == ["rested"] * 3


async def test_a_soft_limit_reaches_the_process(app: Stemflow) -> None:
    """It may pass while the process still imports the task, or makes its loop: it is received all the same."""
    for task, value in ((tasks.softly, True), (tasks.softly_raised, "SoftTimeLimitExceeded True")):
        result = await ended(app, task.s())
        assert (result.status, result.value) == ("succeeded", value), result.error


async def test_a_handler_that_spins_is_killed_at_its_hard_limit_and_its_process_replaced(app: Stemflow) -> None:
    before = (await ended(app, tasks.where.s())).value[0]
    result = await ended(app, tasks.spins.s())
    assert result.error is not None
    assert result.error.type == "TaskTimeout"
    await until_dead(before)
    after = [result[0] for result in (await ended(app, Canvas.map(tasks.where.s(), range(8)))).value]
    assert before not in after
    assert app.service is not None
    assert not app.service.slots.leaked


@pytest.mark.parametrize(
    ("task", "value"), [(tasks.listens, "heard"), (tasks.listens_async, "heard True")], ids=["plain", "async"]
)
async def test_a_handler_is_notified_that_its_run_was_cancelled_and_may_end_by_itself(
    app: Stemflow, task: Any, value: str
) -> None:
    handle = await begun(app, Canvas.chain(task.s()))
    await handle.cancel()
    assert (await handle.wait(PATIENCE_S)).status == "cancelled"
    assert await handle.value_of("[0]") == value


@pytest.mark.parametrize("force", [False, True])
async def test_a_handler_that_does_not_listen_is_killed_when_its_run_is_cancelled(app: Stemflow, force: bool) -> None:
    handle = await begun(app, tasks.deaf.s())
    assert app.service is not None
    (pid,) = [child.process.pid for child in app.service.worker.processes.children]
    await handle.cancel(force=force)
    assert (await handle.wait(0 if force else PATIENCE_S)).status == "cancelled"
    await until_dead(pid)


async def test_a_handler_that_is_handed_back_is_killed_without_charging_an_attempt() -> None:
    async with Stemflow("memory:", tasks.registry) as app:
        handle = await begun(app, tasks.deaf.s())
        await app.hand_back()
        (node,) = await handle.records()
        assert (node.state, node.attempt, node.losses) == ("ready", 0, 0)


async def test_to_import_a_task_costs_it_none_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given processes that take longer to import the module than the task may take
    monkeypatch.setenv(tasks.WORKER, str(os.getpid()))
    monkeypatch.setenv(tasks.SLOW_IMPORT, "0.6")
    async with Stemflow("memory:", tasks.registry, processes=Processes(size=1)) as app:
        # Then it succeeds at its first attempt
        result = await ended(app, tasks.brief.s())
        assert (result.status, result.attempt) == ("succeeded", 0), result.error


async def test_a_cancel_while_a_task_is_imported_ends_it_without_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tasks.WORKER, str(os.getpid()))
    monkeypatch.setenv(tasks.SLOW_IMPORT, "600")
    async with Stemflow("memory:", tasks.registry, processes=Processes(size=1)) as app:
        handle = await app.submit(tasks.brief.s())
        await asyncio.sleep(0.3)
        await handle.cancel()
        assert (await handle.wait(PATIENCE_S)).status == "cancelled"


def programs(*arguments: str) -> list[int]:
    """The ids of running programs with this command line."""
    wanted = "\0".join(arguments).encode() + b"\0"
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == wanted and lives(int(entry.name)):
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds programs by /proc")
async def test_programs_that_a_killed_handler_started_end_in_whichever_session(app: Stemflow, tmp_path: Path) -> None:
    # Given a handler that has started programs in sessions of their own, one with an empty environment, one a daemon
    handle = await begun(app, tasks.starts_programs.s(str(tmp_path / "note")))
    async with asyncio.timeout(PATIENCE_S):
        while not (programs("sleep", "600") and programs("sleep", "601")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    started = [*programs("sleep", "600"), *programs("sleep", "601"), int((tmp_path / "note").read_text())]
    # When its run is cancelled
    await handle.cancel(force=True)
    # Then none is left
    for pid in started:
        await until_dead(pid)


async def test_programs_end_with_a_cancelled_handler_that_ends_by_itself(app: Stemflow) -> None:
    handle = await begun(app, tasks.starts_a_program_async.s())
    (pid,) = programs("sleep", "603")
    await handle.cancel()
    assert (await handle.wait(PATIENCE_S)).status == "cancelled"
    await until_dead(pid)


# -- death


@pytest.mark.parametrize("how", ["exit", "SIGKILL", "SIGSEGV"])
async def test_a_process_that_dies_is_a_loss_until_its_task_is_poison_while_others_go_on(
    app: Stemflow, how: str, tmp_path: Path
) -> None:
    # Given a task that kills its process each time, next to others
    others = await app.submit(Canvas.map(tasks.where.s(), range(10)))
    handle = await app.submit(tasks.dies.s(how, str(tmp_path / "note")))

    # When it was delivered as often as allowed, then it is poison, no attempt was charged, and the others have ended
    result = await handle.wait(PATIENCE_S)
    assert result.error is not None
    death = "its process ended with exit code 0" if how == "exit" else f"its process was killed by {how}"
    assert (result.status, result.error.type) == ("failed", "Poison")
    assert result.error.message == f"its worker died 3 times while running it; the last time {death}"
    (node,) = await handle.records()
    assert (node.attempt, node.losses) == (0, 3)
    assert (tmp_path / "note").read_text() == "begun\n" * 3
    assert (await others.wait(PATIENCE_S)).status == "succeeded"


async def test_a_loss_costs_no_attempt(app: Stemflow, tmp_path: Path) -> None:
    handle = await app.submit(tasks.dies_once.s(str(tmp_path / "note")))
    assert (await handle.wait(PATIENCE_S)).value == 0
    assert [node.losses for node in await handle.records()] == [1]


async def test_a_task_that_may_run_at_most_once_is_lost_with_its_process(app: Stemflow) -> None:
    result = await ended(app, tasks.at_most_once.s())
    assert result.error is not None
    assert (result.error.type, result.error.message) == (
        "Lost",
        "its worker died and it may run at most once; the last time its process ended with exit code 7",
    )


# -- recycling, and what is left behind


async def test_a_process_is_replaced_after_so_many_tasks() -> None:
    settings = Processes(size=1, max_tasks_per_child=2)
    async with Stemflow("memory:", tasks.registry, processes=settings) as app:
        pids = [(await ended(app, tasks.where.s())).value[0] for _ in range(5)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]
        await until_dead(pids[0])


async def test_a_process_is_replaced_when_it_takes_too_much_memory() -> None:
    settings = Processes(size=1, max_memory_per_child=250_000_000)
    async with Stemflow("memory:", tasks.registry, processes=settings) as app:
        pids = [(await ended(app, tasks.grows.s(size))).value for size in (1, 300_000_000, 1)]
        assert pids[0] == pids[1] != pids[2]


async def test_what_a_handler_has_started_is_killed_when_its_process_goes() -> None:
    settings = Processes(size=1, max_tasks_per_child=1)
    async with Stemflow("memory:", tasks.registry, processes=settings) as app:
        program = (await ended(app, tasks.leaves_behind.s("return"))).value
        await until_dead(program)


async def test_processes_end_with_their_engine() -> None:
    async with Stemflow("memory:", tasks.registry) as app:
        pid = (await ended(app, tasks.where.s())).value[0]
    assert not lives(pid)


async def test_a_process_inherits_no_file_of_its_worker(tmp_path: Path) -> None:
    async with Stemflow(f"sqlite:{tmp_path / 'runs.db'}", tasks.registry) as app:
        opened = (await ended(app, tasks.files.s())).value
        assert not [name for name in opened if "runs.db" in name]
        assert len([name for name in opened if name.startswith("socket:")]) == 1


# -- finding the task


async def test_a_function_of_any_module_is_found_there() -> None:
    registry = TaskRegistry()
    cubed = registry.task("power", isolation="process")(math.pow)
    async with Stemflow("memory:", registry) as app:
        assert (await ended(app, cubed.s(2, 3))).value == 8.0


def test_a_function_inside_another_is_refused_at_registration() -> None:
    def inner() -> None: ...

    with pytest.raises(OptionError, match=r"expected a function at the top of a module for process, .*<locals>\.inner"):
        TaskRegistry().task("inner", isolation="process")(inner)


async def test_a_function_that_no_import_finds_is_refused_when_the_worker_starts() -> None:
    registry = TaskRegistry()
    namespace: dict[str, Any] = {"__name__": "nowhere"}
    exec("def lost(): ...", namespace)
    registry.task("lost", isolation="process")(namespace["lost"])
    with pytest.raises(OptionError, match=r"^task lost: isolation: expected a function that another process can"):
        async with Stemflow("memory:", registry):
            pass


async def test_a_function_that_no_import_finds_fails_where_the_call_asks_for_a_process() -> None:
    registry = TaskRegistry()
    namespace: dict[str, Any] = {"__name__": "nowhere"}
    exec("def lost(): ...", namespace)
    lost = registry.task("lost")(namespace["lost"])
    async with Stemflow("memory:", registry) as app:
        result = await ended(app, lost.with_options(isolation="process").s())
        assert result.error is not None
        assert (result.error.type, result.status) == ("OptionError", "failed")


@pytest.mark.parametrize("wrong", [{"size": 0}, {"max_tasks_per_child": -1}, {"max_memory_per_child": "1GB"}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^processes: {next(iter(wrong))}: expected a whole number from 1"):
        Processes(**wrong)


async def test_processes_whose_handlers_wait_leave_their_place_to_others(app: Stemflow) -> None:
    # Five levels on a pool of two processes
    assert (await ended(app, tasks.tower.s(5))).value == 5


async def test_a_process_enters_the_plain_lifespan_once_and_leaves_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Stemflow("memory:", tasks.registry, processes=Processes(size=1)) as app:
        states = [(await ended(app, task.s(str(log)))).value for task in (tasks.state_of, tasks.state_of_async)]
    assert states[0] == states[1]
    assert log.read_text().splitlines() == [f"left {states[0]}"]


async def test_an_error_that_a_service_raises_reaches_the_process(app: Stemflow) -> None:
    result = await ended(app, tasks.fails_below.s())
    assert result.status == "failed" and result.error is not None
    assert (result.error.type, "expected it in memory:" in result.error.message) == ("StemflowError", True)
