"""Where the value of a secret is."""

from __future__ import annotations

from msgspec import Struct

_INPUT = "inputs."


class SecretSource(Struct, frozen=True):
    """Where workers find the value of a secret: the name of a provider (`env` and `file` are built in), and a key."""

    provider: str
    key: str


IN_INPUTS = SecretSource("", "")
"""The source of an input that is secret: the run says where its value is."""


def of_input(name: str) -> str:
    """The name among secrets of an input that is secret."""
    return _INPUT + name


def input_of(secret: str) -> str | None:
    """The input that a name among secrets means; None if it is a secret of the file."""
    return secret.removeprefix(_INPUT) if secret.startswith(_INPUT) else None
