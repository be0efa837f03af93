"""Payload encoders: how values become the bytes that are stored, and which encoder reads them again.

JSON stands bare. Bytes of any other encoder begin with a mark that no JSON begins with and with the encoder's id, so
each value says itself how it is to be read, wherever it travels.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from stemflow.errors import OptionError, StemflowError
from stemflow.model.plan import LeafPlan
from stemflow.model.policy import Options
from stemflow.model.records import Header, Node
from stemflow.runtime.payloads import json_data as payload
from stemflow.runtime.payloads.json_data import MAX_BYTES, NotSerializable

FRAME: Final = 0
"""The first byte of a value that is not bare JSON; then one byte with the length of the id, the id, and the rest."""

ARGS_HEADER: Final = "stem-args-encoder"
ARGS_META: Final = "__stemArgsEncoder"
RESULT_META: Final = "__stemResultEncoder"

Write = Callable[[Any, str], bytes]
"""Encodes a value for one place; the text begins the sentence when it cannot be."""


class UnknownEncoder(StemflowError):
    """A value was written by an encoder, or under a key, that this process does not have."""


class BadPayload(StemflowError):
    """A stored value cannot be read by the encoder that it names."""


class TaskPayloadEncoder(ABC):
    """Turns values into bytes and back. `id` names it in what is stored: never give it to another encoder."""

    id: str

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Bytes of `value`; raises when it cannot be encoded."""

    @abstractmethod
    def decode(self, encoded: bytes) -> Any:
        """The value of `encoded`; raises when that was not written by this encoder."""

    def at(self, place: str) -> TaskPayloadEncoder:
        """This encoder for one place (run, node and kind of value); one that binds bytes to their place answers
        another."""
        return self


class JsonEncoder(TaskPayloadEncoder):
    """Strict JSON, the default. `max_bytes` bounds the text."""

    id = "json"

    def __init__(self, max_bytes: int = 64 * MAX_BYTES) -> None:
        self.max_bytes = max_bytes

    def encode(self, value: Any) -> bytes:
        return payload.encode(value, "value", limit=self.max_bytes)

    def decode(self, encoded: bytes) -> Any:
        return payload.decode(encoded)


class GzipEncoder(TaskPayloadEncoder):
    """JSON, compressed. What expands to more than `max_bytes`, or `max_ratio`-fold, is refused while it expands."""

    id = "gzip"

    def __init__(self, level: int = 6, max_bytes: int = 16 * MAX_BYTES, max_ratio: int = 200) -> None:
        self.level, self.max_bytes, self.max_ratio = level, max_bytes, max_ratio

    def encode(self, value: Any) -> bytes:
        plain = payload.encode(value, "value", limit=self.max_bytes)
        packed = _gzip(plain, self.level)
        # What its own reader would take for a bomb is stored without compression.
        return packed if len(packed) * self.max_ratio >= len(plain) else _gzip(plain, 0)

    def decode(self, encoded: bytes) -> Any:
        most = min(self.max_bytes, len(encoded) * self.max_ratio)
        reader = zlib.decompressobj(wbits=31)
        plain = reader.decompress(encoded, most + 1)
        if len(plain) > most:
            raise BadPayload(
                f"gzip: expected at most {most} bytes from {len(encoded)}, got more; if it is genuine, "
                "raise max_bytes or max_ratio of GzipEncoder"
            )
        if not reader.eof or reader.unused_data:
            raise BadPayload("gzip: expected one whole stream, got one that is cut off or followed by something")
        return payload.decode(plain)


def _gzip(plain: bytes, level: int) -> bytes:
    writer = zlib.compressobj(level, wbits=31)
    return writer.compress(plain) + writer.flush()


class TaskPayloadEncoderRegistry:
    """The encoders that a process knows, by id, and which of them write where a task names none.

    `args` and `results` are ids; `json` is always there. Raises OptionError for an id that is taken or not known.
    """

    def __init__(self, *encoders: TaskPayloadEncoder, args: str = "json", results: str = "json") -> None:
        self._encoders: dict[str, TaskPayloadEncoder] = {"json": JsonEncoder()}
        for encoder in encoders:
            self.register(encoder)
        self.args, self.results = self._known(args, "encoders"), self._known(results, "encoders")

    def register(self, encoder: TaskPayloadEncoder) -> None:
        """Add an encoder; its id must be new, of 1 to 255 bytes."""
        if not 0 < len(encoder.id.encode()) < 256:
            raise OptionError(f"encoders: expected an id of 1 to 255 bytes, got {encoder.id!r}")
        if encoder.id in self._encoders:
            raise OptionError(f"encoders: {encoder.id!r} is registered already; give each encoder an id of its own")
        self._encoders[encoder.id] = encoder

    def __contains__(self, name: object) -> bool:
        return name in self._encoders

    def __iter__(self) -> Iterator[TaskPayloadEncoder]:
        """Those that were registered, in order; `json` is not among them."""
        return (encoder for name, encoder in self._encoders.items() if name != "json")

    def _known(self, name: str, where: str) -> str:
        if name not in self._encoders:
            raise OptionError(f"{where}: there is no encoder {name!r}; known are {self._names()}")
        return name

    def _names(self) -> str:
        return ", ".join(sorted(self._encoders))

    def _get(self, name: str, what: str) -> TaskPayloadEncoder:
        found = self._encoders.get(name)
        if found is None:
            raise UnknownEncoder(
                f"{what}: expected an encoder that is known here ({self._names()}), got {name!r}; "
                "add it with Stemflow(encoders=...)"
            )
        return found

    def writer(self, name: str, place: str, *, limit: int = MAX_BYTES) -> Write:
        """What encodes by the encoder `name` for `place`; raises UnknownEncoder. At most `limit` bytes are stored."""
        if name == "json":
            return lambda value, what: payload.encode(value, what, limit=limit)
        encoder = self._get(name, f"encoder of {place!r}").at(place)
        mark = bytes((FRAME, len(name.encode()))) + name.encode()

        def write(value: Any, what: str) -> bytes:
            try:
                encoded = mark + encoder.encode(value)
            except StemflowError as error:
                raise NotSerializable(f"{what}: {error}") from error
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                raise NotSerializable(f"{what}: encoder {name!r} cannot write this value: {text}") from error
            return payload.within(encoded, what, limit)

        return write

    def read(self, encoded: bytes, place: str) -> Any:
        """The value of what was stored at `place`; raises UnknownEncoder, BadPayload."""
        if is_json(encoded):
            return payload.decode(encoded)
        end = 2 + encoded[1] if len(encoded) > 1 else 2
        name = encoded[2:end].decode(errors="replace")
        what = f"value of {place!r}"
        encoder = self._get(name, what).at(place)
        try:
            return encoder.decode(encoded[end:])
        except StemflowError:
            raise
        except Exception as error:
            raise BadPayload(f"{what}: encoder {name!r} cannot read it: {type(error).__name__}: {error}") from error


class EncoderNames(NamedTuple):
    """What a handler finds in its context of the encoders of its arguments and its result, unless they are JSON."""

    headers: Mapping[str, str]
    meta: Mapping[str, str]


def encoder_names(
    node: Node, leaf: LeafPlan, options: Options, header: Header, encoders: TaskPayloadEncoderRegistry
) -> EncoderNames:
    if leaf.sealed is not None:
        args = encoder_of(leaf.sealed.body)
    else:
        args = (options.args_encoder or encoders.args) if node.path else encoder_of(header.inputs)
    result = options.result_encoder or encoders.results
    headers = {} if args == "json" else {ARGS_HEADER: args}
    meta = {} if args == "json" else {ARGS_META: args}
    return EncoderNames(headers, meta if result == "json" else {**meta, RESULT_META: result})


def is_json(encoded: bytes) -> bool:
    """Whether a stored value stands bare."""
    return encoded[0] != FRAME


def encoder_of(encoded: bytes | None) -> str:
    """The id of the encoder that wrote a stored value."""
    if encoded is None or is_json(encoded):
        return "json"
    return encoded[2 : 2 + encoded[1]].decode(errors="replace")
