"""`stemflow metrics`, and the server of `--port` and `--metrics-port`."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stemflow import StemflowError
from stemflow.cli.metrics_server import serve_metrics
from tests.cli.world import Cli


@pytest.mark.usefixtures("project")
def test_metrics_are_printed_for_what_earlier_commands_did(cli: Cli) -> None:
    assert cli("run", "hello.yaml").code == 0
    printed = cli("metrics")
    families = {family.name: family for family in text_string_to_metric_families(printed.out)}
    (started,) = families["stemflow_runs_started"].samples
    assert (started.labels, started.value) == ({"workflow": "hello"}, 1)
    assert {sample.labels["state"] for sample in families["stemflow_tasks_ended"].samples} == {"succeeded"}


async def _asked(port: int, request: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_the_server_answers_get_alone_and_says_when_the_store_is_away() -> None:
    texts = ["stemflow_runs_kept 3\n"]

    async def text() -> str:
        if not texts:
            raise StemflowError("it is away; its password is secret")
        return texts.pop()

    server = await serve_metrics(text, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = await _asked(port, "GET /metrics?x=1")
    assert found.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert found.endswith("\r\n\r\nstemflow_runs_kept 3\n")
    assert "secret" not in (away := await _asked(port, "GET /metrics"))
    assert away.startswith("HTTP/1.1 503 ")
    assert (await _asked(port, "GET /healthz")).endswith("\r\n\r\nok\n")
    assert (await _asked(port, "HEAD /healthz")).endswith("\r\n\r\n")
    assert (await _asked(port, "GET /other")).startswith("HTTP/1.1 404 ")
    assert (await _asked(port, "POST /metrics")).startswith("HTTP/1.1 405 ")
    server.close()


@pytest.mark.usefixtures("project")
def test_a_port_that_is_taken_is_refused(cli: Cli) -> None:
    refused = cli("metrics", "--store", "memory:", "--port", "1", "--bind", "203.0.113.1")
    assert refused.code == 3
    assert "--port: cannot listen on 203.0.113.1:1: " in refused.err


def test_nothing_of_a_client_for_metrics_is_imported() -> None:
    program = (
        "import sys, stemflow.runtime.engine, stemflow.cli.worker, stemflow.cli.metrics\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'prometheus_client', 'opentelemetry'}))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
