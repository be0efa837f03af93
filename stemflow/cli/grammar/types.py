"""Types of option values; each converts a text or says what it expected."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from stemflow.cli.arguments import DEFAULT_STORE, STORE_VARIABLE
from stemflow.errors import UnitError
from stemflow.units import parse_duration_ms, parse_rate


class Positive(click.ParamType[int]):
    """A whole number of at least 1."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not value.isdecimal() or int(value) == 0:
            self.fail(f"expected a whole number of at least 1, got {value!r}", param, ctx)
        return int(value)


class Duration(click.ParamType[int]):
    """A duration such as `30s` or `2h`, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_duration_ms(value)
        except UnitError as error:
            self.fail(str(error), param, ctx)


class Rate(click.ParamType[float]):
    """A rate such as `20/s`, as a number a second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            limit, per_ms = parse_rate(value)
        except UnitError as error:
            self.fail(str(error), param, ctx)
        return limit * 1_000 / per_ms


class Since(click.ParamType[Any]):
    """How long ago, or an instant; an instant without a zone is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value[:4].isdecimal() and "-" in value:
            from datetime import datetime

            try:
                return datetime.fromisoformat(value).astimezone()
            except ValueError:
                self.fail(f"expected an instant such as 2026-01-31T03:00, got {value!r}", param, ctx)
        DURATION.convert(value, param, ctx)
        return value


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
        if not all(names):
            self.fail(f"expected names with commas between them, got {value!r}", param, ctx)
        return names


class StoreUrl(str):
    """The URL of a store. `given` is what the user typed, which may be `@FILE`."""

    given: str

    def __new__(cls, url: str, given: str) -> StoreUrl:
        made = super().__new__(cls, url)
        made.given = given
        return made


class Store(click.ParamType[str]):
    """The URL of a store, or `@FILE` for a file whose first line is the URL."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if isinstance(value, StoreUrl):
            return value
        if not value.startswith("@"):
            return StoreUrl(value, value)
        try:
            with open(value[1:], encoding="utf-8") as file:  # pathlib would take a tenth of the time of --help
                lines = file.read(10_000).strip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            self.fail(f"expected a file with the URL of a store, cannot read {value[1:]}: {reason}", param, ctx)
        if len(lines) != 1:
            self.fail(f"expected one line with the URL of a store in {value[1:]}, got {len(lines)} lines", param, ctx)
        return StoreUrl(lines[0], value)


class RunId(click.ParamType[str]):
    """The id of a run, or the beginning of it; of a dead letter also `RUN/PATH`."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = value
        if not text.partition("/")[0].strip():
            self.fail("expected the id of a run or the beginning of it, got an empty text", param, ctx)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self.fail("expected the id of a run, got bytes that are not UTF-8 text", param, ctx)
        return text

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """The newest runs of the store, where that is a file which exists."""
        from stemflow.cli.complete import complete_runs

        given = ctx.params.get("store") or os.environ.get(STORE_VARIABLE, DEFAULT_STORE)
        return complete_runs(str(given), incomplete)


class Code(click.ParamType[str]):
    """The code of a finding."""

    name = "code"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from stemflow.cli.explain import codes, title

        return [CompletionItem(code, help=title(code)) for code in codes() if code.startswith(incomplete.upper())]


DURATION = Duration()
