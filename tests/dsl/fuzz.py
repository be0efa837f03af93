"""Searches for files that the checker cannot judge, guided by coverage: `python -m tests.dsl.fuzz [-atheris options]`.

It needs atheris (`pip install atheris`), and starts from the files in `corpus`. Without atheris it judges those and
ends. What it finds belongs into `corpus`, together with the change that corrects it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.dsl.mutations import check, check_counted

CORPUS = Path(__file__).parent / "corpus"


def text_of(data: bytes) -> str:
    """Bytes as the text of a file; what is not UTF-8 is replaced, as such files are refused before they are checked."""
    return data.decode("utf-8", errors="replace")


def one_input(data: bytes) -> None:
    """Judge one file, as it is and behind a head that makes it a workflow."""
    text = text_of(data)
    check(text)
    check('stemflow: "1"\nname: x\n' + text)


def main(arguments: list[str]) -> None:
    """Judge the corpus; with atheris, go on with variations of it until something is found."""
    files = sorted(CORPUS.iterdir())
    for file in files:
        check_counted(text_of(file.read_bytes()))
    print(f"judged {len(files)} files of the corpus")
    try:
        import atheris
    except ImportError:
        print("atheris is not installed, so there is no search for more")
        return
    atheris.instrument_all()
    atheris.Setup([*arguments, str(CORPUS)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
