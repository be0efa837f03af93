"""`stemflow metrics`: print the metrics of a store, or serve them for a scraper."""

from __future__ import annotations

import asyncio
import sys

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, Refused
from stemflow.cli.metrics_server import serve_metrics
from stemflow.cli.operator import operator_engine
from stemflow.cli.stopping import Stopping


def main(arguments: Arguments) -> int:
    """Print them once, or serve them until a signal."""
    return asyncio.run(_metrics(arguments))


async def _metrics(arguments: Arguments) -> int:
    async with operator_engine(arguments) as app:
        if arguments.port is None:
            print(await app.metrics(), end="")
            return FINE
        try:
            server = await serve_metrics(app.metrics, arguments.bind, arguments.port)
        except OSError as error:
            raise Refused(f"--port: cannot listen on {arguments.bind}:{arguments.port}: {error.strerror}") from error
        host, port = server.sockets[0].getsockname()[:2]
        print(f"metrics of {app.store.url} at http://{host}:{port}/metrics", file=sys.stderr, flush=True)
        with Stopping(0) as stopping:
            await stopping.warm.wait()
        server.close()
    return FINE
