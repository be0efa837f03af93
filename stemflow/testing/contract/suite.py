"""The contract of a store: one test for each promise of `stemflow.store.base`.

A test class inherits it and implements `make_store` and `second`; its methods are coroutines for pytest-asyncio.
"""

from __future__ import annotations

from stemflow.testing.contract.commit import CommitPromises
from stemflow.testing.contract.hints import HintPromises
from stemflow.testing.contract.inbox import InboxPromises
from stemflow.testing.contract.inventory import StockPromises
from stemflow.testing.contract.lease import LeasePromises
from stemflow.testing.contract.retention import KeepPromises
from stemflow.testing.contract.tasks import TaskPromises
from stemflow.testing.contract.wait import WaitPromises


class StoreContract(
    CommitPromises, LeasePromises, TaskPromises, InboxPromises, WaitPromises, HintPromises, KeepPromises, StockPromises
):
    """A test for every promise of a store, with two users of the same data."""
