"""`stemflow --version`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def version_text() -> str:
    """`stemflow 0.1.0`, or the words that it runs from a checkout which is not installed."""
    try:
        return f"stemflow {version('stemflow-engine')}"
    except PackageNotFoundError:
        return "stemflow (a source checkout, not installed)"
