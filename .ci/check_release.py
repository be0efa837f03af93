"""Check that a release tag, stemflow/version.py and CHANGELOG.md name the same version: `check_release.py v1.2.3`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def problems(tag: str, source: str, changelog: str) -> list[str]:
    """What keeps `tag` from being released; empty if nothing does. `source`: the text of stemflow/version.py."""
    found = []
    written = re.search(r'(?m)^__version__ = "([^"]+)"$', source)
    if written is None:
        return ['stemflow/version.py: expected a line `__version__ = "X.Y.Z"`, got none']
    version = written[1]
    if tag != f"v{version}":
        found.append(f"tag: expected v{version} as stemflow/version.py says, got {tag}")
    section = re.search(r"(?m)^## \[(?!Unreleased)([^\]]+)\] - (\S+)$", changelog)
    if section is None:
        found.append("CHANGELOG.md: expected a section `## [VERSION] - DATE`, got none")
    elif section[1] != version:
        found.append(f"CHANGELOG.md: expected {version} as the newest version, got {section[1]}")
    unreleased = re.search(r"(?ms)^## \[Unreleased\]\n(.*?)(?=^## \[|\Z)", changelog)
    if unreleased and unreleased[1].strip():
        found.append("CHANGELOG.md: expected nothing under Unreleased, got entries; move them under the version")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("check_release: expected one argument, the tag, such as v1.2.3")
    found = problems(
        sys.argv[1],
        (ROOT / "stemflow" / "version.py").read_text(encoding="utf-8"),
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    )
    print(*found or ["release: tag, stemflow/version.py and CHANGELOG.md agree"], sep="\n")
    sys.exit(1 if found else 0)
