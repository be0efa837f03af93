"""`stemflow cache clear` and `--no-cache`: cached results of workflows that the command line runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_run import follows_schema
from tests.cli.world import Cli


@pytest.fixture
def flow(project: Path) -> str:
    """A workflow whose task counts the lines of a file, to which it adds one, and is cached for an hour."""
    (project / "tasks.py").write_text(
        "from pathlib import Path\nfrom stemflow import TaskRegistry\n\nregistry = TaskRegistry()\n\n\n"
        '@registry.task("count", cache="1h")\nasync def count() -> int:\n'
        "    with Path('calls').open('a') as file:\n        file.write('x')\n"
        "    return len(Path('calls').read_text())\n"
    )
    (project / "cached.yaml").write_text(
        'stemflow: "1"\nname: cached\nsteps: {a: {task: count}}\noutputs: {n: "${{ steps.a.output }}"}\n'
    )
    return "cached.yaml"


def test_a_result_is_cached_until_it_is_cleared_and_unless_a_run_refuses_it(cli: Cli, flow: str) -> None:
    def count(*options: str) -> int:
        found: int = follows_schema("run", cli("run", flow, "--json", *options).out)["outputs"]["n"]
        return found

    assert [count(), count(), count("--no-cache"), count()] == [1, 1, 2, 1]
    assert follows_schema("cache_clear", cli("cache", "clear", "count", "--json").out) == {"cleared": "count"}
    assert [count(), count()] == [3, 3]
    assert cli("cache", "clear").out == "cleared the cached results of every task\n"
    assert count() == 4
