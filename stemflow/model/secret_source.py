"""Where the value of a secret is."""

from __future__ import annotations

from msgspec import Struct


class SecretSource(Struct, frozen=True):
    """Where workers find the value of a secret: the name of a provider (`env` and `file` are built in), and a key."""

    provider: str
    key: str
