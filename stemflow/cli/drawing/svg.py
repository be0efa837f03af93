"""A workflow as SVG: boxes for steps, frames for composites, lines for edges, colours for the states of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import NamedTuple

from stemflow.cli.drawing.fold import FOLD_ABOVE, Folded, fold, pattern
from stemflow.cli.drawing.layers import Edge, Placed, Point, place
from stemflow.cli.text import clip, shown

_LETTER = 6.7
_BOX_HEIGHT = 26.0
_PADDING = 10.0
_HEAD = 22.0
_MARGIN = 16.0
_WIDEST = 60

STATES: Mapping[str, tuple[str, str]] = {
    "failed": ("#f8d0cd", "#b3261e"), "running": ("#cfe3fb", "#1b62b8"), "stopping": ("#fbe3c2", "#a25a00"),
    "ready": ("#e9eef5", "#4a6485"), "held": ("#ece3f7", "#6a3fa0"), "waiting": ("#f4f4f4", "#8a8a8a"),
    "cancelled": ("#fbe3c2", "#a25a00"), "skipped": ("#efefef", "#9a9a9a"), "succeeded": ("#d3efd8", "#1e7a34"),
}  # fmt: skip
"""State -> colours of the box and its border; of several, the first here counts."""
_PLAIN = ("#ffffff", "#5b6b7f")


class Part(NamedTuple):
    """A step as it is drawn. `label` is its text, `inside` the paths of its members."""

    label: str
    kind: str
    inside: tuple[str, ...]


@dataclass(slots=True)
class _Laid:
    """A scope that is laid out: its boxes, and the layouts of those that are frames."""

    folded: Folded
    placed: Placed
    inner: dict[str, _Laid]
    data: set[Edge]
    """Edges between boxes of which at least one is more than an edge of order."""
    width: float = 0.0
    height: float = 0.0


Counts = Mapping[str, Mapping[str, int]]
"""Path of a step -> state -> number of its nodes in a run."""


class Drawing:
    """Lays a workflow out and writes it.

    Args:
        parts: Path -> part; the path of the workflow itself is empty.
        edges: (source, target) -> whether it is an edge of order only. Both are members of the same step.
        counts: The states of a run; None: none are shown.
        most: Similar steps above this number are one box; None: every step has its own.
    """

    def __init__(
        self, parts: Mapping[str, Part], edges: Mapping[Edge, bool], counts: Counts | None = None,
        most: int | None = FOLD_ABOVE,
    ) -> None:  # fmt: skip
        self.parts, self.edges, self.counts, self.most = parts, edges, counts, most
        self._scope_of = {path: scope for scope, part in parts.items() for path in part.inside}
        self._edges_in: dict[str, list[Edge]] = {}
        for edge in edges:
            self._edges_in.setdefault(self._scope_of[edge[0]], []).append(edge)

    def svg(self) -> Iterator[str]:
        """The lines of the SVG document."""
        laid = self._lay("")
        legend = self._legend()
        width = max(laid.width, 120.0 + 90.0 * len(legend)) + 2 * _MARGIN
        height = laid.height + 2 * _MARGIN + (26.0 if legend else 0.0)
        size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
        yield (f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif" '
               'font-size="12">')  # fmt: skip
        yield ('<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
               'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#5b6b7f"/></marker>'
               "</defs>")  # fmt: skip
        yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
        yield f'<text x="{_MARGIN}" y="{_MARGIN + 13}" font-weight="bold">{_text(self.parts[""].label)}</text>'
        yield from self._scope(laid, _MARGIN, _MARGIN + _HEAD)
        yield from self._legend_lines(legend, height)
        yield "</svg>"

    # -- layout

    def _lay(self, scope: str) -> _Laid:
        names = self.parts[scope].inside or ((scope,) if not scope else ())
        labels = {name: f"{self.parts[name].kind} {self.parts[name].label}" for name in names}
        # Composites are never folded: what is in them may differ.
        plain = {name: label if not self.parts[name].inside else f"{label}\0{name}" for name, label in labels.items()}
        folded = fold(names, plain, self._edges_in.get(scope, []), self.most)
        inner = {name: self._lay(name) for name in folded.boxes if name != scope and self.parts[name].inside}
        sizes = {name: self._size(name, folded, inner) for name in folded.boxes}
        placed = place(sizes, list(folded.edges))
        title = self._width(self.parts[scope].label) if scope else 0.0
        box_of = {name: box for box, members in folded.boxes.items() for name in members}
        data = {(box_of[a], box_of[b]) for a, b in self._edges_in.get(scope, []) if not self.edges[(a, b)]}
        return _Laid(
            folded, placed, inner, data, max(placed.width + 2 * _PADDING, title), placed.height + _HEAD + 2 * _PADDING
        )

    def _size(self, name: str, folded: Folded, inner: Mapping[str, _Laid]) -> tuple[float, float]:
        if name in inner:
            return inner[name].width, inner[name].height
        return self._width(self._label(name, folded.boxes[name])), _BOX_HEIGHT

    def _width(self, label: str) -> float:
        return len(label) * _LETTER + 2 * _PADDING

    def _label(self, name: str, members: Sequence[str]) -> str:
        label = self.parts[name].label
        if len(members) > 1:
            return f"{clip(pattern(label), _WIDEST)}  × {len(members):,}"
        states = self._states(members)
        count = sum(states.values())
        return clip(label, _WIDEST) + (f"  × {count:,}" if count > 1 else "")

    def _states(self, members: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for member in members:
            for state, count in (self.counts or {}).get(member, {}).items():
                found[state] = found.get(state, 0) + count
        return found

    # -- writing

    def _scope(self, laid: _Laid, x: float, y: float) -> Iterator[str]:
        x, y = x + _PADDING, y + _PADDING
        for (source, target), points in laid.placed.lines.items():
            count = laid.folded.edges[(source, target)]
            yield _line([(px + x, py + y) for px, py in points], (source, target) not in laid.data, count)
        for name, (left, top) in laid.placed.corners.items():
            members = laid.folded.boxes[name]
            if name in laid.inner:
                yield from self._frame(name, laid.inner[name], x + left, y + top)
            else:
                width, height = self._size(name, laid.folded, laid.inner)
                yield from self._box(name, members, (x + left, y + top), (width, height))

    def _frame(self, name: str, laid: _Laid, x: float, y: float) -> Iterator[str]:
        fill, border = self._colours([name])
        yield "<g>"
        yield f"<title>{_text(name)}{_text(self._counted([name]))}</title>"
        yield (f'<rect x="{x:.1f}" y="{y:.1f}" width="{laid.width:.1f}" height="{laid.height:.1f}" rx="8" '
               f'fill="{fill}" fill-opacity="0.35" stroke="{border}" stroke-dasharray="4 3"/>')  # fmt: skip
        label = _text(clip(self.parts[name].label, _WIDEST))
        yield f'<text x="{x + _PADDING:.1f}" y="{y + 16:.1f}" fill="{border}" font-weight="bold">{label}</text>'
        yield "</g>"
        yield from self._scope(laid, x, y + _HEAD)

    def _box(self, name: str, members: Sequence[str], at: Point, size: Point) -> Iterator[str]:
        (x, y), (width, height) = at, size
        fill, border = self._colours(members)
        yield "<g>"
        listed = ", ".join(members[:10]) + (f" and {len(members) - 10:,} more" if len(members) > 10 else "")
        yield f"<title>{_text(listed)}{_text(self._counted(members))}</title>"
        if len(members) > 1:
            for shift in (6, 3):
                yield (f'<rect x="{x + shift:.1f}" y="{y - shift:.1f}" width="{width:.1f}" height="{height:.1f}" '
                       f'rx="5" fill="#ffffff" stroke="{border}"/>')  # fmt: skip
        yield (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="{fill}" '
               f'stroke="{border}"/>')  # fmt: skip
        label = _text(self._label(name, members))
        yield f'<text x="{x + width / 2:.1f}" y="{y + height / 2 + 4:.1f}" text-anchor="middle">{label}</text>'
        yield from self._bar(members, x, y + height - 4, width)
        yield "</g>"

    def _bar(self, members: Sequence[str], x: float, y: float, width: float) -> Iterator[str]:
        """The shares of the states, if there are several."""
        states = self._states(members)
        total = sum(states.values())
        if len(states) < 2:
            return
        for state in STATES:
            share = width * states.get(state, 0) / total
            if share:
                yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{share:.1f}" height="4" fill="{STATES[state][1]}"/>'
                x += share

    def _colours(self, members: Sequence[str]) -> tuple[str, str]:
        states = self._states(members)
        return next((STATES[state] for state in STATES if state in states), _PLAIN)

    def _counted(self, members: Sequence[str]) -> str:
        states = self._states(members)
        return ": " + ", ".join(f"{states[state]:,} {state}" for state in STATES if state in states) if states else ""

    def _legend(self) -> list[str]:
        used = {state for counts in (self.counts or {}).values() for state in counts}
        return [state for state in STATES if state in used]

    def _legend_lines(self, legend: Sequence[str], height: float) -> Iterator[str]:
        for number, state in enumerate(legend):
            x, y = _MARGIN + 90.0 * number, height - 24.0
            fill, border = STATES[state]
            yield f'<rect x="{x:.0f}" y="{y:.0f}" width="12" height="12" fill="{fill}" stroke="{border}"/>'
            yield f'<text x="{x + 17:.0f}" y="{y + 10:.0f}" font-size="11">{state}</text>'


def _line(points: Sequence[Point], order_only: bool, count: int) -> str:
    """A curve through the points, level at each; thicker for many edges."""
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (x1 + x2) / 2
        path += f" C{middle:.1f},{y1:.1f} {middle:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
    dashed = ' stroke-dasharray="5 3"' if order_only else ""
    width = 1.2 if count == 1 else 2.4
    return f'<path d="{path}" fill="none" stroke="#5b6b7f" stroke-width="{width}"{dashed} marker-end="url(#arrow)"/>'


def _text(text: str) -> str:
    return escape(shown(text))
