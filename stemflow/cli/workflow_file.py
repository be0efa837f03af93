"""Reading a workflow file for a command: its text, its findings, its workflow."""

from __future__ import annotations

import sys
from pathlib import Path

from stemflow.cli.exits import INVALID_FILE, Refused
from stemflow.cli.report import as_text, count_text
from stemflow.model.workflow import Workflow
from stemflow.runtime.client.other_files import bounded_text
from stemflow.runtime.client.workflow_files import Checked, WorkflowFile, no_body


def read_file(file: str) -> WorkflowFile:
    """Read and parse; raises Refused when there is no text to parse."""
    return WorkflowFile.of(read_text(file), file)


def read_text(file: str) -> str:
    """The text of a file; raises Refused when it cannot be read."""
    path = Path(file)
    try:
        return bounded_text(path)
    except FileNotFoundError:
        import difflib

        near = difflib.get_close_matches(path.name, _neighbours(path), 1, 0.6)
        hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path"
        raise Refused(f"{file}: expected a workflow file, found none; {hint}", INVALID_FILE) from None
    except IsADirectoryError:
        inside = [str(path / name) for name in _neighbours(path / "x")][:3]
        hint = f"name a file in it, such as {inside[0]}" if inside else "name a file"
        raise Refused(f"{file}: expected a workflow file, got a folder; {hint}", INVALID_FILE) from None
    except UnicodeDecodeError as error:
        place = f"byte {error.start}"
        said = f"{file}: expected UTF-8 text, got something else at {place}; save it as UTF-8"
        raise Refused(said, INVALID_FILE) from None
    except OSError as error:
        said = f"{file}: expected a file that can be read, got {error.strerror}; check its rights"
        raise Refused(said, INVALID_FILE) from None


def _neighbours(path: Path) -> list[str]:
    try:
        return sorted(one.name for one in path.parent.iterdir() if one.suffix in (".yaml", ".yml"))
    except OSError:
        return []


def require_valid(checked: Checked) -> Workflow:
    """The workflow; findings go to standard error, and errors among them are Refused."""
    found = checked.found or (() if checked.workflow is not None else (no_body(checked.file),))
    for one in found:
        print(as_text(one, {checked.file: checked.text}), file=sys.stderr)
    if checked.workflow is None or checked.fails:
        raise Refused(f"{count_text(found, 1)}; nothing was started, "
                      f"`stemflow explain {found[0].code}` describes it", INVALID_FILE)  # fmt: skip
    return checked.workflow
