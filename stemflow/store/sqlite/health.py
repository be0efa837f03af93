"""How safe the file of an SQLite store is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from typing import Final

from stemflow.store.health import Finding, HealthReport
from stemflow.store.sqlite.schema import Synchronous

NETWORKED: Final = frozenset(
    ("9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "lustre", "nfs", "nfs4", "smb3", "smbfs")
)
PASSING: Final = frozenset({"ramfs", "tmpfs"})
LEAST_FREE: Final = 256 * 1024 * 1024
"""Bytes; with less free a disk counts as nearly full."""
LARGE: Final = 1024**3
"""A file of more bytes than this gets the quick check of its integrity."""


def check_health(url: str, path: str, synchronous: Synchronous) -> HealthReport:
    """Looks at the file from outside and makes none where there is none."""
    if not os.path.exists(path):
        text = f"expected a file at {path}, found none"
        return HealthReport((Finding("file", "error", text, "`run`, `submit` or `worker` make it"),), usable=False)
    found = [_file_system(path), _mode(path), _disk(path)]
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            found += [_journal(db, synchronous), _integrity(db, path)]
        finally:
            db.close()
    except sqlite3.Error as error:
        text = f"{url}: SQLite said {error}"
        found.append(Finding("integrity", "error", text, f"restore a copy, or `sqlite3 {path} .recover`"))
    return HealthReport(tuple(found), usable=all(one.level != "error" for one in found))


def _file_system(path: str) -> Finding:
    kind = file_system_of(os.path.abspath(path))
    if kind in NETWORKED:
        return Finding(
            "file-system", "error", f"the file is on {kind}, over a network, where SQLite cannot lock it reliably",
            "move it to a local disk, or use a store on Redis or Valkey",
        )  # fmt: skip
    if kind in PASSING:
        return Finding("file-system", "warning", f"the file is on {kind}: it is lost when the machine restarts",
                       "move it to a disk")  # fmt: skip
    if kind == "overlay":
        return Finding("file-system", "warning", "the file is in a container's own layer: it is lost with the "
                       "container", "mount a volume and keep it there")  # fmt: skip
    return Finding("file-system", "ok", f"the file is on {kind or 'a file system whose kind is not known here'}")


def file_system_of(path: str, mounts: str = "/proc/mounts") -> str:
    """The kind of file system that contains `path`, or an empty text where that cannot be found out."""
    try:
        with open(mounts, encoding="utf-8", errors="replace") as file:
            known = [line.split(" ") for line in file]
    except OSError:
        return ""
    real, best = os.path.realpath(path), ("", "")
    for _, mounted, kind, *_ in known:
        place = mounted.encode().decode("unicode_escape")
        if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]


def _mode(path: str) -> Finding:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        return Finding("mode", "warning", f"the file has mode {mode:04o}: others than its user may read results, or "
                       "change them", f"`chmod 600 {path}`")  # fmt: skip
    return Finding("mode", "ok", "the file is for its user alone")


def _disk(path: str) -> Finding:
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    size = sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))
    text = f"{_bytes(size)} used, {_bytes(free)} free on its disk"
    if free < LEAST_FREE:
        return Finding("disk", "warning", text, "free some space before commits fail")
    return Finding("disk", "ok", text)


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}"


def _journal(db: sqlite3.Connection, synchronous: Synchronous) -> Finding:
    (mode,) = db.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        return Finding("durability", "error", f"expected the journal mode wal, got {mode}", "use a local disk")
    if synchronous == "full":
        return Finding("durability", "ok", "journal WAL, synchronous FULL: an acknowledged commit is on the disk")
    return Finding(
        "durability", "ok",
        "journal WAL, synchronous NORMAL: a killed process loses nothing; a loss of power may take the last commits "
        "and leaves a consistent earlier state",
    )  # fmt: skip


def _integrity(db: sqlite3.Connection, path: str) -> Finding:
    check = "quick_check" if os.path.getsize(path) > LARGE else "integrity_check"
    said = [text for (text,) in db.execute(f"PRAGMA {check}(5)").fetchall()]
    if said != ["ok"]:
        return Finding("integrity", "error", f"{check} said {'; '.join(said)}",
                       f"restore a copy, or `sqlite3 {path} .recover`")  # fmt: skip
    return Finding("integrity", "ok", f"{check} of SQLite {sqlite3.sqlite_version} found nothing amiss")
