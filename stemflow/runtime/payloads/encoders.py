"""Payload encoders: turn values into the bytes that are stored, and back.

JSON is stored as it is. Bytes of any other encoder begin with a mark that JSON cannot begin with, and with the id of
the encoder, so a stored value names the encoder that can read it.
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
"""The first byte of a value that is not JSON; then come the length of the id in one byte, the id, and the content."""

ARGS_HEADER: Final = "stem-args-encoder"
ARGS_META: Final = "__stemArgsEncoder"
RESULT_META: Final = "__stemResultEncoder"

Write = Callable[[Any, str], bytes]
"""Encodes a value for one location. The text begins the message of an error. Raises NotSerializable."""


class UnknownEncoder(StemflowError):
    """A stored value was written by an encoder, or under a key, that this process does not have."""


class BadPayload(StemflowError):
    """A stored value cannot be read by the encoder that it names."""


class TaskPayloadEncoder(ABC):
    """Base class of encoders. `id`: the name in stored values, 1 to 255 bytes; never give it to another encoder.

    class Msgpack(TaskPayloadEncoder):
        id = "msgpack"

        def encode(self, value):
            return msgspec.msgpack.encode(value)

        def decode(self, encoded):
            return msgspec.msgpack.decode(encoded)

    registry.encoders.register(Msgpack())
    """

    id: str
    protects: bool = False
    """Whether a value that it has written cannot be read or made without a key."""

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Encode JSON data, the `value`. What it raises fails the call or the task as NotSerializable."""

    @abstractmethod
    def decode(self, encoded: bytes) -> Any:
        """Decode bytes that `encode` has returned, `encoded`. What it raises becomes BadPayload."""

    def at(self, place: str) -> TaskPayloadEncoder:
        """Return the encoder for one location, the `place`: text that names run, node and kind of value.

        The default returns this encoder; one that binds its bytes to their location returns another.
        """
        return self


class JsonEncoder(TaskPayloadEncoder):
    """Strict JSON, the default. `max_bytes`: the limit of the encoded text."""

    id = "json"

    def __init__(self, max_bytes: int = 64 * MAX_BYTES) -> None:
        self.max_bytes = max_bytes

    def encode(self, value: Any) -> bytes:
        return payload.encode(value, "value", limit=self.max_bytes)

    def decode(self, encoded: bytes) -> Any:
        return payload.decode(encoded)


class GzipEncoder(TaskPayloadEncoder):
    """JSON compressed by gzip.

    `level`: 1 (fast) to 9 (small). What expands to more than `max_bytes` bytes, or more than `max_ratio` times, is
    refused while it expands.
    """

    id = "gzip"

    def __init__(self, level: int = 6, max_bytes: int = 16 * MAX_BYTES, max_ratio: int = 200) -> None:
        self.level, self.max_bytes, self.max_ratio = level, max_bytes, max_ratio

    def encode(self, value: Any) -> bytes:
        plain = payload.encode(value, "value", limit=self.max_bytes)
        packed = _gzip(plain, self.level)
        # What `decode` would refuse as a bomb is stored without compression.
        return packed if len(packed) * self.max_ratio >= len(plain) else _gzip(plain, 0)

    def decode(self, encoded: bytes) -> Any:
        most = min(self.max_bytes, len(encoded) * self.max_ratio)
        reader = zlib.decompressobj(wbits=31)
        plain = reader.decompress(encoded, most + 1)
        if len(plain) > most:
            raise BadPayload(
                f"gzip: expected at most {most} bytes from {len(encoded)}, got more; if it is valid, "
                "raise max_bytes or max_ratio of GzipEncoder"
            )
        if not reader.eof or reader.unused_data:
            raise BadPayload("gzip: expected one whole stream, got one that is cut off or followed by something")
        return payload.decode(plain)


def _gzip(plain: bytes, level: int) -> bytes:
    writer = zlib.compressobj(level, wbits=31)
    return writer.compress(plain) + writer.flush()


class TaskPayloadEncoderRegistry:
    """The encoders of a process by id, and the defaults of tasks that name none.

    `encoders`: those besides `json`. `args`, `results`: ids of the default encoders. `accept_plain`: also read values
    without protection where the default encoder protects (AES-GCM) and records are not signed, for the time in which
    encryption is introduced. Raises OptionError for an id that is taken or unknown.

        encoders = TaskPayloadEncoderRegistry(GzipEncoder(), results="gzip")
        app = Stemflow(url, registry, encoders=encoders)
    """

    def __init__(
        self, *encoders: TaskPayloadEncoder, args: str = "json", results: str = "json", accept_plain: bool = False
    ) -> None:
        self.accept_plain = accept_plain
        self.may_protect = False
        """Whether an encoder is known that protects what it writes."""
        self._encoders: dict[str, TaskPayloadEncoder] = {"json": JsonEncoder()}
        for encoder in encoders:
            self.register(encoder)
        self.args, self.results = self._known(args, "encoders"), self._known(results, "encoders")

    def register(self, encoder: TaskPayloadEncoder) -> None:
        """Add `encoder`, whose id must be new. Raises OptionError."""
        if not 0 < len(encoder.id.encode()) < 256:
            raise OptionError(f"encoders: expected an id of 1 to 255 bytes, got {encoder.id!r}")
        if encoder.id in self._encoders:
            raise OptionError(f"encoders: {encoder.id!r} is registered already; give each encoder an id of its own")
        self._encoders[encoder.id] = encoder
        self.may_protect = self.may_protect or encoder.protects

    def __contains__(self, name: object) -> bool:
        return name in self._encoders

    def __iter__(self) -> Iterator[TaskPayloadEncoder]:
        """The registered encoders in order, without `json`."""
        return (encoder for name, encoder in self._encoders.items() if name != "json")

    def protects(self, name: str) -> bool:
        """Whether the encoder with the id `name` is known here and protects what it writes."""
        return name in self._encoders and self._encoders[name].protects

    def check_protection(self, encoded: bytes, kind: str, place: str) -> None:
        """Raise BadPayload for a value that anybody could have written, where the default encoder protects.

        Only for stores whose records are not signed: a signature covers values, too. `encoded`: as it is stored.
        `kind`: `result`, or another kind, which is given by a caller. `place`: names it in the message.
        """
        default = self.results if kind == "result" else self.args
        if not self.accept_plain and self.protects(default) and not self.protects(encoder_of(encoded)):
            raise BadPayload(
                f"value of {place!r}: expected one that {default!r} has written, got a plain one, which anybody with "
                "access to the store can write; sign records (SigningKeys), or pass accept_plain=True to "
                "TaskPayloadEncoderRegistry while encryption is introduced"
            )

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
        """The function that encodes values for the location `place` by the encoder `name`, to at most `limit` bytes.

        Raises UnknownEncoder.
        """
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
        """Decode the bytes `encoded`, stored at the location `place`. Raises UnknownEncoder, BadPayload."""
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
    """The ids of the encoders of arguments and result as headers and meta of the context; none for JSON."""

    headers: Mapping[str, str]
    meta: Mapping[str, str]


JSON_ONLY: Final = EncoderNames({}, {})
"""The names of a task whose arguments and result are JSON."""


def encoder_names(
    node: Node, leaf: LeafPlan, options: Options, header: Header, encoders: TaskPayloadEncoderRegistry
) -> EncoderNames:
    if leaf.sealed is not None:
        args = encoder_of(leaf.sealed.body)
    else:
        args = (options.args_encoder or encoders.args) if node.path else encoder_of(header.inputs)
    result = options.result_encoder or encoders.results
    if args == result == "json":
        return JSON_ONLY
    headers = {} if args == "json" else {ARGS_HEADER: args}
    meta = {} if args == "json" else {ARGS_META: args}
    return EncoderNames(headers, meta if result == "json" else {**meta, RESULT_META: result})


def is_json(encoded: bytes) -> bool:
    """Whether a stored value is JSON without a mark."""
    return encoded[0] != FRAME


def encoder_of(encoded: bytes | None) -> str:
    """The id of the encoder that has written a stored value."""
    if encoded is None or is_json(encoded):
        return "json"
    return encoded[2 : 2 + encoded[1]].decode(errors="replace")
