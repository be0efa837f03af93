"""Who can read and write the data of a store directly, and has no key."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import redis
from msgspec import structs

from stemflow import Stemflow
from stemflow.model import wire
from stemflow.model.plan import Plan
from stemflow.model.records import Claim, Header, Key, Node
from stemflow.store import codec
from stemflow.store.index_rules import timer_of
from stemflow.store.memory.store import MemoryStore
from stemflow.store.redis.keys import page_field, page_key
from stemflow.store.run_names import run_name
from stemflow.store.sqlite import rows
from stemflow.store.sqlite.store import SqliteStore


def intruder_of(app: Stemflow) -> Intruder:
    store = app.store
    if isinstance(store, MemoryStore):
        return MemoryIntruder(store)
    return SqliteIntruder(store) if isinstance(store, SqliteStore) else RedisIntruder(store)


class Intruder:
    """`node`, `put` (over the record at a key, with all that the store derives from it), `alter` and `alter_...`."""

    unsaid: frozenset[str] = frozenset()
    """Fields that the store does not keep, since the place of a record says them."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def alter(self, key: Key, /, **fields: Any) -> None:
        if self.unsaid.issuperset(fields):
            pytest.skip("this store keeps no such field: a record is what its place says")
        self.put(key, structs.replace(self.node(key), **fields))

    def move(self, key: Key, queue: str) -> None:
        """Let the store hand the record out by another queue than its own."""
        self.put(key, self.node(key))

    def node(self, key: Key) -> Node:
        raise NotImplementedError

    def put(self, key: Key, node: Node) -> None:
        raise NotImplementedError

    def alter_header(self, run: str, /, **fields: Any) -> None:
        raise NotImplementedError

    def alter_plan(self, digest: str, change: Callable[[Plan], Plan]) -> None:
        raise NotImplementedError

    def alter_page(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        raise NotImplementedError

    def claims(self) -> dict[str, Claim]:
        raise NotImplementedError

    def alter_claim(self, key: str, **fields: Any) -> None:
        raise NotImplementedError


class MemoryIntruder(Intruder):
    def node(self, key: Key) -> Node:
        node: Node = copy.copy(self.store._records[key])
        return node

    def put(self, key: Key, node: Node) -> None:
        self.store._records[key] = node
        self.store._leases.pop(key, None)
        if node.state == "ready":
            moved = structs.replace(node, run=key[0], path=key[1])
            self.store._queues.add(moved, node.queue, 0, self.store.now_ms())

    def move(self, key: Key, queue: str) -> None:
        self.store._queues.add(structs.replace(self.node(key), queue=queue), queue, 0, self.store.now_ms())

    def alter_header(self, run: str, /, **fields: Any) -> None:
        self.store._headers[run] = structs.replace(self.store._headers[run], **fields)

    def alter_plan(self, digest: str, change: Callable[[Plan], Plan]) -> None:
        self.store._plans._plans[digest] = change(self.store._plans.get(digest))

    def alter_page(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        pages, first = self.store._pages[key[0]], (key[1], 0)
        pages[first] = change(pages[first])

    def claims(self) -> dict[str, Claim]:
        return {key[1]: claim for key, claim in self.store._records.items() if isinstance(claim, Claim)}

    def alter_claim(self, key: str, **fields: Any) -> None:
        self.store._records[("", key)] = structs.replace(self.claims()[key], **fields)


class SqliteIntruder(Intruder):
    unsaid = frozenset(("run", "path"))

    def _read(self, query: str, *values: str | bytes) -> bytes:
        (body,) = self.store._db.execute(query, values).fetchone()
        assert isinstance(body, bytes)
        return body

    def node(self, key: Key) -> Node:
        node = rows.record_at(self.store._db, key)
        assert isinstance(node, Node)
        return node

    def put(self, key: Key, node: Node) -> None:
        columns = rows.node_columns(structs.replace(node, at_ms=0), "", 1)
        state, flags, rev, delivery, lease_ms, body, stage, *_ = columns
        at_ms = None if stage is None else 0
        self.store._db.execute(
            "UPDATE nodes SET state = ?, flags = ?, rev = ?, delivery = ?, lease_ms = ?, body = ?, stage = ?,"
            " queue = iif(?1 = 2, 'default', NULL), lane = iif(?1 = 2, '', NULL), priority = ?, at_ms = ?,"
            " due_at_ms = NULL, lease_until_ms = NULL, owner = NULL WHERE run = ? AND path = ?",
            (state, flags, rev, delivery, lease_ms, body, stage, node.priority, at_ms, rows.run_blob(key[0]), key[1]),
        )
        self.store._known.forget()

    def alter_header(self, run: str, /, **fields: Any) -> None:
        if self.unsaid.issuperset(fields):
            pytest.skip("this store keeps no such field: a record is what its place says")
        name = rows.run_blob(run)
        found = self.store._db.execute(f"SELECT {rows.HEADER} FROM runs WHERE run = ?", (name,)).fetchone()
        altered = codec.encode_header(structs.replace(rows.header_of(name, *found), **fields))
        self.store._db.execute("UPDATE runs SET header = ? WHERE run = ?", (altered, name))

    def alter_plan(self, digest: str, change: Callable[[Plan], Plan]) -> None:
        plan = wire.decode_plan(self._read("SELECT body FROM plans WHERE digest = ?", digest))
        self.store._db.execute("UPDATE plans SET body = ? WHERE digest = ?", (wire.encode(change(plan)), digest))

    def alter_page(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        own = (rows.run_blob(key[0]), key[1])
        page = self._read("SELECT body FROM pages WHERE run = ? AND path = ?", *own)
        self.store._db.execute("UPDATE pages SET body = ? WHERE run = ? AND path = ?", (change(page), *own))

    def claims(self) -> dict[str, Claim]:
        rows = self.store._db.execute("SELECT key, body FROM claims").fetchall()
        found = {key: wire.decode_shared(key, body) for key, body in rows}
        return {key: claim for key, claim in found.items() if isinstance(claim, Claim)}

    def alter_claim(self, key: str, **fields: Any) -> None:
        claim = structs.replace(self.claims()[key], **fields)
        self.store._db.execute("UPDATE claims SET body = ? WHERE key = ?", (wire.encode(claim), key))


class RedisIntruder(Intruder):
    unsaid = frozenset({"run", "path"})

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.redis = redis.Redis.from_url(store.url)
        self.prefix: bytes = store._parts[0].prefix

    def _value(self, key: Key) -> bytes:
        name = run_name(key[0])
        kept = self.redis.hget(self.prefix + b"n" + name, key[1]) if key[1] else self.redis.get(self.prefix + name)
        assert isinstance(kept, bytes)
        return kept

    def _write(self, key: Key, value: bytes) -> None:
        name = run_name(key[0])
        if key[1]:
            self.redis.hset(self.prefix + b"n" + name, key[1], value)
        else:
            self.redis.set(self.prefix + name, value, keepttl=True)

    def node(self, key: Key) -> Node:
        return codec.decode_node(*key, self._value(key))[0]

    def put(self, key: Key, node: Node) -> None:
        old = self._value(key)
        section = codec.decode_node(*key, old)[1]
        self._write(key, self._made(old, node, section))
        name = run_name(key[0]) + key[1].encode()
        self.redis.zrem(self.prefix + b"S", old[:5] + name)
        if node.state == "ready":
            lane = b"%d:" % node.priority
            self.redis.zadd(self.prefix + b"ldefault", {lane: 0})
            self.redis.sadd(self.prefix + b"K", b"default")
            entry = old[:5] + node.rev.to_bytes(4, "little") + name
            self.redis.rpush(self.prefix + b"Qdefault\0" + lane, entry)

    def _made(self, old: bytes, node: Node, section: bytes) -> bytes:
        timer = timer_of(node) if node.due_at_ms is not None else None
        length = len(section).to_bytes(2, "little")
        return old[:5] + codec.head_of(node, timer) + length + section + codec.body_of(node)

    def alter_header(self, run: str, /, **fields: Any) -> None:
        if self.unsaid.issuperset(fields):
            pytest.skip("this store keeps no such field: a header is what its place says")
        old = self._value((run, ""))
        node, section = codec.decode_node(run, "", old)
        header: Header | None = codec.decode_header(run, section, node)
        assert header is not None
        altered, _ = codec.section_of(structs.replace(header, **fields), node)
        self._write((run, ""), self._made(old, node, altered))

    def alter_plan(self, digest: str, change: Callable[[Plan], Plan]) -> None:
        place = self.prefix + b"p" + digest.encode()
        kept = self.redis.get(place)
        assert isinstance(kept, bytes)
        self.redis.set(place, wire.encode(change(wire.decode_plan(kept))))

    def alter_page(self, key: Key, change: Callable[[bytes], bytes]) -> None:
        place, field = page_key(self.prefix, key[0]), page_field(key[1], 0)
        kept = self.redis.hget(place, field)
        assert isinstance(kept, bytes)
        self.redis.hset(place, field, change(kept))

    def claims(self) -> dict[str, Claim]:
        places: Any = self.redis.keys(self.prefix + b"c*")
        found: Any = self.redis.mget(places) if places else []
        names = [place[len(self.prefix) + 1 :].decode() for place in places]
        shared = {name: codec.read_shared(name, value) for name, value in zip(names, found, strict=True)}
        return {name: claim for name, claim in shared.items() if isinstance(claim, Claim)}

    def alter_claim(self, key: str, **fields: Any) -> None:
        altered = codec.shared_parts(structs.replace(self.claims()[key], **fields))
        self.redis.set(self.prefix + b"c" + key.encode(), b"".join(altered), keepttl=True)

    def __del__(self) -> None:
        self.redis.close()
