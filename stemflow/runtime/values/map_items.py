"""The items of maps that were given as a list or evaluated: stored in pages, read one item at a time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from msgspec import DecodeError, Raw, json

from stemflow.model.effects import Pages
from stemflow.model.records import Key, Node
from stemflow.runtime.payloads.encoders import BadPayload, is_json
from stemflow.runtime.payloads.json_data import decode
from stemflow.runtime.payloads.signing import Trust
from stemflow.runtime.values.caches import RecentlyUsed
from stemflow.runtime.values.value_codec import ValueCodec
from stemflow.store.base import Store
from stemflow.store.damaged import RecordsDamaged, described

PAGE = 1_000
"""Items in one stored page."""
PAGES = 8
"""Decoded pages kept: each member of a map asks for one item, and decoding the whole page each time costs more."""

_pieces = json.Decoder(list[Raw])


class MapItems:
    """Pages of items: those in the store, and those that the commit being decided is going to store."""

    def __init__(self, store: Store, codec: ValueCodec, trust: Trust) -> None:
        self._store, self._codec, self._trust = store, codec, trust
        self.pages: RecentlyUsed[tuple[str, str, int], list[Any]] = RecentlyUsed(PAGES)
        self.staged: dict[Key, tuple[bytes, ...]] = {}
        """Encoded pages by the key of their map, until they are committed."""

    async def item(self, scope: Node, index: int) -> Any:
        """One item of the map `scope`. Each call returns a copy of its own, so that no handler changes another's."""
        item = (await self._page(scope, index // PAGE))[index % PAGE]
        return decode(bytes(item)) if isinstance(item, Raw) else deepcopy(item)

    async def _page(self, scope: Node, number: int) -> list[Any]:
        """The items of one page; each is still undecoded JSON if the page is JSON."""
        key = (scope.run, scope.path, number)
        found = self.pages.get(key)
        if found is None:
            found = await self._read(scope, number)
        self.pages.use(key, found)
        return found

    async def _read(self, scope: Node, number: int) -> list[Any]:
        staged = self.staged.get(scope.key)
        page = await self._store.page(scope.key, number) if staged is None else staged[number]
        if page is None:
            raise RecordsDamaged(scope.run, f"page {number} of the items of {scope.path or 'its map'} is missing")
        if staged is None:
            page = self._trust.unwrap(page, await self._location(scope.key, number))
        self._codec.check(page, *scope.key, f"items {number}")
        try:
            if is_json(page):
                return _pieces.decode(page)
            items: list[Any] = self._codec.encoders.read(page, await self._location(scope.key, number))
        except (DecodeError, BadPayload) as error:
            text = f"page {number} of the items of {scope.path or 'its map'} cannot be read ({described(error)})"
            raise RecordsDamaged(scope.run, text) from error
        return items

    async def signed(self, some: Pages) -> Pages:
        """The pages as they are stored: signed where the store is signed."""
        if self._trust.keys is None:
            return some
        places = [await self._location(some.key, number) for number in range(len(some.pages))]
        return Pages(some.key, tuple(map(self._trust.wrap, some.pages, places)))

    async def copied(self, old: Key, new: Key) -> Pages:
        """All pages of the map `old` for the map `new`, the same one in a rerun. Raises SignatureInvalid."""
        pages: list[bytes] = []
        while (page := await self._store.page(old, len(pages))) is not None:
            pages.append(self._trust.unwrap(page, await self._location(old, len(pages))))
        return Pages(new, tuple(pages))

    async def _location(self, key: Key, number: int) -> str:
        return await self._codec.location(*key, f"items {number}")
