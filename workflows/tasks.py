"""The tasks of the workflows in this folder: small, real, and safe to deliver twice."""

import asyncio
import csv
import json
import os
import random
import sqlite3
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypedDict

from stemflow import TaskContext, TaskRegistry

registry = TaskRegistry()

PRICES = {"apple": 120, "pear": 150, "plum": 90, "quince": 310}
STOCK = {"apple": 1000, "pear": 400, "plum": 0, "quince": 25}
TABLES = {
    "stock.db": (
        "stock (sku TEXT PRIMARY KEY, free INTEGER NOT NULL)",
        "reservation (key TEXT PRIMARY KEY, run TEXT, sku TEXT, qty INTEGER, state TEXT)",
    ),
    "psp.db": (
        "charge (key TEXT PRIMARY KEY, id TEXT UNIQUE, run TEXT, amount INTEGER, state TEXT)",
        "coupon (code TEXT, run TEXT, state TEXT, PRIMARY KEY (code, run))",
    ),
}


class PspUnavailable(Exception):
    """The payment provider did not answer; another attempt may succeed."""


class CardDeclined(Exception):
    """The payment provider said no; another attempt will not help."""


class NotReady(Exception):
    """The job asked for has not ended yet."""


class Line(TypedDict):
    sku: str
    qty: int


class Priced(TypedDict):
    lines: list[Line]
    total: int


class Reserved(TypedDict):
    ok: bool
    sku: str
    qty: int
    free: int


class Charge(TypedDict):
    id: str
    amount: int
    receipt: str


def place(*parts: str) -> Path:
    """A path in the demo folder, whose parent exists."""
    path = Path(os.environ.get("STEMFLOW_DEMO_DIR", ".stemflow/demo"), *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def setting(name: str) -> int:
    """A number from `control.json` in the demo folder, else from STEMFLOW_DEMO_<NAME>, else 0."""
    control = place("control.json")
    told = json.loads(control.read_text()) if control.exists() else {}
    return int(told.get(name, os.environ.get(f"STEMFLOW_DEMO_{name.upper()}", "0")))


def write(path: Path, content: str | bytes) -> str:
    """Write a whole file or nothing, also when killed in the middle; the answer is its path."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)
    return str(path)


def append(name: str, **entry: object) -> None:
    """Add one JSON line to a file of the demo folder, in one write."""
    with place(name).open("ab", buffering=0) as file:
        file.write(json.dumps(entry).encode() + b"\n")


def note(ctx: TaskContext, did: str) -> None:
    """Say in the log and in `journal.jsonl` what was just done, in the order in which it was done."""
    ctx.logger.info(did)
    append("journal.jsonl", did=did, task=ctx.id, attempt=ctx.attempt, run=ctx.run_id, node=ctx.node)


@contextmanager
def ledger(name: str) -> Iterator[sqlite3.Connection]:
    """One write transaction on a table file: all of it, or nothing when the body raises."""
    with closing(sqlite3.connect(place(name), timeout=20, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")  # safe when the process dies; power cuts are no demo matter
        db.execute("BEGIN IMMEDIATE")
        for table in TABLES[name]:
            db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


# --- order.yaml and refund.yaml ---


@registry.task("orders.validate", max_retries=3)
async def orders_validate(ctx: TaskContext, order: str, lines: list[Line]) -> Priced:
    """Check the lines, add up lines of the same sku, and price them in cents."""
    wanted: Counter[str] = Counter()
    for number, line in enumerate(lines):
        if line["sku"] not in PRICES:
            known = ", ".join(PRICES)
            raise ValueError(f"order {order}, line {number}: expected a sku of {known}, got {line['sku']!r}")
        if line["qty"] < 1:
            raise ValueError(f"order {order}, line {number}: expected a qty of at least 1, got {line['qty']}")
        wanted[line["sku"]] += line["qty"]
    total = sum(PRICES[sku] * qty for sku, qty in wanted.items())
    note(ctx, f"validated {order}: {len(wanted)} lines, {total} cents")
    return {"lines": [{"sku": sku, "qty": qty} for sku, qty in wanted.items()], "total": total}


@registry.task("stock.reserve")
def stock_reserve(ctx: TaskContext, sku: str, qty: int) -> Reserved:
    """Take from the stock once per task id; too little stock is an answer, not an error."""
    with ledger("stock.db") as db:
        db.executemany("INSERT OR IGNORE INTO stock VALUES (?, ?)", STOCK.items())
        known = db.execute("SELECT 1 FROM reservation WHERE key = ?", (ctx.id,)).fetchone()
        ok = known is not None
        if not ok:
            take = "UPDATE stock SET free = free - ? WHERE sku = ? AND free >= ?"
            ok = db.execute(take, (qty, sku, qty)).rowcount == 1
        if ok and not known:
            row = (ctx.id, ctx.run_id, sku, qty)
            db.execute("INSERT INTO reservation VALUES (?, ?, ?, ?, 'held')", row)
        (free,) = db.execute("SELECT free FROM stock WHERE sku = ?", (sku,)).fetchone() or (0,)
    note(ctx, f"reserved {qty} {sku}" if ok else f"no {qty} {sku} left to reserve")
    return {"ok": ok, "sku": sku, "qty": qty, "free": free}


@registry.task("stock.release", max_retries=3)
def stock_release(ctx: TaskContext, sku: str) -> dict[str, int]:
    """Give back what this run holds of a sku; nothing the second time."""
    with ledger("stock.db") as db:
        held = "run = ? AND sku = ? AND state = 'held'"
        key = (ctx.run_id, sku)
        (qty,) = db.execute(f"SELECT coalesce(sum(qty), 0) FROM reservation WHERE {held}", key).fetchone()
        db.execute("UPDATE stock SET free = free + ? WHERE sku = ?", (qty, sku))
        db.execute(f"UPDATE reservation SET state = 'released' WHERE {held}", key)
    note(ctx, f"released {qty} {sku}")
    return {"released": qty}


@registry.task("psp.charge")
async def psp_charge(ctx: TaskContext, amount: int, card: str = "good") -> Charge:
    """Charge cents through the pretended provider, once per task id, in the mood that the settings tell."""
    await asyncio.sleep(setting("psp_delay_ms") / 1000)
    if ctx.attempt < setting("psp_unavailable"):
        note(ctx, f"charge of {amount} not answered")
        raise PspUnavailable(f"the provider did not answer attempt {ctx.attempt}")
    if card == "declined" or setting("psp_decline"):
        note(ctx, f"charge of {amount} declined")
        raise CardDeclined(f"the provider declined a charge of {amount} cents")
    charge = f"ch_{zlib.crc32(ctx.id.encode()):08x}"
    with ledger("psp.db") as db:
        row = (ctx.id, charge, ctx.run_id, amount)
        db.execute("INSERT OR IGNORE INTO charge VALUES (?, ?, ?, ?, 'charged')", row)
    note(ctx, f"charged {amount} as {charge}")
    return {"id": charge, "amount": amount, "receipt": f"{charge}: {amount / 100:.2f} EUR"}


@registry.task("psp.refund", max_retries=3)
def psp_refund(ctx: TaskContext, charge: str) -> dict[str, str]:
    """Refund a charge; an unknown one is an error, a refunded one stays refunded."""
    with ledger("psp.db") as db:
        if db.execute("UPDATE charge SET state = 'refunded' WHERE id = ?", (charge,)).rowcount != 1:
            raise ValueError(f"psp.refund: expected the id of a charge, got {charge!r}")
    note(ctx, f"refunded {charge}")
    return {"refunded": charge}


@registry.task("coupon.redeem")
def coupon_redeem(ctx: TaskContext, code: str) -> dict[str, str]:
    with ledger("psp.db") as db:
        db.execute("INSERT OR REPLACE INTO coupon VALUES (?, ?, 'used')", (code, ctx.run_id))
    note(ctx, f"redeemed {code}")
    return {"code": code}


@registry.task("coupon.restore")
def coupon_restore(ctx: TaskContext, code: str) -> None:
    with ledger("psp.db") as db:
        db.execute("UPDATE coupon SET state = 'restored' WHERE code = ? AND run = ?", (code, ctx.run_id))
    note(ctx, f"restored {code}")


@registry.task("ship.label")
def ship_label(ctx: TaskContext, order: str, paid: str) -> dict[str, str]:
    label = write(place("labels", f"{order}.txt"), f"TO THE CUSTOMER OF {order}\npaid: {paid}\n")
    note(ctx, f"printed a label for {order}")
    return {"label": label, "order": order}


@registry.task("ship.void")
def ship_void(ctx: TaskContext, label: str) -> None:
    Path(label).unlink(missing_ok=True)
    note(ctx, f"voided the label {Path(label).stem}")


@registry.task("warehouse.pick")
def warehouse_pick(ctx: TaskContext, lines: list[Line]) -> dict[str, Any]:
    slip = "".join(f"{line['qty']:>5} x {line['sku']}\n" for line in lines)
    path = write(place("picks", f"{ctx.run_id}.txt"), slip)
    note(ctx, f"picked {len(lines)} lines")
    return {"slip": path, "pieces": sum(line["qty"] for line in lines)}


@registry.task("ship.book")
def ship_book(ctx: TaskContext, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Book a carrier for a label and a pick slip, which come in this order."""
    label, pick = parts
    if setting("ship_fail"):
        raise RuntimeError(f"no carrier for {label['order']}; unset STEMFLOW_DEMO_SHIP_FAIL")
    booking = {"order": label["order"], "pieces": pick["pieces"], "carrier": "slow coach"}
    write(place("bookings", f"{label['order']}.json"), json.dumps(booking, indent=2))
    note(ctx, f"booked {label['order']}")
    return booking


@registry.task("mail.render")
def mail_render(order: str) -> str:
    return f"Subject: your order {order}\n\nThank you. {order} has left our house.\n"


@registry.task("mail.send", max_retries=2)
def mail_send(ctx: TaskContext, body: str) -> dict[str, str]:
    """Append a mail to the outbox, unless this task already did."""
    if setting("mail_fail"):
        raise ConnectionError("the mail server refused the mail; unset STEMFLOW_DEMO_MAIL_FAIL")
    outbox = place("outbox.jsonl")
    sent = [json.loads(line)["id"] for line in outbox.read_text().splitlines()] if outbox.exists() else []
    if ctx.id not in sent:
        append("outbox.jsonl", id=ctx.id, body=body)
    note(ctx, "sent a mail")
    return {"outbox": str(outbox)}


# --- nightly.yaml ---


@registry.task("csv.extract")
def csv_extract(name: str, day: str, rows: int, feed: str = "up") -> dict[str, Any]:
    """Write the sales of a day, the same for the same day, as CSV."""
    if feed == "down":
        raise ConnectionError(f"the feed {name!r} of {day} is down")
    chance = random.Random(f"{name} {day}")
    path = place("nightly", day, f"{name}.csv")
    lines = ["sku,country,cents"]
    for _ in range(rows):
        sku = chance.choice(sorted(PRICES))
        lines.append(f"{sku},{chance.choice(['DE', 'FR', 'PL'])},{PRICES[sku] * chance.randint(1, 9)}")
    return {"path": write(path, "\n".join(lines) + "\n"), "rows": rows}


@registry.task("csv.total")
def csv_total(table: dict[str, Any], by: str) -> dict[str, Any]:
    """Add up the cents of an extract by one of its columns, into another CSV."""
    totals: dict[str, int] = defaultdict(int)
    with Path(table["path"]).open(newline="") as file:
        for row in csv.DictReader(file):
            totals[row[by]] += int(row["cents"])
    text = f"{by},cents\n" + "".join(f"{key},{cents}\n" for key, cents in sorted(totals.items()))
    return {
        "path": write(Path(table["path"]).with_name(f"by_{by}.csv"), text),
        "by": by,
        "total": sum(totals.values()),
    }


@registry.task("csv.load")
def csv_load(
    day: str, tables: list[dict[str, Any]], returns: dict[str, Any] | None = None, strict: bool = False
) -> dict[str, Any]:
    """Write the summary of a day; the tables must agree, and the returns may be missing unless strict."""
    if strict and returns is None:
        raise ValueError(f"the returns of {day} are missing, and strict is set")
    totals = {table["total"] for table in tables}
    if len(totals) != 1:
        raise ValueError(f"expected tables with the same total, got {sorted(totals)}")
    summary = {"day": day, "total": totals.pop(), "returns": None if returns is None else returns["rows"]}
    path = write(place("nightly", f"{day}.json"), json.dumps(summary, indent=2) + "\n")
    return {**summary, "path": path}


@registry.task("csv.tidy")
def csv_tidy(day: str) -> int:
    """Remove the raw extracts of a day, and keep its totals."""
    raw = [place("nightly", day, f"{name}.csv") for name in ("orders", "returns")]
    there = [path for path in raw if path.exists()]
    for path in there:
        path.unlink(missing_ok=True)
    return len(there)


# --- thumbnails.yaml: grey pictures of 32 x 32 bytes, as binary PGM ---

SIDE, THUMB = 32, 16


def pgm(side: int, pixels: bytes) -> bytes:
    return b"P5 %d %d 255\n" % (side, side) + pixels


def good(thumbs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The members of a collected fan-out that hold a result; the others hold {"error": ...}."""
    return [thumb for thumb in thumbs if "error" not in thumb]


@registry.task("pictures.draw")
async def pictures_draw(ctx: TaskContext, count: int, damaged: list[int]) -> list[str]:
    """Draw pictures, each another pattern; the damaged ones are cut off in the middle."""
    paths = []
    for number in range(count):
        pixels = bytes((x * (number + 1) ^ y * 7) % 256 for y in range(SIDE) for x in range(SIDE))
        kept = pixels[: SIDE * SIDE // 2] if number in damaged else pixels
        paths.append(write(place("pictures", f"{number:03}.pgm"), pgm(SIDE, kept)))
        await ctx.progress(100 * (number + 1) / count, {"drawn": number + 1})
    return paths


@registry.task("pictures.shrink")
def pictures_shrink(picture: str, number: int) -> dict[str, Any]:
    """Halve a picture by the average of four pixels; raises ValueError when bytes are missing."""
    pixels = Path(picture).read_bytes().partition(b"\n")[2]
    if len(pixels) != SIDE * SIDE:
        raise ValueError(f"{picture}: expected {SIDE * SIDE} pixels, got {len(pixels)}; draw it again")
    corners = (2 * y * SIDE + 2 * x for y in range(THUMB) for x in range(THUMB))
    small = bytes((pixels[c] + pixels[c + 1] + pixels[c + SIDE] + pixels[c + SIDE + 1]) // 4 for c in corners)
    path = write(place("thumbs", Path(picture).name), pgm(THUMB, small))
    return {"number": number, "path": path, "mean": sum(small) // len(small)}


@registry.task("pictures.sheet")
def pictures_sheet(thumbs: list[dict[str, Any]]) -> dict[str, str]:
    """Put the thumbnails in one row, as a PNG that any viewer shows."""
    rows = [Path(thumb["path"]).read_bytes().partition(b"\n")[2] for thumb in good(thumbs)]
    if not rows:
        raise ValueError("expected at least one whole thumbnail, got none; draw fewer damaged pictures")
    lines = (b"\0" + b"".join(row[y * THUMB : (y + 1) * THUMB] for row in rows) for y in range(THUMB))
    head = (THUMB * len(rows)).to_bytes(4) + THUMB.to_bytes(4) + b"\x08\0\0\0\0"
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b""))
    png = b"".join(len(d).to_bytes(4) + t + d + zlib.crc32(t + d).to_bytes(4) for t, d in chunks)
    return {"sheet": write(place("sheet.png"), b"\x89PNG\r\n\x1a\n" + png)}


@registry.task("pictures.list")
def pictures_list(thumbs: list[dict[str, Any]]) -> dict[str, list[str]]:
    """One line a thumbnail, or what was wrong with it."""
    lines = [t["error"]["message"] if "error" in t else f"{t['path']}: mean grey {t['mean']}" for t in thumbs]
    return {"lines": lines}


@registry.task("pictures.publish")
def pictures_publish(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Write a page with the sheet and the list, or with the error of the one that failed."""
    sheet, listing = (f"not made: {part['error']['message']}" if "error" in part else part for part in parts)
    lines = listing["lines"] if isinstance(listing, dict) else [listing]
    image = "![thumbnails](sheet.png)" if isinstance(sheet, dict) else sheet
    page = "\n".join(["# Thumbnails", "", image, "", *(f"* {line}" for line in lines), ""])
    return {"page": write(place("thumbnails.md"), page), "lines": len(lines)}


# --- greet.yaml and report.yaml ---


@registry.task("text.compose")
def text_compose(hello: str, who: str) -> str:
    return f"{hello}, {who}!"


@registry.task("text.frame")
def text_frame(text: str) -> str:
    bar = "+" + "-" * (len(text) + 2) + "+"
    return f"{bar}\n| {text} |\n{bar}\n"


@registry.task("text.write")
def text_write(name: str, text: str) -> dict[str, str]:
    return {"path": write(place(name), text), "text": text}


@registry.task("text.words")
def text_words(text: str) -> dict[str, Any]:
    return {"title": "Words", "value": len(text.split())}


@registry.task("text.letters")
def text_letters(text: str, top: int) -> dict[str, Any]:
    counted = Counter(letter for letter in text.lower() if letter.isalpha())
    listed = ", ".join(f"{letter} {count}" for letter, count in counted.most_common(top))
    return {"title": f"The {top} commonest letters", "value": listed}


@registry.task("text.longest")
def text_longest(text: str) -> dict[str, Any]:
    return {
        "title": "Longest word",
        "value": max((word.strip(".,;:!?") for word in text.split()), key=len, default=""),
    }


@registry.task("text.report")
def text_report(title: str, sections: list[dict[str, Any]]) -> dict[str, str]:
    body = "\n".join(f"* {section['title']}: {section['value']}" for section in sections)
    return {"path": write(place("report.md"), f"# {title}\n\n{body}\n"), "text": body}


# --- poll.yaml ---


@registry.task("jobs.start")
def jobs_start(ctx: TaskContext, ready_after: int) -> dict[str, str]:
    """Start a job that answers `ready_after` times that it is not ready; started once per task id."""
    job = place("jobs", f"{ctx.run_id}.json")
    if not job.exists():
        write(job, json.dumps({"not_yet": ready_after, "asked": 0}))
    return {"job": str(job)}


@registry.task("jobs.ask")
def jobs_ask(ctx: TaskContext, job: str) -> dict[str, Any]:
    """The answer of a job; raises NotReady while there is none."""
    state = json.loads(Path(job).read_text())
    write(Path(job), json.dumps({**state, "asked": state["asked"] + 1}))
    if state["asked"] < state["not_yet"]:
        raise NotReady(f"{job}: not ready when asked for time number {state['asked'] + 1}")
    note(ctx, "the job is ready")
    return {"answer": 42, "asked": state["asked"] + 1}
