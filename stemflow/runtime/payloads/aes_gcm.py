"""Encryption of payloads with AES-GCM; needs the extra `crypto`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stemflow.errors import OptionError
from stemflow.runtime.payloads.encoders import BadPayload, JsonEncoder, TaskPayloadEncoder, UnknownEncoder

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as error:  # pragma: no cover
    raise ModuleNotFoundError(
        "AesGcmEncoder: expected the package cryptography; install stemflow-engine[crypto]"
    ) from error

NONCE_BYTES = 12
"""Random nonces: rotate a key before it has encrypted 2**32 values."""


class AesGcmEncoder(TaskPayloadEncoder):
    """Encrypts with AES-GCM what another encoder has written.

    `keys`: 16, 24 or 32 bytes by key id. `active`: the id of the key that encrypts; all of them decrypt. `inner`: the
    encoder of the plaintext; default: JSON. Raises OptionError.

    A ciphertext is bound to its run, node and kind of value: copied to another location it cannot be decrypted. To
    rotate keys, add the new one to every process, make it active, and remove the old one when no value that it has
    encrypted is stored any more. Where it is the default and records are not signed, plain values are refused.

        encoder = AesGcmEncoder({"2026-11": key}, active="2026-11")
        app = Stemflow(url, registry, encoders=TaskPayloadEncoderRegistry(encoder, args="aes-gcm", results="aes-gcm"))
    """

    id = "aes-gcm"
    protects = True

    def __init__(self, keys: Mapping[str, bytes], active: str, inner: TaskPayloadEncoder | None = None) -> None:
        if active not in keys:
            raise OptionError(f"AesGcmEncoder: expected the active key among {', '.join(keys) or 'none'}, got {active}")
        for name, key in keys.items():
            if len(key) not in (16, 24, 32) or not 0 < len(name.encode()) < 256:
                raise OptionError(
                    f"AesGcmEncoder: key {name!r}: expected 16, 24 or 32 bytes under an id of 1 to 255, got {len(key)}"
                )
        self.active = active
        self.inner = inner or JsonEncoder()
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self._place = ""

    def at(self, place: str) -> TaskPayloadEncoder:
        twin = object.__new__(AesGcmEncoder)
        twin.__dict__.update(self.__dict__)
        twin.inner, twin._place = self.inner.at(place), place
        return twin

    def encode(self, value: Any) -> bytes:
        name = self.active.encode()
        # Not from the IdSource: a nonce that a seed repeats would give the plaintext away.
        head, nonce = bytes((len(name),)) + name, os.urandom(NONCE_BYTES)
        plain = self.inner.encode(value)
        return head + nonce + self._ciphers[self.active].encrypt(nonce, plain, self._bound(head))

    def decode(self, encoded: bytes) -> Any:
        end = 1 + encoded[0]
        head, nonce, rest = encoded[:end], encoded[end : end + NONCE_BYTES], encoded[end + NONCE_BYTES :]
        name = head[1:].decode(errors="replace")
        cipher = self._ciphers.get(name)
        if cipher is None:
            known = ", ".join(self._ciphers)
            raise UnknownEncoder(f"value of {self._place!r}: expected a key among {known}, got {name!r}; add it")
        try:
            plain = cipher.decrypt(nonce, rest, self._bound(head))
        except InvalidTag:
            raise BadPayload(
                f"value of {self._place!r}: it was altered, moved from another place, or written under another key "
                f"of the id {name!r}"
            ) from None
        return self.inner.decode(plain)

    def _bound(self, head: bytes) -> bytes:
        return b"stemflow-aes-gcm-1\0" + head + self._place.encode()
