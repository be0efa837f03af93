"""`stemflow explain`: a page a finding, each with a wrong and a right example."""

from __future__ import annotations

from pathlib import Path

from stemflow.cli.arguments import Arguments
from stemflow.cli.exits import FINE, Refused

PAGES = Path(__file__).resolve().parent / "pages"


def main(arguments: Arguments) -> int:
    """Print the page of a code, or the list of all codes."""
    if arguments.code is None:
        for code in codes():
            print(f"{code}  {title(code)}")
        return FINE
    code = arguments.code.upper()
    if code not in codes():
        import difflib

        near = difflib.get_close_matches(code, codes(), 1, 0.8)
        hint = f"did you mean {near[0]}? " if near else ""
        raise Refused(f"{arguments.code}: expected the code of a finding, such as SF101; {hint}"
                      "`stemflow explain` lists all")  # fmt: skip
    print(page(code), end="")
    return FINE


def codes() -> list[str]:
    """Every code that has a page."""
    return sorted(path.stem for path in PAGES.glob("SF*.md"))


def page(code: str) -> str:
    return (PAGES / f"{code}.md").read_text("utf-8")


def title(code: str) -> str:
    """The page's first line without its mark and code."""
    return page(code).partition("\n")[0].removeprefix(f"# {code}: ")
