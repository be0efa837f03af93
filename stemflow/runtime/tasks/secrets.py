"""Secrets of a workflow: where their values come from, and how these are kept out of what is stored and logged.

A plan has only the source of a secret. Its value is read in the worker right before a handler is called, for every
attempt again, and is never stored.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from stemflow.errors import OptionError, StemflowError
from stemflow.model.facts import Failed
from stemflow.model.records import ErrorInfo
from stemflow.model.secret_source import SecretSource, input_of
from stemflow.runtime.payloads.encoders import Write
from stemflow.runtime.payloads.json_data import plain

SecretProvider = Callable[[str], str | Awaitable[str]]
"""Gives the value of a secret for the key that the workflow file names."""

HIDDEN = "***"
MOST_BYTES = 65_536
"""The largest file of a secret."""
_LEAST_PART = 4
"""A text is searched for the beginning and end of a secret that was cut, from so many characters on."""


class SecretUnavailable(StemflowError):
    """A secret of the workflow has no value in this worker; the message says which, and where it was looked for."""


class SecretFailure(Exception):
    """Wraps what a provider raised, so that it is not mistaken for an error of the engine."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class SecretLeak(StemflowError):
    """A handler would have stored the value of a secret, as an argument of another task."""


def from_environment(key: str) -> str:
    """The value of an environment variable of the worker. Raises SecretUnavailable."""
    value = os.environ.get(key)
    if value is None:
        raise SecretUnavailable(f"expected the environment variable {key} in the worker, found none")
    return value


def from_file(key: str) -> str:
    """The text of a file, without a line feed at its end. Raises SecretUnavailable."""
    path = Path(key)
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise SecretUnavailable(f"expected a file of at most {MOST_BYTES:,} bytes at {key}, found none")
        return path.read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnavailable(f"expected a text file that can be read at {key}, got {type(error).__name__}") from None


_BUILT_IN: tuple[SecretProvider, ...] = (from_environment, from_file)


class Secrets:
    """The providers of a registry by name; `env` and `file` are there from the start."""

    def __init__(self) -> None:
        self.providers: dict[str, SecretProvider] = {"env": from_environment, "file": from_file}

    def add(self, name: str, provider: SecretProvider) -> None:
        """Register a provider. Raises OptionError."""
        if not isinstance(name, str) or not name:
            raise OptionError(f"secret_provider: expected a name, got {name!r}")
        if not callable(provider):
            raise OptionError(f"secret_provider {name}: expected a function of a key, got {provider!r}")
        self.providers[name] = provider

    def join(self, other: Secrets) -> None:
        """Add the providers of another registry, except those that are built in."""
        self.providers.update({name: one for name, one in other.providers.items() if one not in _BUILT_IN})

    def copy(self) -> Secrets:
        """The same providers, to which others may be added."""
        twin = type(self)()
        twin.providers = dict(self.providers)
        return twin

    async def values(self, sources: Mapping[str, SecretSource | None]) -> dict[str, str]:
        """The values of these secrets. Raises SecretUnavailable, and what a provider raises."""
        return {
            name: await self._value(name if input_of(name) else f"secrets.{name}", source)
            for name, source in sources.items()
        }

    async def _value(self, what: str, source: SecretSource | None) -> str:
        if source is None:
            raise SecretUnavailable(f"{what}: expected a secret of the workflow, found none of this name")
        provider = self.providers.get(source.provider)
        if provider is None:
            known = ", ".join(sorted(self.providers))
            raise SecretUnavailable(
                f"{what}: expected a provider {source.provider!r}, this worker has {known}; register it with "
                "@registry.secret_provider(...)"
            )
        try:
            if inspect.iscoroutinefunction(provider) or provider in _BUILT_IN:
                found = provider(source.key)
            else:
                found = await asyncio.to_thread(provider, source.key)
            value = await found if inspect.isawaitable(found) else found
        except SecretUnavailable as error:
            raise SecretUnavailable(f"{what}: {error}") from None
        if not isinstance(value, str) or not value:
            raise SecretUnavailable(f"{what}: expected a text from {source.provider}, got none")
        return value


class NamedSecrets(Secrets):
    """Gives `secret:NAME` as each value, for tests of workflows, which need no real values."""

    async def values(self, sources: Mapping[str, SecretSource | None]) -> dict[str, str]:
        """A text for each secret that is not its value."""
        return {name: f"secret:{name}" for name in sources}


class Redaction:
    """Replaces the values of secrets in what leaves an attempt."""

    def __init__(self, values: Iterable[str]) -> None:
        plain = sorted(set(values), key=len, reverse=True)
        written = (form for value in plain for form in (value, json.dumps(value)[1:-1], repr(value)[1:-1]))
        self._forms = tuple(dict.fromkeys(written))

    def holds(self, text: str) -> bool:
        """Whether a text contains the value of a secret."""
        return any(form in text for form in self._forms)

    def text(self, text: str) -> str:
        """The text with `***` for each value, and for parts of one at its ends, where it may have been cut."""
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        for form in self._forms:
            for size in range(len(form) - 1, _LEAST_PART - 1, -1):
                if text.endswith(form[:size]):
                    text = text[:-size] + HIDDEN
                if text.startswith(form[-size:]):
                    text = HIDDEN + text[size:]
        return text

    def data(self, value: Any) -> Any:
        """JSON data with `***` for each value, in texts and in keys."""
        if isinstance(value, str):
            return self.text(value) if self.holds(value) else value
        if isinstance(value, dict):
            return {self.data(key): self.data(one) for key, one in value.items()}
        return [self.data(one) for one in value] if isinstance(value, (list, tuple)) else value

    def error(self, error: ErrorInfo) -> ErrorInfo:
        """The error without the values."""
        return structs.replace(
            error, message=self.text(error.message), traceback=self.text(error.traceback), data=self.data(error.data)
        )

    def failed(self, outcome: Failed) -> Failed:
        """The failure without the values."""
        return structs.replace(outcome, error=self.error(outcome.error))

    def refuse(self, asked: Any, who: str) -> None:
        """Raise SecretLeak if a plan or signature that a handler asks for holds a value, since it would be stored."""
        if self.holds(msgspec.json.encode(asked, enc_hook=repr).decode("utf-8", "replace")):
            raise SecretLeak(
                f"{who}: expected no value of a secret in what it starts, since arguments are stored; write the step "
                "in the workflow file, where it reads the secret by its name"
            )


def redacted(write: Write, redaction: Redaction) -> Write:
    """`write` that puts `***` in place of the values in a result."""

    def write_redacted(value: Any, what: str) -> bytes:
        return write(redaction.data(plain(value, what)), what)

    return write_redacted


class RedactingLogger(logging.LoggerAdapter[logging.Logger]):
    """The logger of a handler that was given secrets: their values are `***` in its lines."""

    def __init__(self, logger: logging.Logger, extra: Mapping[str, object], redaction: Redaction) -> None:
        super().__init__(logger, extra)
        self._redaction = redaction

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log one line, formatted here so that its arguments are redacted, too."""
        if self.isEnabledFor(level):
            text = str(msg)
            try:
                text = text % args if args else text
            except (TypeError, ValueError):
                text = f"{text} {args!r}"
            if (error := kwargs.get("exc_info")) and self._redaction is not None:
                text = f"{text}: {error!r}" if isinstance(error, BaseException) else text
                kwargs["exc_info"] = None
            kwargs.setdefault("stacklevel", 3)
            super().log(level, self._redaction.text(text), **kwargs)
