"""A file that is not there is not a store: commands that look for something create none."""

from __future__ import annotations

import os.path

from stemflow.cli.exits import Refused
from stemflow.store.open import sqlite_path


def require_store(url: str) -> None:
    """Raise Refused if the URL names a database file that does not exist."""
    path = sqlite_path(url)
    if path is not None and not os.path.exists(path):
        raise Refused(
            f"store {url}: expected the file {path}, found none; `stemflow run`, `submit` and `worker` create it, "
            "--store URL or STEMFLOW_STORE names another store"
        )
