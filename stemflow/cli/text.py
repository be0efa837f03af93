"""Text for people: control characters made visible, durations, JSON lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from stemflow.lazy_import import LazyModule

if TYPE_CHECKING:
    import json
else:
    json = LazyModule("json")  # not needed for help and error messages

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""What can move the cursor, hide or reorder text: C0, C1, zero-width and bidirectional controls, lone surrogates."""


def shown(text: str) -> str:
    """The text with every control character written as an escape, so that no name or error can steer the terminal."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(match[0])
    return short or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def json_text(value: Any, indent: int | None = None) -> str:
    """The value as JSON, with every control character in its strings escaped."""
    separators = (",", ": ") if indent else (", ", ": ")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    return "\n".join(_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n"))


def clip(text: str, width: int) -> str:
    """At most `width` characters, the last an ellipsis when something was cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def short_duration(ms: int) -> str:
    """A duration in at most two units: `120ms`, `3.2s`, `1m05s`, `2h03m`, `4d02h`."""
    if ms < 1_000:
        return f"{max(ms, 0)}ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f}s" if ms < 59_950 else "1m00s"
    seconds = ms // 1_000
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86_400:
        return f"{seconds // 3_600}h{seconds % 3_600 // 60:02d}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3_600:02d}h"
