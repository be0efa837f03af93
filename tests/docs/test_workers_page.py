"""The program of docs/workers.md runs as it is, on a server, next to a worker."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from stemflow import Canvas, Stemflow, TaskRegistry
from stemflow.testing.servers.server import Server

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"


async def test_the_program_of_the_page_submits_to_a_worker_elsewhere(one_server: Server) -> None:
    one_server.flush()
    # Given the program of the page, and its two tasks
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert '"redis://queue.internal/0"' in program
    program = program.replace('"redis://queue.internal/0"', "url")
    registry = TaskRegistry()

    @registry.task("fetch")
    async def fetch(number: int) -> str:
        return f"picture {number}"

    @registry.task("resize")
    async def resize(picture: str, width: int) -> str:
        return f"{picture} at {width}"

    names: dict[str, Any] = {
        "url": one_server.url, "registry": registry, "Stemflow": Stemflow, "Canvas": Canvas, "fetch": fetch,
        "resize": resize,
    }  # fmt: skip
    body = f"async def program():\n{textwrap.indent(program, '    ')}    return result\n"
    exec(compile(body, str(PAGE), "exec"), names)
    # When it runs while a worker serves the store
    async with Stemflow(one_server.url, registry):
        result = await names["program"]()
    # Then it has the result
    assert (result.status, result.value) == ("succeeded", "picture 7 at 640")
