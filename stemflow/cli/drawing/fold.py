"""Folding many similar steps of a graph into one box, so that large graphs stay readable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stemflow.cli.drawing.layers import Edge, layers_of

FOLD_ABOVE = 8
"""So many steps of one layer with similar names and the same label are one box."""
_VARIABLE = re.compile(r"(?<![A-Za-z])\d[\w-]*|\d+")


class Folded(NamedTuple):
    """The boxes that are left, each with the steps in it, and the edges between boxes with how many each is."""

    boxes: dict[str, list[str]]
    edges: dict[Edge, int]


def fold(names: Sequence[str], labels: Mapping[str, str], edges: Sequence[Edge], most: int | None) -> Folded:
    """Fold steps of the same layer, with the same label once numbers are left out; `most` None: fold nothing."""
    if most is None or len(names) <= most:
        return Folded({name: [name] for name in names}, dict.fromkeys(edges, 1))
    layer = layers_of(names, edges)
    alike: dict[tuple[int, str], list[str]] = {}
    for name in names:
        alike.setdefault((layer[name], pattern(labels[name])), []).append(name)
    box_of: dict[str, str] = {}
    for group in alike.values():
        for name in group:
            box_of[name] = group[0] if len(group) > most else name
    boxes: dict[str, list[str]] = {}
    for name in names:
        boxes.setdefault(box_of[name], []).append(name)
    counted: dict[Edge, int] = {}
    for source, target in edges:
        edge = (box_of[source], box_of[target])
        counted[edge] = counted.get(edge, 0) + 1
    return Folded(boxes, counted)


def pattern(label: str) -> str:
    """The label with its numbers left out: `mProject_00000012` is `mProject_*`."""
    return _VARIABLE.sub("*", label)
