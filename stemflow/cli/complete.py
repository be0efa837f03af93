"""Completion of run ids in a shell."""

from __future__ import annotations

import asyncio
import os

from click.shell_completion import CompletionItem

from stemflow.cli.text import shown
from stemflow.runtime.client.run_list import public_state
from stemflow.runtime.clock import SystemClock
from stemflow.store.base import RunInfo, Store, StoreError
from stemflow.store.open import open_store, sqlite_path

MOST = 50


def complete_runs(url: str, incomplete: str) -> list[CompletionItem[str]]:
    """The newest runs whose ids begin with `incomplete`; none where the store is a server, or a file that is not there.

    A key press must not wait for a network, and must not create a database.
    """
    path = sqlite_path(url)
    if path is None or not os.path.isfile(path):
        return []
    try:
        found = asyncio.run(_runs(open_store(url, SystemClock()), incomplete))
    except StoreError:
        return []
    return [
        CompletionItem(one.header.run, help=f"{public_state(one.root.state)}  {shown(one.header.name)}")
        for one in found
    ]


async def _runs(store: Store, incomplete: str) -> list[RunInfo]:
    await store.open()
    try:
        return list(await store.runs(MOST, incomplete))
    finally:
        await store.close()
