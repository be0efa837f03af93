"""A client of the language server protocol, for tests of servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any


class Client:
    """A client over the pipes of a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.count = process, 0

    def send(self, **message: Any) -> None:
        assert self.process.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def read(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            length = 0
            while (line := self.process.stdout.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            found: dict[str, Any] = json.loads(self.process.stdout.read(length))
            if wanted(found):
                return found

    def ask(self, method: str, params: Any) -> Any:
        self.count += 1
        self.send(id=self.count, method=method, params=params)
        found = self.read(lambda message: message.get("id") == self.count)
        assert "error" not in found, found
        return found["result"]
