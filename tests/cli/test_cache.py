"""`stemflow cache clear` and `--no-cache`: cached results of workflows that the command line runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_run import follows_schema
from tests.cli.world import Cli


@pytest.fixture
def flow(project: Path) -> str:
    (project / "tasks.py").write_text(
        "from stemflow import TaskRegistry\n\nregistry = TaskRegistry()\nseen = []\n\n\n"
        '@registry.task("count", cache="1h")\nasync def count() -> int:\n'
        "    seen.append(1)\n    return len(seen)\n"
    )
    (project / "cached.yaml").write_text(
        'stemflow: "1"\nname: cached\nsteps: {a: {task: count}}\noutputs: {n: "${{ steps.a.output }}"}\n'
    )
    return "cached.yaml"


def test_a_result_is_cached_until_it_is_cleared_or_not_asked_for(cli: Cli, flow: str) -> None:
    first = cli("run", flow, "--json").json["outputs"]
    assert cli("run", flow, "--json").json["outputs"] == first
    assert cli("runs", "--json").json[0]["state"] == "succeeded"
    assert follows_schema("cache_clear", cli("cache", "clear", "count", "--json").out) == {"cleared": "count"}
    assert cli("cache", "clear").out == "cleared the cached results of every task\n"
