"""Requests of scripts, as one MessagePack string each (`layout.py` names their fields)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from stemflow.model import wire
from stemflow.model.effects import DeadLetter, Decision, Put
from stemflow.model.plan import Plan
from stemflow.model.rates import Rate
from stemflow.model.records import NO_RUN, READY, Header, Node
from stemflow.store import codec
from stemflow.store.base import Request, Want
from stemflow.store.index_rules import changes_something, level_of, may_hold_lease, timer_of, window_of
from stemflow.store.places import place_of_put
from stemflow.store.redis.layout import DIGEST, Ready, Sent, SentDecision, SentPut, Wanted
from stemflow.store.run_names import run_name

pack = msgspec.msgpack.encode


def text(data: bytes) -> Raw:
    """Bytes as a text of MessagePack, since the decoder of the server knows no bytes."""
    length = len(data)
    if length < 32:
        return Raw(bytes((0xA0 | length,)) + data)
    if length < 256:
        return Raw(bytes((0xD9, length)) + data)
    if length < 65_536:
        return Raw(b"\xda" + length.to_bytes(2, "big") + data)
    return Raw(b"\xdb" + length.to_bytes(4, "big") + data)


def _letter(letter: DeadLetter) -> tuple[Raw, Raw, Raw, int]:
    run = run_name(letter.run)
    return text(run), text(run + letter.path.encode()), text(wire.encode(letter)), letter.at_ms + letter.keep_ms


def _plan_of(one: Decision, run: str) -> str:
    """The plan of a run that ends with a decision."""
    root = one.root_of(run)
    return "" if root is None else root.plan


class Encoder:
    """Writes requests. Plans are written once; limits of lanes, too."""

    def __init__(self) -> None:
        self._plans: dict[str, Raw] = {}
        self._digests: dict[frozenset[str], str] = {}
        self._lanes: dict[tuple[tuple[Rate, ...], int], Raw] = {}

    def exchange(
        self, now_ms: int, request: Request, decisions: Sequence[Decision], want: Want | None, id: str
    ) -> bytes:
        sent: set[str] = set()
        wanted: Any = False
        if want is not None:
            only_run = False if want.only_run is None else text(run_name(want.only_run))
            pushes = False if want.pushes is None else want.pushes
            queues = False if want.queues is None else want.queues
            wanted = Wanted(
                want.owner, want.limit, queues, only_run, pushes, self.digest(want) or False, want.without or False,
                want.oldest,
            )  # fmt: skip
        made = [self._decision(one, sent) for one in decisions]
        return pack(Sent(now_ms, request.channel, request.sequence, made, wanted, id))

    def digest(self, want: Want) -> str | None:
        """The name of the tasks that a worker has; None if it takes every task."""
        if want.tasks is None:
            return None
        found = self._digests.get(want.tasks)
        if found is None:
            if len(self._digests) >= 256:
                self._digests.clear()
            names = "\n".join(sorted(want.tasks)).encode()
            found = self._digests[want.tasks] = hashlib.sha256(names).hexdigest()[:DIGEST]
        return found

    def _decision(self, one: Decision, sent: set[str]) -> SentDecision:
        headers = {header.run: header for header in one.headers} if one.headers else {}
        puts = [self._put(put, headers) for put in one.puts] or False
        seen = [(text(run_name(key[0])), key[1], *guard) for key, *guard in one.seen] if one.seen else False
        rest = [(text(run_name(run)), text(codec.encode_header(header))) for run, header in headers.items()] or False
        plans = [self._plan(plan, sent) for plan in one.plans if plan.digest not in sent] or False
        pages = [(text(run_name(p.key[0])), p.key[1], [text(page) for page in p.pages]) for p in one.pages] or False
        dead = [_letter(letter) for letter in one.dead] or False
        ended = [(text(run_name(end.run)), end.keep_ms, _plan_of(one, end.run)) for end in one.ended] or False
        usual = (puts, seen, rest, plans, pages, dead, ended, changes_something(one))
        more = one.purged or one.dropped or one.also or one.posts or one.consumed or one.headers or one.fragments
        if not (more or one.after):
            return SentDecision(*usual)
        uses = Counter(header.plan for header in (*one.headers, *one.also)) if one.headers else {}
        return SentDecision(
            *usual,
            purged=[text(run_name(run) + path.encode()) for run, path in one.purged],
            dropped=[text(run_name(run)) for run in one.dropped],
            also=[*self._twins(one)],
            posts=[(text(run_name(post.run)), post.path, text(wire.encode(post))) for post in one.posts],
            consumed=[(text(run_name(run)), upto) for run, upto in one.consumed],
            uses=[*uses.items()] or False,
            fragments=[(text(run_name(run)), digest) for run, digest in one.fragments] or False,
            after=[place + 1 for place in one.after] or False,
        )

    def _twins(self, one: Decision) -> Iterator[tuple[Raw, ...]]:
        root = one.root_of(one.headers[0].run) if one.also else None
        for header in one.also:
            assert root is not None
            section, alone = codec.section_of(header, root)
            twin = (text(run_name(header.run)), text(section))
            yield twin if alone is None else (*twin, text(alone))

    def _put(self, put: Put, headers: dict[str, Header]) -> SentPut:
        run, path = put.key
        node = put.record
        if run == NO_RUN:
            return self._shared(put)
        if not isinstance(node, Node):
            raise TypeError(f"put {put.key}: expected a Node, got {node!r}")
        timer = timer_of(node) if node.due_at_ms is not None else None
        lane = self._lane(node.limits, level_of(node)) if node.state == READY else None
        section: Raw | bool = False
        header: Raw | bool = False
        if not path and not put.guard and run in headers:
            own, alone = codec.section_of(headers.pop(run), node)
            section, header = text(own), False if alone is None else text(alone)
        return SentPut(
            text(run_name(run)),
            path,
            put.guard,
            put.token,
            text(codec.head_of(node, timer)),
            text(codec.body_of(node)),
            may_hold_lease(node),
            -1 if timer is None else timer,
            False if lane is None else Ready(node.at_ms, place_of_put(put), lane),
            section,
            header,
        )

    def _shared(self, put: Put) -> SentPut:
        record = put.record
        if record is None:
            return SentPut("", put.key[1], put.guard, 0, "", False, -1)
        if isinstance(record, Node):
            raise TypeError(f"put {put.key}: expected a record that belongs to no run, got {record!r}")
        rev, body = codec.shared_parts(record)
        until_ms = window_of(record)
        holds = -1 if until_ms is None else until_ms
        return SentPut("", put.key[1], put.guard, 0, text(rev), text(body), holds)

    def _plan(self, plan: Plan, sent: set[str]) -> tuple[str, Raw]:
        sent.add(plan.digest)
        found = self._plans.get(plan.digest)
        if found is None:
            if len(self._plans) >= 256:
                self._plans.clear()
            found = self._plans[plan.digest] = text(wire.encode(plan))
        return plan.digest, found

    def _lane(self, limits: tuple[Rate, ...], level: int) -> Raw:
        found = self._lanes.get((limits, level))
        if found is None:
            if len(self._lanes) >= 4_096:
                self._lanes.clear()
            name = b"%d:" % level + (msgspec.json.encode(limits) if limits else b"")
            found = self._lanes[limits, level] = text(name)
        return found
