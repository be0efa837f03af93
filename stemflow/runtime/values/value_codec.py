"""Encoding and decoding the stored values of runs, each bound to the location where it is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry, Write, is_json
from stemflow.runtime.payloads.json_data import MAX_BYTES, decode


def value_location(origin: str, path: str, kind: str) -> str:
    """The name of the place where a value is stored; an encoder such as AES-GCM binds the ciphertext to it.

    `origin`: the id of the run, or of the run that it repeats, so that a rerun can read the values that it took over.
    `path`: the node's. `kind`: what is stored there, such as `result`, `inputs` or `items`.
    """
    return f"{origin}/{path}: {kind}"


class ValueCodec:
    """Decodes stored values by the encoder that wrote them, and makes the encoders of new ones.

    `origin_of`: the id under which the values of a run are located, see `value_location`. `signed`: records are
    verified, so that a plain value is what a process with a key has written.
    """

    def __init__(
        self, encoders: TaskPayloadEncoderRegistry, origin_of: Callable[[str], Awaitable[str]], signed: bool = False
    ) -> None:
        self.encoders, self._signed = encoders, signed
        self._origin_of = origin_of

    async def location(self, run: str, path: str, kind: str) -> str:
        """The location of a value of a run; the same in all reruns of the run."""
        return value_location(await self._origin_of(run), path, kind)

    async def read(self, encoded: bytes | None, run: str, path: str, kind: str) -> Any:
        """Decode a stored value; None is null. Raises UnknownEncoder, BadPayload."""
        if encoded is not None and self.encoders.may_protect:
            self.check(encoded, run, path, kind)
        if encoded is None or is_json(encoded):
            return decode(encoded)
        return self.encoders.read(encoded, await self.location(run, path, kind))

    def check(self, encoded: bytes, run: str, path: str, kind: str) -> None:
        """Raise BadPayload for a plain value where values are encrypted and records are not signed."""
        if not self._signed and self.encoders.may_protect:
            self.encoders.check_protection(encoded, kind, value_location(run, path, kind))

    async def writer(self, encoder: str, run: str, path: str, kind: str, limit: int = MAX_BYTES) -> Write:
        """The function that encodes values for one location; `limit` in bytes. Raises UnknownEncoder."""
        where = "" if encoder == "json" else await self.location(run, path, kind)
        return self.encoders.writer(encoder, where, limit=limit)
