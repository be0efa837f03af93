"""The contract of a store: one test a promise of `stemflow.store.base`.

A test class inherits it and gives `make_store` and `second`; its methods are coroutines for pytest-asyncio.
"""

from __future__ import annotations

from stemflow.testing.contract_commit import CommitPromises
from stemflow.testing.contract_inbox import InboxPromises
from stemflow.testing.contract_keep import KeepPromises
from stemflow.testing.contract_lease import LeasePromises
from stemflow.testing.contract_notes import NotePromises
from stemflow.testing.contract_stock import StockPromises
from stemflow.testing.contract_wait import WaitPromises


class StoreContract(
    CommitPromises, LeasePromises, InboxPromises, WaitPromises, NotePromises, KeepPromises, StockPromises
):
    """Every promise that a store makes, on two users of the same data."""
