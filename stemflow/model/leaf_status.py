"""What the indexes of a store know of a leaf that its record does not contain."""

from __future__ import annotations

from msgspec import Struct

from stemflow.model.rates import Rate


class LeafStatus(Struct, frozen=True, kw_only=True):
    """The lease of a leaf, or its place in its queue. All instants are epoch milliseconds."""

    lease_until_ms: int | None = None
    """When its lease ends unless it is renewed; None: it is not leased."""
    ahead: int | None = None
    """How many ready leaves are leased before it: of its queue without rate limits, or with the same limits as it.
    None: it is not ready. A server may count some that have been cancelled while they waited."""
    limit: Rate | None = None
    """The rate limit that keeps it from starting now, if any; of several the one that opens last."""
    admits_at_ms: int | None = None
    """When this limit admits one more start."""
