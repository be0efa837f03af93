"""Servers of tests take a port that is free when they start, not only when it was chosen."""

from __future__ import annotations

import socket
from pathlib import Path

from stemflow.testing.servers.server import Server


def test_a_server_whose_port_was_taken_meanwhile_starts_on_another(one_server: Server, tmp_path: Path) -> None:
    server = Server(one_server.binary, tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", server.port))
        taken = server.port
        try:
            assert server.start().port != taken
        finally:
            server.kill()
