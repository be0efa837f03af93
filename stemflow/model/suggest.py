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

    The time does not grow with the number of known words if the same tuple is given each time, so that thousands of
    misspelt words cost little.
    """
    words = tuple(known)
    return _nearest(word, words) if len(words) <= MOST_COMPARED else _many(words).nearest(word)


@lru_cache(maxsize=4096)
def _nearest(word: str, candidates: tuple[str, ...]) -> str | None:
    found = difflib.get_close_matches(word, candidates, 1, 0.6)
    return found[0] if found else None


class _Many:
    """More known words than are compared one by one, found by what is left when one character is taken out."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known
        self.answers: dict[str, str | None] = {}
        self.index: dict[str, list[str]] = {}
        for word in known:
            for variant in _variants(word):
                self.index.setdefault(variant, []).append(word)

    def nearest(self, word: str) -> str | None:
        if word not in self.answers:
            self.answers[word] = _nearest(word, self.candidates(word))
        return self.answers[word]

    def candidates(self, word: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for variant in _variants(word):
            found.update(dict.fromkeys(self.index.get(variant, ())))
            if len(found) >= MOST_CANDIDATES:
                break
        return tuple(found)[:MOST_CANDIDATES]


_recent: list[_Many] = []
"""The last few, the newest first. A tuple is looked up by identity, as to hash it would take time by its length."""


def _many(known: tuple[str, ...]) -> _Many:
    found = next((one for one in _recent if one.known is known), None)
    if found is None:
        found = next((one for one in _recent if one.known == known), None) or _Many(known)
        _recent[:] = [found, *(one for one in _recent if one is not found)][:8]
    return found


def _variants(word: str) -> Iterator[str]:
    yield word
    if len(word) <= 64:
        yield from {word[:i] + word[i + 1 :] for i in range(len(word))}
