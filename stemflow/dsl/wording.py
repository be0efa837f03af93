"""What a keyword of JSON Schema asks for, in words."""

from __future__ import annotations

from typing import Any

from stemflow.dsl.findings import describe, did_you_mean

_WORDS = {
    "string": "a text", "number": "a number", "integer": "a whole number", "boolean": "true or false",
    "array": "a list", "object": "a mapping", "null": "null",
}  # fmt: skip


def show_path(path: tuple[str | int, ...]) -> str:
    """`steps.pay.needs[0]`; the whole file is `the file`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "the file"


def expected(error: Any) -> tuple[str, str | None]:
    """What the keyword that refused asks for, and a hint."""
    value: Any = error.validator_value
    match error.validator:
        case "type":
            names = [value] if isinstance(value, str) else value
            return " or ".join(_WORDS[name] for name in names), _quoting_hint(names, error.instance)
        case "const":
            return describe(value), f'write "{value}" in quotes' if isinstance(value, str) else None
        case "enum":
            words = [one for one in value if isinstance(one, str)]
            near = did_you_mean(error.instance, words, "known") if isinstance(error.instance, str) else None
            return f"one of {', '.join(map(str, value))}", near if near and near.startswith("did") else None
        case "pattern":
            return "a name of letters, digits and _", "begin with a letter"
        case _:
            return _bounds(error.validator, value), None


def _quoting_hint(names: list[str], instance: Any) -> str | None:
    if names == ["string"] and isinstance(instance, (int, float)):
        return "write it in quotes"
    if "object" in names and isinstance(instance, list):
        return "write name: value, not a list"
    return None


def _bounds(keyword: str, value: Any) -> str:
    sentences = {
        "minLength": "a text that is not empty" if value == 1 else f"a text of at least {value} characters",
        "maxLength": f"a text of at most {value} characters",
        "minimum": f"a number of at least {value}",
        "maximum": f"a number of at most {value}",
        "exclusiveMinimum": f"a number above {value}",
        "exclusiveMaximum": f"a number below {value}",
        "multipleOf": f"a multiple of {value}",
        "maxItems": f"a list of at most {value}",
        "minItems": f"a list of at least {value}",
        "minProperties": f"a mapping of at least {value}",
        "maxProperties": f"a mapping of at most {value}",
        "uniqueItems": "a list without duplicates",
    }
    return sentences.get(keyword, f"{keyword} {value}")
