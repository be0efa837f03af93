"""The known word that a misspelt one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from stemflow.lazy_import import LazyModule

if TYPE_CHECKING:
    import difflib
else:
    difflib = LazyModule("difflib")  # for misspelt words only

MOST_COMPARED = 50
"""Known words that are compared one by one; among more of them, only those one or two edits away are found."""
MOST_CANDIDATES = 20


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`, or None.

    The time does not grow with the number of known words, so that thousands of misspelt words cost little.
    """
    return _nearest(word, tuple(known))


@lru_cache(maxsize=4096)
def _nearest(word: str, known: tuple[str, ...]) -> str | None:
    candidates = known if len(known) <= MOST_COMPARED else _candidates(word, known)
    found = difflib.get_close_matches(word, candidates, 1, 0.6)
    return found[0] if found else None


def _candidates(word: str, known: tuple[str, ...]) -> tuple[str, ...]:
    index = _index(known)
    found: dict[str, None] = {}
    for variant in _variants(word):
        found.update(dict.fromkeys(index.get(variant, ())))
        if len(found) >= MOST_CANDIDATES:
            break
    return tuple(found)[:MOST_CANDIDATES]


@lru_cache(maxsize=8)
def _index(known: tuple[str, ...]) -> dict[str, list[str]]:
    """Variant with at most one character taken out -> the words that it comes from."""
    found: dict[str, list[str]] = {}
    for word in known:
        for variant in _variants(word):
            found.setdefault(variant, []).append(word)
    return found


def _variants(word: str) -> Iterator[str]:
    yield word
    if len(word) <= 64:
        yield from {word[:i] + word[i + 1 :] for i in range(len(word))}
