"""The tasks of `workflows/`, called as the plain functions that they are, without an engine."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sqlite3
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

WORKFLOWS = Path(__file__).parents[2] / "workflows"


@dataclass
class Context:
    """What the tasks use of a TaskContext."""

    id: str = "run1/pay"
    attempt: int = 0
    run_id: str = "run1"
    node: str = "pay"
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("demo"))
    seen: list[tuple[float, Any]] = field(default_factory=list)

    async def progress(self, percent: float, data: Any = None) -> None:
        self.seen.append((percent, data))


@pytest.fixture(scope="module")
def tasks() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("demo_tasks", WORKFLOWS / "tasks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEMFLOW_DEMO_DIR", str(tmp_path / "demo"))
    return tmp_path / "demo"


def rows(file: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as db:
        return db.execute(query).fetchall()


def control(demo: Path, **told: int) -> None:
    demo.mkdir(exist_ok=True)
    (demo / "control.json").write_text(json.dumps(told))


def named(document: Any) -> Iterator[str]:
    """Every task name in a workflow document."""
    if isinstance(document, dict):
        if isinstance(document.get("task"), str):
            yield document["task"]
        for value in document.values():
            yield from named(value)
    elif isinstance(document, list):
        for value in document:
            yield from named(value)


@pytest.mark.parametrize("file", sorted(WORKFLOWS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_task_that_a_workflow_names_is_registered(tasks: ModuleType, file: Path) -> None:
    text = file.read_text()
    assert text.startswith("# yaml-language-server: $schema=../schemas/workflow.v1.schema.json\n")
    used = set(named(yaml.safe_load(text)))
    assert used
    assert used <= set(tasks.registry)


def test_every_registered_task_is_used_by_a_workflow(tasks: ModuleType) -> None:
    used = {name for file in WORKFLOWS.glob("*.yaml") for name in named(yaml.safe_load(file.read_text()))}
    assert set(tasks.registry) == used


async def test_an_order_is_priced_and_lines_of_one_sku_are_added_up(tasks: ModuleType) -> None:
    lines = [{"sku": "apple", "qty": 2}, {"sku": "pear", "qty": 1}, {"sku": "apple", "qty": 1}]
    priced = await tasks.orders_validate(Context(), "DE000042", lines)
    assert priced == {"lines": [{"sku": "apple", "qty": 3}, {"sku": "pear", "qty": 1}], "total": 510}


@pytest.mark.parametrize(("sku", "qty", "said"), [("gold", 1, "got 'gold'"), ("pear", 0, "least 1, got 0")])
async def test_an_order_with_a_bad_line_is_refused(tasks: ModuleType, sku: str, qty: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        await tasks.orders_validate(Context(), "DE000042", [{"sku": sku, "qty": qty}])


def test_stock_is_taken_once_and_given_back_once_however_often_a_task_is_delivered(
    tasks: ModuleType, demo: Path
) -> None:
    reserve, release = Context(id="run1/stock[0]"), Context(id="run1/undo")
    for _ in range(3):
        assert tasks.stock_reserve(reserve, "apple", 2) == {"ok": True, "sku": "apple", "qty": 2, "free": 998}
    assert [tasks.stock_release(release, "apple") for _ in range(2)] == [{"released": 2}, {"released": 0}]
    assert rows(demo / "stock.db", "SELECT free FROM stock WHERE sku = 'apple'") == [(1000,)]
    assert rows(demo / "stock.db", "SELECT sku, qty, state FROM reservation") == [("apple", 2, "released")]


def test_a_release_leaves_what_other_runs_hold(tasks: ModuleType, demo: Path) -> None:
    tasks.stock_reserve(Context(id="run1/stock[0]"), "pear", 4)
    tasks.stock_reserve(Context(id="run2/stock[0]", run_id="run2"), "pear", 6)
    tasks.stock_release(Context(id="run1/undo"), "pear")
    assert rows(demo / "stock.db", "SELECT free FROM stock WHERE sku = 'pear'") == [(394,)]


@pytest.mark.parametrize("sku", ["plum", "unheard-of"])
def test_too_little_stock_is_an_answer(tasks: ModuleType, sku: str) -> None:
    assert tasks.stock_reserve(Context(), sku, 1) == {"ok": False, "sku": sku, "qty": 1, "free": 0}


def test_reservations_side_by_side_never_take_more_than_there_is(tasks: ModuleType, demo: Path) -> None:
    def reserve(n: int) -> bool:
        return bool(tasks.stock_reserve(Context(id=f"run1/stock[{n}]"), "quince", 2)["ok"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(reserve, range(20)))
    assert answers.count(True) == 12  # of 25
    assert rows(demo / "stock.db", "SELECT free FROM stock WHERE sku = 'quince'") == [(1,)]


async def test_a_charge_happens_once_and_can_be_refunded(tasks: ModuleType, demo: Path) -> None:
    first, second = await tasks.psp_charge(Context(), 390), await tasks.psp_charge(Context(attempt=1), 390)
    assert first == second
    assert first["receipt"] == f"{first['id']}: 3.90 EUR"
    tasks.psp_refund(Context(id="run1/undo"), first["id"])
    assert rows(demo / "psp.db", "SELECT run, amount, state FROM charge") == [("run1", 390, "refunded")]
    with pytest.raises(ValueError, match="got 'ch_none'"):
        tasks.psp_refund(Context(), "ch_none")


async def test_the_provider_can_be_set_to_be_away_for_the_first_attempts(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEMFLOW_DEMO_PSP_UNAVAILABLE", "2")
    for attempt in (0, 1):
        with pytest.raises(tasks.PspUnavailable, match=f"attempt {attempt}"):
            await tasks.psp_charge(Context(attempt=attempt), 390)
    assert (await tasks.psp_charge(Context(attempt=2), 390))["amount"] == 390


async def test_the_control_file_is_stronger_than_the_environment(
    tasks: ModuleType, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEMFLOW_DEMO_PSP_DECLINE", "0")
    control(demo, psp_decline=1)
    with pytest.raises(tasks.CardDeclined):
        await tasks.psp_charge(Context(), 390)
    assert not (demo / "psp.db").exists()


async def test_the_provider_can_be_slow(tasks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setenv("STEMFLOW_DEMO_PSP_DELAY_MS", "2500")
    await tasks.psp_charge(Context(), 390)
    assert slept == [2.5]


def test_what_is_shipped_can_be_read_afterwards(tasks: ModuleType, demo: Path) -> None:
    label = tasks.ship_label(Context(), "DE000042", "ch_1")
    pick = tasks.warehouse_pick(Context(), [{"sku": "apple", "qty": 2}, {"sku": "pear", "qty": 1}])
    tasks.ship_book(Context(), [label, pick])
    assert "paid: ch_1" in (demo / "labels/DE000042.txt").read_text()
    assert (demo / "picks/run1.txt").read_text().split() == ["2", "x", "apple", "1", "x", "pear"]
    assert json.loads((demo / "bookings/DE000042.json").read_text())["pieces"] == 3
    tasks.ship_void(Context(), label["label"])
    assert list((demo / "labels").iterdir()) == []


def test_shipping_and_mail_can_be_set_to_fail(tasks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMFLOW_DEMO_SHIP_FAIL", "1")
    monkeypatch.setenv("STEMFLOW_DEMO_MAIL_FAIL", "1")
    with pytest.raises(RuntimeError, match="no carrier for DE000042"):
        tasks.ship_book(Context(), [{"order": "DE000042"}, {"pieces": 1}])
    with pytest.raises(ConnectionError, match="mail server refused"):
        tasks.mail_send(Context(), "x")


def test_a_mail_is_sent_once(tasks: ModuleType, demo: Path) -> None:
    body = tasks.mail_render("DE000042")
    for _ in range(2):
        tasks.mail_send(Context(id="run1/notify[1]"), body)
    (sent,) = (demo / "outbox.jsonl").read_text().splitlines()
    assert "DE000042 has left" in json.loads(sent)["body"]


async def test_the_journal_keeps_the_order_of_doing_and_undoing(tasks: ModuleType, demo: Path) -> None:
    tasks.stock_reserve(Context(), "apple", 3)
    tasks.coupon_redeem(Context(), "SPRING")
    with pytest.raises(tasks.CardDeclined):
        await tasks.psp_charge(Context(), 360, "declined")
    tasks.coupon_restore(Context(), "SPRING")
    tasks.stock_release(Context(), "apple")
    did = [json.loads(line)["did"] for line in (demo / "journal.jsonl").read_text().splitlines()]
    assert did == [
        "reserved 3 apple",
        "redeemed SPRING",
        "charge of 360 declined",
        "restored SPRING",
        "released 3 apple",
    ]
    assert rows(demo / "psp.db", "SELECT code, run, state FROM coupon") == [("SPRING", "run1", "restored")]


def test_a_night_is_extracted_totalled_twice_and_loaded(tasks: ModuleType, demo: Path) -> None:
    orders = tasks.csv_extract("orders", "2024-05-17", 200)
    tables = [tasks.csv_total(orders, "sku"), tasks.csv_total(orders, "country")]
    summary = tasks.csv_load("2024-05-17", tables, None)
    assert summary["total"] == tables[0]["total"] == tables[1]["total"] > 0
    assert Path(tables[1]["path"]).read_text().startswith("country,cents\nDE,")
    assert tasks.csv_tidy("2024-05-17") == 1
    left = sorted(path.name for path in (demo / "nightly/2024-05-17").iterdir())
    assert left == ["by_country.csv", "by_sku.csv"]


def test_a_night_without_returns_is_refused_when_strict(tasks: ModuleType) -> None:
    with pytest.raises(ConnectionError, match="'returns' of 2024-05-17 is down"):
        tasks.csv_extract("returns", "2024-05-17", 20, "down")
    with pytest.raises(ValueError, match="strict"):
        tasks.csv_load("2024-05-17", [{"total": 1}], None, True)
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        tasks.csv_load("2024-05-17", [{"total": 1}, {"total": 2}])


async def test_pictures_become_a_sheet_without_the_damaged_one(tasks: ModuleType, demo: Path) -> None:
    context = Context()
    pictures = await tasks.pictures_draw(context, 4, [2])
    assert [percent for percent, _ in context.seen] == [25, 50, 75, 100]
    thumbs: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures):
        try:
            thumbs.append(tasks.pictures_shrink(picture, number))
        except ValueError as error:
            thumbs.append({"error": {"type": "ValueError", "message": str(error)}})
    assert ["error" in thumb for thumb in thumbs] == [False, False, True, False]
    tasks.pictures_publish([tasks.pictures_sheet(thumbs), tasks.pictures_list(thumbs)])
    png = (demo / "sheet.png").read_bytes()
    length = int.from_bytes(png[33:37], "big")
    assert int.from_bytes(png[16:20], "big") == 48
    assert len(zlib.decompress(png[41 : 41 + length])) == 16 * (1 + 48)
    page = (demo / "thumbnails.md").read_text()
    assert "(sheet.png)" in page and "expected 1024 pixels, got 512" in page


def test_a_page_says_so_when_no_sheet_could_be_made(tasks: ModuleType, demo: Path) -> None:
    failed = {"error": {"type": "ValueError", "message": "cut off"}}
    with pytest.raises(ValueError, match="at least one whole thumbnail"):
        tasks.pictures_sheet([failed])
    tasks.pictures_publish([failed, tasks.pictures_list([failed])])
    assert "not made: cut off" in (demo / "thumbnails.md").read_text()


def test_a_greeting_is_composed_framed_and_written(tasks: ModuleType, demo: Path) -> None:
    tasks.text_write("greeting.txt", tasks.text_frame(tasks.text_compose("Hello", "world")))
    assert (demo / "greeting.txt").read_text().splitlines()[1] == "| Hello, world! |"


def test_a_report_lists_its_sections_in_the_order_given(tasks: ModuleType, demo: Path) -> None:
    text = "A bee, abroad."
    tasks.text_report("T", [tasks.text_words(text), tasks.text_letters(text, 1), tasks.text_longest(text)])
    assert (demo / "report.md").read_text().splitlines()[2:] == [
        "* Words: 3",
        "* The 1 commonest letters: a 3",
        "* Longest word: abroad",
    ]


def test_a_job_answers_after_it_was_asked_often_enough(tasks: ModuleType) -> None:
    job = tasks.jobs_start(Context(), 2)["job"]
    for _ in range(2):
        with pytest.raises(tasks.NotReady):
            tasks.jobs_ask(Context(), job)
    assert tasks.jobs_start(Context(), 2)["job"] == job
    assert tasks.jobs_ask(Context(), job) == {"answer": 42, "asked": 3}
