"""The document of a workflow file -> its text: what is short on one line, texts quoted where they must be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from stemflow.dsl.scalars import ScalarError, resolve

_WIDTH = 96
"""A mapping or list that fits into so many characters is written on one line."""


class _Dumper(yaml.SafeDumper):
    """Writes texts plain only where YAML 1.1 and 1.2 read them as texts, and repeats values instead of anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    try:
        plain = value != "" and resolve(value) == value
    except ScalarError:
        plain = False
    style = None if plain and not value.startswith(("${{", " ")) else '"'
    if "\n" in value.strip("\n") and value == value.strip():
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(found: dict[str, Any]) -> str:
    """The text of a document."""
    return "".join(_lines(found, 0))


def _lines(value: dict[str, Any], depth: int) -> Iterator[str]:
    """The lines of a mapping: what is short is on one line."""
    indent = "  " * depth
    for key, inner in value.items():
        name = _one_line(key)
        flat = _one_line(inner)
        block = isinstance(inner, (dict, list)) and inner
        if not block and "\n" in flat:
            yield f"{indent}{name}: {_block_text(inner, depth + 1)}\n"
        elif not block or ("\n" not in flat and (depth or not _has_steps(key))
                           and len(indent) + len(name) + len(flat) <= _WIDTH):  # fmt: skip
            yield f"{indent}{name}: {flat}\n"
        elif isinstance(inner, dict):
            yield f"{indent}{name}:\n"
            yield from _lines(inner, depth + 1)
        else:
            yield f"{indent}{name}:\n"
            for item in inner:
                yield from _item(item, depth + 1)


def _item(item: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    flat = _one_line(item)
    if not isinstance(item, dict) or not item or ("\n" not in flat and len(indent) + len(flat) <= _WIDTH):
        yield f"{indent}- {flat}\n"
        return
    first, *rest = "".join(_lines(item, depth + 1)).splitlines(keepends=True)
    yield f"{indent}- {first.lstrip(' ')}"
    yield from rest


def _has_steps(key: str) -> bool:
    return key in ("steps", "chain", "group", "chord", "inputs")


def _one_line(value: Any) -> str:
    """The value in flow style; of one that is too long for a line, only that it is."""
    if isinstance(value, (dict, list)) and len(str(value)) > 2 * _WIDTH:
        return "\n"
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False
    )  # fmt: skip
    return text.removesuffix("\n").removesuffix("\n...")


def _block_text(value: str, depth: int) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
