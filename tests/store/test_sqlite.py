"""What is particular to the store in a file."""

import asyncio
import os
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest

from stemflow.store.base import Renewed, Store, StoreError, StoreUnavailable
from stemflow.store.open import open_store
from stemflow.store.process_owner import owner_id
from stemflow.store.sqlite import schema as sqlite_schema
from stemflow.store.sqlite import store as sqlite
from stemflow.store.sqlite.schema import refused
from stemflow.testing.contract.world import RUN, ManualClock, User, create, leaf, paths


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store.db"


@pytest.fixture
def prose(path: Path) -> Path:
    """A file that holds a text."""
    path.parent.mkdir()
    path.write_text("not a database, but long enough to have a header " * 20)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def store_at(path: Path) -> Store:
    return open_store(f"sqlite:{path}", ManualClock())


async def refusal(path: Path) -> str:
    """The sentence with which opening is refused."""
    store = store_at(path)
    with pytest.raises(StoreError) as caught:
        await store.open()
    return str(caught.value).replace(str(path), "PATH")


def altered(path: Path, statement: str) -> None:
    path.parent.mkdir(exist_ok=True)
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


async def test_records_are_there_after_the_file_is_opened_again(path: Path) -> None:
    for _ in range(2):
        store = store_at(path)
        await store.open()
        await User(store, "one").commit(create(leaf("a")))
        assert await store.read([(RUN, "a")]) == [leaf("a")]
        await store.close()


async def test_the_file_and_its_directory_are_for_their_user_alone(path: Path) -> None:
    store = store_at(path)
    await store.open()
    files = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (path.parent, *path.parent.iterdir())}
    await store.close()
    assert files == {"deep": 0o700, "store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    altered(path, "CREATE TABLE things (name TEXT)")
    before = content(path)
    sentence = "sqlite:PATH: expected a stemflow store, got a database of another program; choose another path"
    assert await refusal(path) == sentence
    assert content(path) == before


@pytest.mark.parametrize(("version", "age"), [(0, "an older"), (99, "a newer")])
async def test_a_store_of_another_version_is_refused(path: Path, version: int, age: str) -> None:
    store = store_at(path)
    await store.open()
    await store.close()
    altered(path, f"PRAGMA user_version = {version}")
    assert await refusal(path) == (
        f"sqlite:PATH: expected a store of version {sqlite_schema.VERSION}, got version {version}, "
        f"written by {age} stemflow; use that version of stemflow, or choose another path"
    )


async def test_a_file_that_is_no_database_is_refused(prose: Path) -> None:
    sentence = "sqlite:PATH: expected an SQLite database, got another kind of file; choose another path"
    assert await refusal(prose) == sentence


async def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = await refusal(tmp_path / "file" / "store.db")
    assert sentence.startswith("sqlite:PATH: cannot open the file (")
    assert sentence.endswith("make its directory writable for this user or choose another path")


async def test_a_lock_that_is_not_given_back_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE_MS", 15)
    store = store_at(path)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"another process has held the write lock for 5 s; `fuser .*` names it"):
        await User(store, "one").begin(leaf("a"))
    other.execute("ROLLBACK")
    await User(store, "one").begin(leaf("a"))
    other.close()
    await store.close()


async def test_a_write_waits_for_the_writer_before_it(path: Path) -> None:
    store = store_at(path)
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(User(store, "one").begin(leaf("a")))
    await asyncio.sleep(0)
    assert not writing.done()
    other.execute("COMMIT")
    await asyncio.wait_for(writing, 10)
    other.close()
    await store.close()


async def test_a_store_that_is_closed_says_so(path: Path) -> None:
    store = store_at(path)
    with pytest.raises(StoreError, match=r"call `await store.open\(\)`"):
        await store.nodes(RUN)


async def test_leases_are_renewed_from_another_thread(path: Path) -> None:
    store = store_at(path)
    await store.open()
    user = User(store, "one")
    await user.begin(leaf("a"))
    await user.lease()
    renewer, found = store.renewer(), list[Renewed]()
    thread = threading.Thread(target=lambda: found.append(renewer.renew([((RUN, "a"), 1, 100), ((RUN, "b"), 1, 100)])))
    thread.start()
    thread.join(10)
    renewer.close()
    await store.close()
    assert found == [Renewed(gone=(((RUN, "b"), 1),), stopping=())]


async def test_an_idle_worker_does_not_write(path: Path) -> None:
    store = store_at(path)
    await store.open()
    watcher = sqlite3.connect(path)
    before = watcher.execute("PRAGMA data_version").fetchone()
    for _ in range(3):
        await User(store, "one").ask()
        await store.take_expired("one", 10)
    assert watcher.execute("PRAGMA data_version").fetchone() == before
    watcher.close()
    await store.close()


async def test_the_lease_of_a_dead_process_is_lost_at_once(path: Path) -> None:
    program = "from stemflow.store.process_owner import owner_id; print(owner_id('w'))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    store = store_at(path)
    await store.open()
    await User(store, "one").begin(leaf("a"), leaf("b"))
    (dead,) = await User(store, "dead").lease(1, owner=printed.decode().strip())
    await User(store, "live").lease(1, owner=owner_id("w"))
    lost = await store.take_expired("two", 10)
    await store.close()
    assert paths(lost) == [dead.node.path]


async def test_the_bare_url_is_the_store_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:", ManualClock())
    await store.open()
    await store.close()
    assert os.listdir(tmp_path / ".stemflow") == ["stemflow.db"]


@pytest.mark.parametrize("url", ["sqlite", "memory:x", "store.db", "", "sqlite::memory:"])
def test_a_url_that_names_no_store_is_refused_with_those_that_do(url: str) -> None:
    with pytest.raises(StoreError, match="expected memory:, sqlite:PATH or redis:"):
        open_store(url, ManualClock())


async def test_a_note_is_there_after_the_file_is_opened_again(path: Path) -> None:
    found = []
    for _ in range(2):
        store = store_at(path)
        await store.open()
        found.append(await store.hints("topic"))
        await store.put_hint("topic", "a", b"1", 1_000)
        await store.close()
    assert found == [{}, {"a": b"1"}]


async def test_notes_past_their_time_leave_nothing_in_the_file(path: Path) -> None:
    clock = ManualClock()
    store = open_store(f"sqlite:{path}", clock)
    await store.open()
    await store.put_hint("topic", "a", b"1", 1_000)
    clock.advance(1_000)
    await store.put_hint("another", "b", b"2", 1_000)
    await store.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM hints").fetchall() == [("b",)]
    db.close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR | (3 << 8)])
def test_a_full_disk_is_reported_as_a_transient_error(code: int) -> None:
    error = sqlite3.OperationalError("disk")
    error.sqlite_errorcode = code
    assert isinstance(refused("sqlite:x", "x", error), StoreUnavailable)


@pytest.mark.parametrize(("given", "pragma", "text"), [("", 1, "NORMAL"), ("?synchronous=full", 2, "FULL")])
async def test_a_url_says_whether_commits_wait_for_the_disk(path: Path, given: str, pragma: int, text: str) -> None:
    store = open_store(f"sqlite:{path}{given}", ManualClock())
    assert isinstance(store, sqlite.SqliteStore)
    await store.open()
    assert store._db.execute("PRAGMA synchronous").fetchone() == (pragma,)
    (found,) = [one for one in (await store.check_health()).findings if one.check == "durability"]
    await store.close()
    assert text in found.text


async def test_a_file_that_others_may_read_is_reported(path: Path) -> None:
    store = store_at(path)
    await store.open()
    modes = []
    for mode in (0o600, 0o666):
        os.chmod(path, mode)
        modes += [one.level for one in (await store.check_health()).findings if one.check == "mode"]
    await store.close()
    assert modes == ["ok", "warning"]


async def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").symlink_to(tmp_path / "gone.db")
    assert "it is a link to" in await refusal(tmp_path / "store.db")
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize("names", [("store.db",), ("store.db-wal",), ("store.db", "store.db-wal", "store.db-shm")])
@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
async def test_a_file_that_was_deleted_or_replaced_is_noticed(
    path: Path, names: tuple[str, ...], replaced: bool
) -> None:
    clock = ManualClock()
    store = open_store(f"sqlite:{path}", clock)
    await store.open()
    user = User(store, "one")
    await user.begin(leaf("a"))
    for name in names:
        file = path.parent / name
        copy = file.read_bytes()
        file.rename(path.parent / f"{name}.away")
        if replaced:
            file.write_bytes(copy)
    clock.advance(sqlite.CHECK_MS)
    for work in (user.ask, user.lease, lambda: user.begin(run="s")):
        with pytest.raises(StoreError, match="was deleted or replaced while it was in use"):
            await work()
    await store.close()
