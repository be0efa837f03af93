"""Text -> a tree of nodes that know their place, built from the events of PyYAML's C parser.

The parser's events are read in a loop, so that no depth of nesting can exhaust the stack, and every limit is checked
before what it limits is built: file size, nesting, and what aliases expand to.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import CSafeLoader, events

from stemflow.dsl.findings import Findings, Position
from stemflow.dsl.marks import behind_properties, place_of, syntax_error, tag_place
from stemflow.dsl.scalars import ScalarError, resolve

MOST_BYTES = 10_000_000
MOST_DEPTH = 100
ALIAS_FACTOR = 20
ALIAS_FLOOR = 65_536
"""Characters that aliases may expand to in any file, however small."""

_CORE = "tag:yaml.org,2002:"
_SCALAR_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),), "bool": (bool,), "int": (int,), "float": (int, float),
}  # fmt: skip


_NO_MEMBERS: dict[str, Node] = {}
_NO_ITEMS: list[Node] = []
_NO_KEYS: dict[str, Position] = {}


class Node:
    """A value with its place. `keys` are the places of a mapping's keys; `start` and `end` are offsets in the text.

    Scalars, which most nodes are, share their empty `members`, `items` and `keys`.
    """

    __slots__ = ("end", "flawed", "height", "items", "keys", "members", "place", "size", "start", "style", "value")

    def __init__(
        self,
        value: Any,
        place: Position,
        start: int,
        end: int,
        style: str = "",
        members: dict[str, Node] = _NO_MEMBERS,
        items: list[Node] = _NO_ITEMS,
        keys: dict[str, Position] = _NO_KEYS,
    ) -> None:
        self.value = value
        self.place = place
        self.start = start
        self.end = end
        self.style = style
        self.members = members
        self.items = items
        self.keys = keys
        self.size = 1
        self.height = 1
        self.flawed = False
        """The schema refuses this value, so nothing is built from it."""

    def at(self, place: Position, start: int, end: int) -> Node:
        """The same value in another place."""
        found = Node(self.value, place, start, end, self.style, self.members, self.items, self.keys)
        found.size, found.height, found.flawed = self.size, self.height, self.flawed
        return found

    def get(self, key: str) -> Node | None:
        """The member under `key`, unless it is absent or refused."""
        found = self.members.get(key)
        return None if found is None or found.flawed else found

    def text(self, key: str) -> str | None:
        """The value of a text under `key`."""
        found = self.get(key)
        return found.value if found is not None and isinstance(found.value, str) else None

    def entries(self, key: str) -> Mapping[str, Node]:
        """The members of the mapping under `key`; none if it is absent or refused."""
        found = self.get(key)
        return {} if found is None else found.members

    def mark_flawed(self) -> None:
        """The schema refuses this value."""
        self.flawed = True

    def is_sound(self) -> bool:
        """Whether the schema refuses nothing in this value."""
        pending = [self]
        while pending:
            node = pending.pop()
            if node.flawed:
                return False
            pending.extend(node.items)
            pending.extend(node.members.values())
        return True

    def key_place(self, key: str) -> Position:
        """The place of `key`, or of the mapping if it has no such key."""
        return self.keys.get(key, self.place)


_LETTERS = frozenset(string.ascii_letters + "_")
_NOWHERE = Position()


class _Stop(Exception):
    """Reading cannot go on; the reason is among the findings."""


@dataclass(slots=True)
class _Open:
    """A collection being read; `key` is set between a key and its value, and `merges` if that key is `<<`."""

    node: Node
    is_mapping: bool
    anchor: str | None
    key: str | None = None
    key_place: Position = _NOWHERE
    merges: bool = False
    merged: list[Node] = field(default_factory=list)


def read(text: str, findings: Findings) -> Node | None:
    """The one document of `text`; None when it cannot be read (the findings say why)."""
    if len(text) > MOST_BYTES or len(text.encode(errors="replace")) > MOST_BYTES:
        findings.error("SF003", f"the file is larger than the limit of {MOST_BYTES:,} bytes", Position(1, 1, 2),
                       "split it into several workflows")  # fmt: skip
        return None
    reader = _Reader(text.removeprefix("\ufeff"), findings)
    try:
        return reader.read()
    except _Stop:
        return None
    except yaml.YAMLError as error:
        findings.error("SF001", *syntax_error(reader.text, error))
        return None


class _Reader:
    """Folds parser events into nodes; a mapping's value, keys and members are filled as they come."""

    def __init__(self, text: str, findings: Findings) -> None:
        self.text = text
        self.findings = findings
        self.open: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}
        self.expanded = 0
        self.root: Node | None = None

    def read(self) -> Node | None:
        next_event: Callable[[], Any] = CSafeLoader(self.text).get_event
        while (event := next_event()) is not None:
            kind = type(event)
            if kind is events.ScalarEvent:
                if not self.is_plain_key(event):
                    self.add(self.scalar(event), event.anchor)
            elif kind is events.MappingStartEvent or kind is events.SequenceStartEvent:
                self.begin(event, kind is events.MappingStartEvent)
            elif kind is events.MappingEndEvent or kind is events.SequenceEndEvent:
                self.finish(event)
            elif kind is events.AliasEvent:
                self.add(self.alias(event), None)
            elif kind is events.DocumentStartEvent and self.root is not None:
                self.refuse("SF001", "expected one document, got a second one after '---'", place_of(event),
                            "keep one workflow in a file")  # fmt: skip
                raise _Stop
        if self.root is None:
            self.refuse("SF001", "the file is empty", Position(1, 1, 2), 'begin with: stemflow: "1"')
        return self.root

    def refuse(self, code: str, message: str, place: Position, hint: str | None = None) -> None:
        self.findings.error(code, message, place, hint)

    # -- one event each

    def is_plain_key(self, event: Any) -> bool:
        """Whether the scalar is a key that is a text, as nearly all are: then it is taken, and needs no node."""
        parent = self.open[-1] if self.open else None
        if parent is None or not parent.is_mapping or parent.key is not None or event.anchor or event.tag is not None:
            return False
        text = event.value
        if not event.style and (text == "<<" or text[:1] not in _LETTERS or resolve(text) is not text):
            return False
        self.name_member(parent, text, place_of(event), len(text) + 1)
        return True

    def scalar(self, event: Any) -> Node:
        text, tag, style = event.value, event.tag, event.style or ""
        node = Node(text, place_of(event), event.start_mark.index, event.end_mark.index, style)
        if tag is not None or event.anchor is not None:
            node.start, node.place = behind_properties(self.text, node.start, node.end, style, node.place)
        node.size = len(text) + 1
        plain = tag is None and not style and event.implicit[0]
        try:
            if plain:
                node.value = resolve(text)
            elif tag is not None and tag != "!" and tag != _CORE + "str":
                node.value = self.tagged(event)
        except ScalarError as error:
            self.refuse("SF004", str(error), node.place)
        return node

    def tagged(self, event: Any) -> Any:
        """The value of a scalar with a tag."""
        kind = event.tag.removeprefix(_CORE)
        if kind not in _SCALAR_TYPES:
            self.unknown_tag(event)
            return event.value
        value = resolve(event.value)
        is_number = kind in ("int", "float")
        if not isinstance(value, _SCALAR_TYPES[kind]) or (is_number and isinstance(value, bool)):
            raise ScalarError(f"!!{kind}: expected a value of this type, got {event.value!r}")
        return float(value) if kind == "float" and isinstance(value, int) else value

    def unknown_tag(self, event: Any) -> None:
        tag: str = event.tag
        shown = "!!" + tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag
        self.refuse("SF004", f"the tag {shown} is not allowed: a workflow file holds JSON data only",
                    tag_place(self.text, event),
                    "remove the tag")  # fmt: skip

    def begin(self, event: Any, is_mapping: bool) -> None:
        place = place_of(event)
        if event.tag is not None or event.anchor is not None:
            # Its own first character is behind the anchor and the tag, where the event ends.
            mark, flow = event.end_mark, bool(event.flow_style)
            place = Position(mark.line + 1, mark.column + 1 - flow, mark.column + 2 - flow)
        if len(self.open) >= MOST_DEPTH:
            self.refuse("SF003", f"the file is nested deeper than the limit of {MOST_DEPTH} levels", place,
                        "move the inner part into a step of its own")  # fmt: skip
            raise _Stop
        if event.tag not in (None, "!", _CORE + ("map" if is_mapping else "seq")):
            self.unknown_tag(event)
        node = Node({} if is_mapping else [], place, event.start_mark.index, event.end_mark.index)
        if is_mapping:
            node.members, node.keys = {}, {}
        else:
            node.items = []
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.open.append(_Open(node, is_mapping, event.anchor))

    def finish(self, event: Any) -> None:
        done = self.open.pop()
        done.node.end = event.end_mark.index
        if event.end_mark.line + 1 == done.node.place.line:
            place = done.node.place
            done.node.place = Position(place.line, place.column, event.end_mark.column + 1)
        if done.merged:
            _merge(done.node, done.merged)
        self.add(done.node, done.anchor)

    def alias(self, event: Any) -> Node:
        place = place_of(event)
        if event.anchor not in self.anchors:
            self.refuse("SF001", f"there is no anchor &{event.anchor} above this alias", place)
            raise _Stop
        node = self.anchors[event.anchor]
        if node is None:
            self.refuse("SF003", f"the alias *{event.anchor} is inside its own anchor", place,
                        "write the inner part out")  # fmt: skip
            raise _Stop
        self.expanded += node.size
        most = max(ALIAS_FACTOR * len(self.text), ALIAS_FLOOR)
        if self.expanded > most:
            self.refuse("SF003", f"aliases expand this file to more than {most:,} characters, the limit for its size",
                        place, "write a map over a list instead of repeating steps")  # fmt: skip
            raise _Stop
        if len(self.open) + node.height > MOST_DEPTH:
            self.refuse("SF003", f"aliases nest the file deeper than the limit of {MOST_DEPTH} levels", place)
            raise _Stop
        return node.at(place, event.start_mark.index, event.end_mark.index)

    # -- putting a finished node where it belongs

    def add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if not parent.is_mapping:
            parent.node.items.append(node)
            parent.node.value.append(node.value)
        elif parent.key is None:
            self.begin_member(parent, node)
            return
        else:
            self.end_member(parent, node)
        holder = parent.node
        holder.size += node.size
        if node.height >= holder.height:
            holder.height = node.height + 1

    def begin_member(self, parent: _Open, key: Node) -> None:
        if not isinstance(key.value, str):
            shown = self.text[key.start : key.end].strip().splitlines()[:1] or [""]
            self.refuse("SF004", f"a key must be a text, got {shown[0]}", key.place, "write the key in quotes")
            key.value = shown[0]
        parent.merges = key.value == "<<" and not key.style
        self.name_member(parent, key.value, key.place, key.size)

    def name_member(self, parent: _Open, key: str, place: Position, size: int) -> None:
        """The next value is that of `key`."""
        parent.key = key
        parent.key_place = place
        parent.node.size += size
        first = None if parent.merges else parent.node.keys.get(key)
        if first is not None:
            where = f"line {first.line}, column {first.column}"
            self.refuse("SF002", f"the key `{key}` is already set at {where}", place,
                        "keep one of the two")  # fmt: skip

    def end_member(self, parent: _Open, node: Node) -> None:
        key, parent.key = parent.key or "", None
        if parent.merges:
            parent.merges = False
            self.merge_from(parent, node)
            return
        parent.node.keys.setdefault(key, parent.key_place)
        parent.node.members[key] = node
        parent.node.value[key] = node.value

    def merge_from(self, parent: _Open, node: Node) -> None:
        for source in node.items if isinstance(node.value, list) else [node]:
            if isinstance(source.value, dict):
                parent.merged.append(source)
                continue
            place = source.place if source.start >= node.start else node.place  # else it is behind the alias
            self.refuse("SF004", "<<: expected a mapping or a list of mappings to merge", place, "write <<: *anchor")
            return


def _merge(node: Node, sources: list[Node]) -> None:
    """Put the keys of `sources` before the node's own; the node wins, then the earlier source."""
    members: dict[str, Node] = {}
    keys: dict[str, Position] = {}
    for source in sources:
        for key, member in source.members.items():
            if key not in members:
                members[key], keys[key] = member, source.keys[key]
        node.size += source.size
        node.height = max(node.height, source.height)
    members.update(node.members)
    keys.update(node.keys)
    node.members, node.keys = members, keys
    node.value.clear()
    node.value.update((key, member.value) for key, member in members.items())
