"""The page "at three in the morning" is true: each incident is made, and its commands are run.

`STEMFLOW_GOLDEN=write pytest tests/cli/test_incidents.py` writes the outputs again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import json

from stemflow import NodeEvent, Stemflow, TaskRegistry
from stemflow.cli.arguments import DEFAULT_STORE
from stemflow.cli.main import main
from stemflow.runtime.catalog.heartbeats import TOPIC, Heartbeat, HeldTask
from stemflow.runtime.tasks.discovery import load_named
from stemflow.store.base import Request, Want
from stemflow.store.process_owner import owner_id
from tests.cli.pages import BLOCK, Page
from tests.cli.world import plain

PAGE = Path(__file__).parents[2] / "docs" / "at-three-in-the-morning.md"

TASKS = '''
from pathlib import Path
from stemflow import RetryPolicy, TaskRegistry

registry = TaskRegistry()


@registry.task("shop.price")
async def price() -> int:
    return 240


@registry.task("shop.charge", max_retries=0)
async def charge() -> str:
    if not Path("open").exists():
        raise RuntimeError("psp: 503")
    return "ch_1"


@registry.task("shop.refund", max_retries=3, retry=RetryPolicy.of(backoff="fixed", initial="10m", jitter=0))
async def refund() -> None:
    raise RuntimeError("psp: 503")


@registry.task("shop.label", queue="shipping")
async def label() -> None: ...


@registry.task("shop.stock", concurrency={"key": "warehouse", "limit": 1})
async def stock() -> None: ...


@registry.task("shop.mail", rate_limit="1/h")
async def mail() -> None: ...
'''
FILES = {
    "order": "  price: {task: shop.price}\n  pay: {needs: [price], task: shop.charge}\n",
    "refund": "  refund: {task: shop.refund}\n",
    "ship": "  label: {task: shop.label}\n",
    "stock": "  stock: {task: shop.stock}\n",
    "mail": "  mail: {task: shop.mail}\n",
    "nightly": "  price: {task: shop.price}\n",
}


def engine(worker: bool = False) -> Stemflow:
    registry = load_named(["tasks"], Path.cwd(), "--tasks") if worker else TaskRegistry()
    return Stemflow(DEFAULT_STORE, registry, worker=worker)


async def newest(app: Stemflow) -> str:
    (found,) = await app.store.runs(1)
    return found.header.run


async def leased_by_the_dead() -> None:
    """A process of this host leased the newest run's task, reported it, and has ended."""
    boot, namespace, pid, start = owner_id().split(".")
    owner = f"{boot}.{namespace}.{pid}.{int(start) - 1}/worker"
    async with engine() as app:
        run, now_ms = await newest(app), app.store.now_ms()
        want = Want(owner=owner, limit=1, only_run=run)
        (lease,) = (await app.store.exchange(Request(f"dead {run}", 1), [], want)).leases
        node = lease.node
        beat = Heartbeat(
            name="shop-0815", host="shop", pid=815, state="running", queues=None, concurrency=100, running=1,
            started_at_ms=now_ms - 3_000, at_ms=now_ms - 1_000, declares="0f" * 8,
            holds=(HeldTask(run, node.path, node.delivery, "shop.price", node.queue, now_ms - 2_000),),
        )  # fmt: skip
        await app.store.put_hint(TOPIC, owner, json.encode(beat), 60_000)


async def work_on_the_newest(until: Callable[[NodeEvent], bool]) -> None:
    async with engine(worker=True) as app:
        handle = await app.handle(await newest(app))
        async for event in handle.events():
            if event.path and until(event):
                return


async def end_all() -> None:
    """Cancel what the last incident has left."""
    async with engine() as app:
        for info in await app.store.runs(100):
            await app.cancel(info.header.run, force=True)


def submit(name: str, count: int = 1) -> None:
    for _ in range(count):
        assert main(("submit", f"{name}.yaml", "--tasks", "tasks")) == 0


def nothing() -> None:
    """The commands of the section make the incident themselves."""


def orders_fail() -> None:
    main(("run", "order.yaml"))


def a_worker_dies() -> None:
    submit("order")
    asyncio.run(leased_by_the_dead())


def a_task_is_retried() -> None:
    submit("refund")
    asyncio.run(work_on_the_newest(lambda event: event.attempt == 1))


def nobody_serves_a_queue() -> None:
    submit("ship", 3)


def a_key_is_held() -> None:
    submit("stock")
    asyncio.run(leased_by_the_dead())
    submit("stock")


def a_limit_is_reached() -> None:
    submit("mail")
    asyncio.run(work_on_the_newest(lambda event: event.state == "succeeded"))
    submit("mail")


def a_provider_was_down() -> None:
    Path("open").unlink()
    for _ in range(2):
        main(("run", "order.yaml"))


def something_must_stop() -> None:
    submit("mail")
    submit("refund")


def a_schedule_is_paused() -> None:
    assert main(("schedule", "apply", "nightly.yaml")) == 0
    assert main(("schedule", "pause", "nightly", "--reason", "provider is down")) == 0


def a_run_is_slow() -> None:
    Path("open").touch()
    assert main(("run", "order.yaml")) == 0


INCIDENTS = (
    orders_fail, nothing, nothing, a_worker_dies, a_task_is_retried, nobody_serves_a_queue, a_key_is_held,
    a_limit_is_reached, a_provider_was_down, something_must_stop, a_schedule_is_paused, a_run_is_slow,
)  # fmt: skip
"""What makes each incident, in the order of the page."""
ID = re.compile(r"\b0[0-9a-f]{31}\b")


def form(text: str, folder: Path) -> str:
    """As `plain`, without durations of every length, bars, and the places of columns."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z by \w+", "TIME by USER", text)
    text = re.sub(r"\b\d+[hmd]\d\d[smh]\b|\b(\d\d:)?\d\d:\d\d( \w+|Z)?\b", "TIME", plain(text, folder))
    return re.sub(r"[ .=]{2,}", "  ", re.sub(r"( TIME)+", " TIME", text))


def test_every_incident_is_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "tasks.py").write_text(TASKS)
    for name, steps in FILES.items():
        on = 'on: {schedule: {nightly: {cron: "30 2 * * *", timezone: Europe/Berlin}}}\n' if name == "nightly" else ""
        (tmp_path / f"{name}.yaml").write_text(f'stemflow: "1"\nname: {name}\n{on}steps:\n{steps}')
    page = Page(PAGE, tmp_path, form)
    sections = re.split(r"(?m)^## \d+\. ", page.text)[1:]
    assert len(sections) == len(INCIDENTS)
    for make, section in zip(INCIDENTS, sections, strict=True):
        # Given the incident
        asyncio.run(end_all())
        make()
        capsys.readouterr()
        # Then its commands print what the page says
        ((_, _, _, block),) = BLOCK.findall(section)
        asyncio.run(_name_the_newest(page, block))
        page.check(block)
        assert "**What to do.**" in section
    page.close()


async def _name_the_newest(page: Page, block: str) -> None:
    """Let ids that a block first mentions in a command be those of the newest runs."""
    lines = {one: line for line in reversed(block.splitlines()) for one in ID.findall(line)}
    fresh = [one for one in dict.fromkeys(ID.findall(block)) if one not in page.ids and lines[one].startswith("$ ")]
    if fresh:
        async with engine() as app:
            runs = [info.header.run for info in await app.store.runs(5) if info.header.run not in page.ids.values()]
        page.ids.update(zip(fresh, runs, strict=False))
