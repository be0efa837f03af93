"""A layered layout of boxes and edges: columns from left to right, few crossings, little distance.

The steps are those of Sugiyama, Tagawa and Toda (1981): a layer for each box by its longest path, waypoints where an
edge passes a layer, an order within each layer by barycentres, and then places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GAP_X = 56.0
GAP_Y = 14.0
_SWEEPS = 12
_ALIGNMENTS = 8
_THIN = 6.0
"""The height of a waypoint of an edge."""

Size = tuple[float, float]
Point = tuple[float, float]
Edge = tuple[str, str]


@dataclass(slots=True)
class Placed:
    """Boxes by their upper left corners, the points of each edge, and the size of the whole."""

    corners: dict[str, Point] = field(default_factory=dict)
    lines: dict[Edge, list[Point]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def layers_of(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The layer of each box: one more than the latest of its predecessors. The edges have no cycle."""
    after: dict[str, list[str]] = {name: [] for name in names}
    waiting = dict.fromkeys(names, 0)
    for source, target in edges:
        after[source].append(target)
        waiting[target] += 1
    found = dict.fromkeys(names, 0)
    ready = [name for name in names if not waiting[name]]
    for name in ready:
        for target in after[name]:
            found[target] = max(found[target], found[name] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return found


def place(sizes: Mapping[str, Size], edges: Sequence[Edge]) -> Placed:
    """Lay out boxes of these sizes, in their order where nothing else decides."""
    names = list(sizes)
    layer = layers_of(names, edges)
    columns: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in names:
        columns[layer[name]].append(name)
    chains, heights = _with_waypoints(sizes, edges, layer, columns)
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for chain in chains.values():
        for one, other in pairwise(chain):
            after.setdefault(one, []).append(other)
            before.setdefault(other, []).append(one)
    _order(columns, before, after)
    middles = _middles(columns, heights, before, after)
    return _drawn(sizes, columns, heights, chains, middles)


def _with_waypoints(
    sizes: Mapping[str, Size], edges: Sequence[Edge], layer: Mapping[str, int], columns: list[list[str]]
) -> tuple[dict[Edge, list[str]], dict[str, float]]:
    """The boxes and waypoints along each edge; waypoints are added to the columns."""
    heights = {name: height for name, (_, height) in sizes.items()}
    chains: dict[Edge, list[str]] = {}
    for source, target in edges:
        chain = [source]
        for column in range(layer[source] + 1, layer[target]):
            # Edges of one source share their waypoints, so that a fan-out is one line for as long as it can be.
            waypoint = f"\0{source}\0{column}"
            if waypoint not in heights:
                heights[waypoint] = _THIN
                columns[column].append(waypoint)
            chain.append(waypoint)
        chains[(source, target)] = [*chain, target]
    return chains, heights


def _order(columns: list[list[str]], before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> None:
    """Sort each column by the mean place of its neighbours, forwards and backwards, and keep the best order."""
    best = [list(column) for column in columns]
    fewest = _crossings(columns, after)
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = before if forwards else after
        for index in range(1, len(columns)) if forwards else range(len(columns) - 2, -1, -1):
            place = {name: i for i, name in enumerate(columns[index - 1 if forwards else index + 1])}
            own = {name: i for i, name in enumerate(columns[index])}
            key = {
                name: sum(place[one] for one in near) / len(near) if (near := neighbours.get(name)) else own[name]
                for name in columns[index]
            }
            columns[index].sort(key=key.__getitem__)
        count = _crossings(columns, after)
        if count < fewest:
            best, fewest = [list(column) for column in columns], count
        if not fewest:
            break
    columns[:] = best


def _crossings(columns: Sequence[Sequence[str]], after: Mapping[str, list[str]]) -> int:
    """The number of crossings of lines between neighbouring columns, counted as inversions with a Fenwick tree."""
    total = 0
    for index in range(len(columns) - 1):
        place = {name: i for i, name in enumerate(columns[index + 1])}
        tree = [0] * (len(place) + 1)
        seen = 0
        for name in columns[index]:
            targets = sorted(place[one] for one in after.get(name, ()))
            for target in targets:
                total += seen - _sum(tree, target + 1)
            for target in targets:
                _add(tree, target + 1)
            seen += len(targets)
    return total


def _sum(tree: list[int], at: int) -> int:
    found = 0
    while at > 0:
        found += tree[at]
        at -= at & -at
    return found


def _add(tree: list[int], at: int) -> None:
    while at < len(tree):
        tree[at] += 1
        at += at & -at


def _middles(
    columns: Sequence[Sequence[str]], heights: Mapping[str, float], before: Mapping[str, list[str]],
    after: Mapping[str, list[str]],
) -> dict[str, float]:  # fmt: skip
    """The vertical middle of each box: near those of its neighbours, without overlap."""
    found: dict[str, float] = {}
    for column in columns:
        found.update(_packed(column, heights, dict.fromkeys(column, 0.0)))
    for turn in range(_ALIGNMENTS):
        forwards = turn % 2 == 0
        for column in columns if forwards else reversed(columns):
            neighbours = before if forwards else after
            wanted = {
                name: sum(found[one] for one in near) / len(near) if (near := neighbours.get(name)) else found[name]
                for name in column
            }
            found.update(_packed(column, heights, wanted))
    least = min((found[name] - heights[name] / 2 for name in found), default=0.0)
    return {name: middle - least for name, middle in found.items()}


def _packed(column: Sequence[str], heights: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    """The middles nearest to those wanted at which the boxes of a column do not overlap: blocks of boxes that touch
    move together to their mean."""
    blocks: list[tuple[list[str], float, float]] = []  # names, the sum of wishes for the first middle, that middle
    offsets: dict[str, float] = {}
    for name in column:
        names, total, middle = [name], wanted[name], wanted[name]
        offsets[name] = 0.0
        while blocks:
            above, above_total, above_middle = blocks[-1]
            gap = _distance(above[-1], names[0], heights)
            if above_middle + offsets[above[-1]] + gap <= middle:
                break
            shift = offsets[above[-1]] + gap
            for one in names:
                offsets[one] += shift
            total = above_total + total - shift * len(names)
            names = above + names
            middle = total / len(names)
            blocks.pop()
        blocks.append((names, total, middle))
    return {name: middle + offsets[name] for names, _, middle in blocks for name in names}


def _distance(upper: str, lower: str, heights: Mapping[str, float]) -> float:
    gap = _THIN if upper[:1] == "\0" or lower[:1] == "\0" else GAP_Y
    return (heights[upper] + heights[lower]) / 2 + gap


def _drawn(
    sizes: Mapping[str, Size], columns: Sequence[Sequence[str]], heights: Mapping[str, float],
    chains: Mapping[Edge, list[str]], middles: Mapping[str, float],
) -> Placed:  # fmt: skip
    found = Placed()
    left: dict[str, tuple[float, float]] = {}
    x = 0.0
    for column in columns:
        width = max((sizes[name][0] for name in column if name in sizes), default=0.0)
        for name in column:
            left[name] = (x, x + (sizes[name][0] if name in sizes else width))
            if name in sizes:
                found.corners[name] = (x, middles[name] - heights[name] / 2)
        x += width + GAP_X
    for edge, chain in chains.items():
        points: list[Point] = [(left[chain[0]][1], middles[chain[0]])]
        for name in chain[1:-1]:
            points += [(left[name][0], middles[name]), (left[name][1], middles[name])]
        found.lines[edge] = [*points, (left[chain[-1]][0], middles[chain[-1]])]
    found.width = max(x - GAP_X, 0.0)
    found.height = max((middles[name] + heights[name] / 2 for name in middles), default=0.0)
    return found
