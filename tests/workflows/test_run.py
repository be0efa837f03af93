"""The example workflows through the command line, judged by the files that their tasks wrote."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stemflow.cli.main import main

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.yaml"))
FAILS_ON_PURPOSE = {"refund"}


class Shop:
    """A folder of its own, in which a workflow runs and leaves its files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        monkeypatch.chdir(folder)
        monkeypatch.setenv("STEMFLOW_DEMO_DIR", str(folder / "demo"))

    def trouble(self, name: str, number: int) -> None:
        self.monkeypatch.setenv(f"STEMFLOW_DEMO_{name}", str(number))

    def run(self, name: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(["run", str(WORKFLOWS / f"{name}.yaml"), "--json", *arguments])
        return code, json.loads(self.capsys.readouterr().out)

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.folder / "demo" / database) as connection:
            return connection.execute(query).fetchall()

    def journal(self) -> list[tuple[str, str]]:
        lines = (self.folder / "demo" / "journal.jsonl").read_text().splitlines()
        return [(entry["did"], entry["node"]) for entry in map(json.loads, lines)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_ends_as_its_readme_says(shop: Shop, name: str) -> None:
    code, answer = shop.run(name)
    expected = "failed" if name in FAILS_ON_PURPOSE else "succeeded"
    assert (code, answer["state"]) == (1 if expected == "failed" else 0, expected), answer
    assert any((shop.folder / "demo").iterdir())


def test_an_order_reserves_charges_ships_and_notifies(shop: Shop) -> None:
    code, answer = shop.run("order")
    assert code == 0
    assert answer["outputs"]["receipt"].endswith("EUR")
    assert shop.rows("stock.db", "SELECT sku, qty, state FROM reservation ORDER BY sku") == [
        ("apple", 2, "held"),
        ("pear", 1, "held"),
    ]
    assert [state for (state,) in shop.rows("psp.db", "SELECT state FROM charge")] == ["charged"]
    assert (shop.folder / "demo" / "outbox.jsonl").read_text().count("\n") == 1


def test_a_payment_that_fails_for_good_gives_the_stock_back(shop: Shop) -> None:
    shop.trouble("PSP_DECLINE", 1)
    code, answer = shop.run("order")
    assert (code, answer["state"], answer["error"]["type"]) == (1, "failed", "CardDeclined")
    assert {state for (state,) in shop.rows("stock.db", "SELECT state FROM reservation")} == {"released"}
    assert not any(did.startswith("charged") for did, _ in shop.journal())
    assert not (shop.folder / "demo" / "outbox.jsonl").exists()


def test_a_shipment_that_fails_is_undone_in_reverse_order(shop: Shop) -> None:
    shop.trouble("SHIP_FAIL", 1)
    code, _ = shop.run("order")
    assert code == 1
    assert [state for (state,) in shop.rows("psp.db", "SELECT state FROM charge")] == ["refunded"]
    assert {state for (state,) in shop.rows("stock.db", "SELECT state FROM reservation")} == {"released"}
    undone = [did for did, node in shop.journal() if node.startswith("!undo")]
    assert undone[0].startswith("refunded")
    assert [did.split()[0] for did in undone[1:]] == ["released", "released"]


def test_a_provider_that_is_away_twice_is_asked_three_times(shop: Shop) -> None:
    shop.trouble("PSP_UNAVAILABLE", 2)
    code, answer = shop.run("order")
    assert code == 0
    assert answer["outputs"]["receipt"]
    assert len(shop.rows("psp.db", "SELECT id FROM charge")) == 1


def test_mail_that_cannot_be_sent_does_not_fail_the_order(shop: Shop) -> None:
    shop.trouble("MAIL_FAIL", 1)
    code, answer = shop.run("order")
    assert (code, answer["state"]) == (0, "succeeded")
    assert answer["outputs"]["receipt"]


def test_an_order_of_what_is_not_in_stock_is_neither_charged_nor_shipped(shop: Shop) -> None:
    code, answer = shop.run("order", "-i", 'lines=[{"sku": "plum", "qty": 1}]')
    assert (code, answer["outputs"]) == (0, {"receipt": None})
    assert not (shop.folder / "demo" / "bookings").exists()


def test_the_same_order_twice_is_run_once(shop: Shop) -> None:
    _, first = shop.run("order")
    code, second = shop.run("order")
    assert (code, second["run_id"], second["outputs"]) == (0, first["run_id"], first["outputs"])
    code, third = shop.run("order", "--again")
    assert code == 0
    assert third["run_id"] != first["run_id"]


def test_a_failed_order_is_rerun_from_what_it_kept(shop: Shop) -> None:
    shop.trouble("SHIP_FAIL", 1)
    _, failed = shop.run("order", "-i", "order_id=DE000077")
    shop.trouble("SHIP_FAIL", 0)
    code = main(["rerun", failed["run_id"], "--failed", "--json", "--tasks", str(WORKFLOWS / "tasks.py")])
    answer = json.loads(shop.capsys.readouterr().out)
    assert (code, answer["state"]) == (0, "succeeded")
    validated = [did for did, _ in shop.journal() if did.startswith("validated")]
    assert len(validated) == 1, "what had succeeded and was not undone is not run again"
