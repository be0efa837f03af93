"""What Python and Lua share has one place: names in the scripts, values from `layout.py`."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
import redis

from stemflow.store.base import StoreError
from stemflow.store.redis import layout
from stemflow.store.redis.open import open_redis
from stemflow.store.redis.scripts import source_of
from stemflow.testing.contract.world import ManualClock
from stemflow.testing.servers.server import Server

FOLDER = files("stemflow.store.redis") / "lua"
SCRIPTS = sorted(one.name.removesuffix(".lua") for one in FOLDER.iterdir() if one.name.endswith(".lua"))
SOURCES = sorted(Path(str(FOLDER)).rglob("*.lua"))
NAMES = re.compile(rf"\b({'|'.join(layout.VALUES)})\.(\w+)")


def code(path: Path) -> str:
    return "\n".join(line.partition("--")[0] for line in path.read_text().splitlines())


def test_no_name_is_left_in_what_the_server_is_given() -> None:
    assert SCRIPTS
    for name in SCRIPTS:
        lines = [line.partition("--")[0] for line in source_of(name).splitlines()]
        assert not [line for line in lines if NAMES.search(line)]


def test_a_name_that_the_layout_does_not_have_is_an_error() -> None:
    assert layout.generated("put[PUT.guard] -- PUT.nothing") == "put[3] -- PUT.nothing"
    with pytest.raises(KeyError):
        layout.generated("put[PUT.gaurd]")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_scripts_name_keys_channels_and_the_fields_of_requests(path: Path) -> None:
    text = code(path)
    assert not re.findall(r"P \.\. '", text)
    assert not re.findall(r"BASE \.\. '", text)
    assert not re.findall(r"\b(?:request|decision|put|one|want|letter|memo|ready)\[\d+\]", text)


def test_every_key_and_every_position_is_used_by_a_script() -> None:
    used = set().union(*(NAMES.findall(code(path)) for path in SOURCES))
    by_python = {("KEY", "root"), ("KEY", "followers")}
    for group in ("KEY", "CHANNEL", "LIMIT"):
        assert {(group, name) for name in layout.VALUES[group]} - used <= by_python


def test_no_two_keys_share_their_first_byte_with_each_other_or_with_the_name_of_a_run() -> None:
    letters = [family.value for family in layout.KeyFamily if family is not layout.KeyFamily.root]
    assert len(set(letters)) == len(letters)
    assert not {b"r", b"t"} & set(letters)


async def test_data_of_another_format_are_refused_and_left_alone(server: Server) -> None:
    url = f"{server.url}?prefix=format"
    store = open_redis(url, ManualClock())
    await store.open()
    await store.close()
    client = redis.Redis.from_url(server.url)
    meta = b"{format:0}" + layout.KeyFamily.meta.value
    for value, age in ((None, "an older"), (layout.FORMAT + 1, "a newer")):
        client.hdel(meta, "format") if value is None else client.hset(meta, "format", value)
        before = client.hgetall(meta)
        other = open_redis(url, ManualClock())
        with pytest.raises(StoreError, match=rf"expected data in format {layout.FORMAT}, .*written by {age} stemflow"):
            await other.open()
        assert client.hgetall(meta) == before
    client.close()
