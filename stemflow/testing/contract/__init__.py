"""The contract of a store: one test for each promise of `stemflow.store.base`.

A test class inherits `StoreContract` and provides `make_store` and `second`.
"""

from __future__ import annotations

from stemflow.testing.contract.suite import StoreContract

__all__ = ["StoreContract"]
