"""`stemflow schema`: the JSON Schema of workflow files, for editors."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from stemflow.cli.exits import FINE, Refused

_NAME = "workflow.v1.schema.json"
_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "schemas" / _NAME, _PACKAGE.parent / "schemas" / _NAME)
"""Inside the package when it is installed; at the top of the repository in a source checkout."""


def main(_: Namespace) -> int:
    """Print the schema as it is shipped."""
    path = next((one for one in _PLACES if one.is_file()), None)
    if path is None:
        raise Refused(f"{_PLACES[0]}: expected the schema, found none; install stemflow-engine again")
    print(path.read_text("utf-8"), end="")
    return FINE
