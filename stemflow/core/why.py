"""Explains every open node of a run. It computes what a reader of the records, claims and heartbeats would conclude.

A kind of single node (a task, a timer, an event) gives its reasons in `_of_kind`; a kind of composite says in
`KindRules.waits` and `KindRules.window` what a member waits for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from stemflow.core.follow_ups import names_of
from stemflow.core.kinds import rules_of
from stemflow.core.kinds.base import KindRules
from stemflow.core.members import bits
from stemflow.core.reasons import Code, Explanation, Facts, Reason, WorkerFacts, command, holder_text, listed, many
from stemflow.model.pause import pauses_of
from stemflow.model.plan import ApprovalPlan, EmitPlan, EventPlan, LeafPlan, ScopePlan, WaitPlan
from stemflow.model.records import (
    FINAL,
    HELD,
    RUNNING,
    STOPPING,
    WAITING,
    Claim,
    Key,
    Node,
    Tally,
    child_path,
    task_id,
)


def explain(facts: Facts) -> list[Explanation]:
    """One explanation of every node that is not final, in order of creation, and of the members that they have not
    opened."""
    found: list[Explanation] = []
    for node in facts.nodes.values():
        if node.state in FINAL:
            continue
        plan = facts.plan_of(node)
        task = plan.task if isinstance(plan, LeafPlan) else None
        reasons = _of_claims(facts, node) if node.state == HELD else []
        reasons += _of_kind(facts, node)
        found.append(Explanation(path=node.path, state=node.state, task=task, reasons=tuple(reasons)))
        if node.tally is not None and isinstance(plan, ScopePlan) and node.state == RUNNING and not node.handling:
            found += _unopened(facts, node, plan, node.tally)
    return found


def _of_kind(facts: Facts, node: Node) -> list[Reason]:
    """What the kind of a node says. A node that waits for a key may have no reason of its kind."""
    plan = facts.plan_of(node)
    if node.tally is not None:
        return _of_scope(facts, node, node.tally)
    match plan:
        case LeafPlan():
            return _of_leaf(facts, node, plan)
        case WaitPlan():
            return [_of_timer(facts, node, "the time of this wait has not passed")]
        case EventPlan():
            return [_of_event(facts, node, plan)]
        case ApprovalPlan():
            text = f"waits for an answer of {listed(plan.by) if plan.by else 'anybody'}"
            return [_due(facts, node) or _until(node, "approval", text, node.due_at_ms)]
        case EmitPlan() | ScopePlan():
            return _of_start(facts, node)
        case other:
            assert_never(other)


# -- timers and starts


def _of_event(facts: Facts, node: Node, plan: EventPlan) -> Reason:
    until_ms = None if node.awaits is None else node.awaits.until_ms
    return _due(facts, node) or _until(node, "event", f"waits for an event {plan.event_type}", until_ms)


def _until(node: Node, code: Code, text: str, until_ms: int | None) -> Reason:
    return Reason(code=code, text=text, since_ms=node.opened_at_ms, until_ms=until_ms)


def _of_timer(facts: Facts, node: Node, text: str) -> Reason:
    return _due(facts, node) or Reason(code="timer", text=text, since_ms=node.opened_at_ms, until_ms=node.due_at_ms)


def _due(facts: Facts, node: Node) -> Reason | None:
    """Its timer is due, and no worker has handled it yet."""
    if node.due_at_ms is None or node.due_at_ms > facts.now_ms:
        return None
    if not any(one.is_alive for one in facts.workers):
        return _no_worker("its timer is due, and no worker runs on this store that would handle it", node.due_at_ms)
    text = "its timer is due; the next worker that asks for work handles it"
    return Reason(code="applying", text=text, since_ms=node.due_at_ms)


def _of_start(facts: Facts, node: Node) -> list[Reason]:
    """A node that is HELD until its start, or that is about to continue."""
    if (due := _due(facts, node)) is not None:
        return [due]
    if any(key is not None and _is_known(facts, node, key) for key in (node.claim, node.slot)):
        return []
    if node.at_ms > facts.now_ms:
        return [_start(facts, node)]
    text = "the end of what it waited for is committed, and is being applied"
    return [Reason(code="applying", text=text, since_ms=node.opened_at_ms)]


def _is_known(facts: Facts, node: Node, key: str) -> bool:
    """Whether a claim gives the reason why this node waits."""
    claim = facts.claims.get(key)
    if claim is None:
        return False
    return node.key in claim.waiters or any(one.node == node.key for one in claim.sharers)


def _start(facts: Facts, node: Node) -> Reason:
    plan = facts.plan_of(node)
    until_ms = node.at_ms
    if isinstance(plan, LeafPlan) and node.attempt and node.error is not None:
        most = facts.options_of(node).max_retries + 1
        text = (
            f"attempt {node.attempt + 1} of {max(most, node.attempt + 1)} starts after a delay; the last one failed "
            f"with {node.error.type}: {node.error.message}"
        )
        return Reason(code="retry", text=text, until_ms=until_ms, advice=command("show", node.run))
    if isinstance(plan, LeafPlan) and node.delivery > node.base:
        text = "a worker has returned it without an attempt; it is leased again after a short delay"
        return Reason(code="delayed", text=text, until_ms=until_ms)
    text = "its start is delayed"
    return Reason(code="delayed", text=text, since_ms=node.opened_at_ms, until_ms=until_ms)


# -- keys


def _of_claims(facts: Facts, node: Node) -> list[Reason]:
    """The keys that a HELD node waits for."""
    found: list[Reason] = []
    for key, is_slot in ((node.claim, False), (node.slot, True)):
        claim = None if key is None else facts.claims.get(key)
        if claim is None:
            continue
        shared = next((one.of for one in claim.sharers if one.node == node.key), None)
        if shared is not None:
            found.append(_shares(facts, node, claim, shared))
        elif node.key in claim.waiters:
            found.append(_slot(facts, node, claim) if is_slot else _unique(facts, node, claim))
    return found


def _shares(facts: Facts, node: Node, claim: Claim, of: Key) -> Reason:
    text = f"it ends with the outcome of {holder_text(facts, of)}, which has the same unique key {claim.key}"
    return Reason(
        code="shares-outcome", text=text, since_ms=node.opened_at_ms, holder=task_id(of), worker=_worker(facts, of),
        advice=command("why", task_id(of)),
    )  # fmt: skip


def _slot(facts: Facts, node: Node, claim: Claim) -> Reason:
    names = listed(holder_text(facts, one) for one in claim.holders)
    taken = f"all {claim.limit} places" if claim.limit > 1 else "the only place"
    text = f"{taken} of its concurrency key {claim.key} {'are' if claim.limit > 1 else 'is'} taken by {names}"
    return _of_holder(facts, node, claim, "concurrency-key", text)


def _unique(facts: Facts, node: Node, claim: Claim) -> Reason:
    holder = claim.holders[0]
    if claim.finished:
        text = f"its unique key {claim.key} stays taken for a while after {task_id(holder)} has succeeded"
        return Reason(
            code="unique-window", text=text, since_ms=node.opened_at_ms, until_ms=claim.until_ms,
            holder=task_id(holder), place=claim.waiters.index(node.key), advice=command("show", holder[0]),
        )  # fmt: skip
    text = f"its unique key {claim.key} is held by {holder_text(facts, holder)}"
    return _of_holder(facts, node, claim, "unique-key", text)


def _of_holder(facts: Facts, node: Node, claim: Claim, code: Code, text: str) -> Reason:
    holder = claim.holders[0] if claim.holders else None
    name = None if holder is None else task_id(holder)
    return Reason(
        code=code, text=text, since_ms=node.opened_at_ms, holder=name,
        worker=None if holder is None else _worker(facts, holder), place=claim.waiters.index(node.key),
        advice=None if name is None else command("why", name),
    )  # fmt: skip


def _worker(facts: Facts, key: Key) -> str | None:
    running = facts.worker_of(facts.node(key))
    return None if running is None else running[0].name


# -- leaves


def _of_leaf(facts: Facts, node: Node, leaf: LeafPlan) -> list[Reason]:
    match node.state:
        case "ready":
            return [*_of_pauses(facts, node, leaf), *_of_ready(facts, node, leaf)]
        case "running" | "stopping":
            return [_of_leased(facts, node)]
        case _:
            return _of_start(facts, node)


def _of_pauses(facts: Facts, node: Node, leaf: LeafPlan) -> list[Reason]:
    """What an operator has paused, so that the task does not start."""
    return [
        Reason(
            code="paused", since_ms=one.at_ms, until_ms=one.until_ms, advice=command("resume", one.target),
            text=f"{one.kind} {one.name} is paused" + (f" by {one.by}" if one.by else "")
            + (f": {one.reason}" if one.reason else ""),
        )
        for one in pauses_of(facts.pauses, node.queue, leaf.task, facts.workflow, facts.now_ms)
    ]  # fmt: skip


def _of_ready(facts: Facts, node: Node, leaf: LeafPlan) -> list[Reason]:
    if (due := _due(facts, node)) is not None:
        text = "it has expired before it was started; the next worker that asks for work ends it"
        return [Reason(code="expired", text=text, since_ms=node.due_at_ms), *([due] if due.code == "no-worker" else [])]
    unserved = _unserved(facts, node, leaf.task)
    if node.at_ms > facts.now_ms:
        return [_start(facts, node), *unserved]
    status = facts.statuses.get(node.path)
    since_ms = max(node.at_ms, node.opened_at_ms)
    place = None if status is None else status.ahead
    if status is not None and status.limit is not None:
        limit = status.limit
        text = f"its rate limit of {limit.limit:,} per {_span(limit.per_ms)} for {limit.key} admits no start now"
        if place:
            text += f"; {many(place, 'task')} with the same limits {'is' if place == 1 else 'are'} before it"
        closed = Reason(
            code="rate-limit", text=text, since_ms=since_ms, until_ms=status.admits_at_ms, place=place,
            advice=command("keys", "--kind", "rate"),
        )  # fmt: skip
        return [closed, *unserved]
    where = "it is the next one" if place == 0 else "" if place is None else f"{many(place, 'task')} before it"
    text = f"it is ready in queue {node.queue}" + (f"; {where}" if where else "")
    queued = Reason(code="queued", text=text, since_ms=since_ms, place=place, advice=command("queues", node.queue))
    return [*unserved, queued]


def _unserved(facts: Facts, node: Node, task: str) -> list[Reason]:
    """Why no worker leases a task now, if so."""
    alive = [one for one in facts.workers if one.is_alive]
    queue = node.queue
    if not alive:
        return [_no_worker("no worker runs on this store", None, queue)]
    serving = [one for one in alive if one.serves(queue, node.run)]
    if not serving:
        names = sorted({name for one in alive for name in one.queues or ()})
        text = f"no worker serves queue {queue}" + (f"; those that run serve {listed(names)}" if names else "")
        return [Reason(code="queue-unserved", text=text, advice=_start_worker(queue))]
    having = [one for one in serving if task in one.tasks]
    if not having:
        text = f"none of the workers that serve queue {queue} ({listed(one.name for one in serving)}) has task {task}"
        return [Reason(code="task-unregistered", text=text, advice=_start_worker(queue))]
    if not any(one.free for one in having):
        slots = sum(one.concurrency for one in having)
        text = f"all {slots:,} slots of {many(len(having), 'worker')} that would run it are taken"
        return [Reason(code="workers-busy", text=text, worker=having[0].name, advice=command("workers"))]
    return []


def _no_worker(text: str, since_ms: int | None, queue: str | None = None) -> Reason:
    return Reason(code="no-worker", text=text, since_ms=since_ms, advice=_start_worker(queue))


def _start_worker(queue: str | None = None) -> str:
    queues = () if queue is None or queue == "default" else ("--queues", queue)
    return command("worker", *queues, "--tasks", "MODULE")


def _of_leased(facts: Facts, node: Node) -> Reason:
    status, running = facts.statuses.get(node.path), facts.worker_of(node)
    until_ms = None if status is None else status.lease_until_ms
    worker, since_ms = (None, None) if running is None else (running[0].name, running[1])
    name = f"worker {worker}" if worker is not None else "a worker"
    if until_ms is not None and until_ms <= facts.now_ms:
        text = f"the lease of {name} has ended; any worker takes the task over"
        is_served = any(one.is_alive for one in facts.workers)
        advice = None if is_served else _start_worker()
        return Reason(code="lease-ended", text=text, since_ms=until_ms, worker=worker, advice=advice)
    if running is not None and running[0].is_gone:
        return _of_gone(facts, node, running[0], until_ms)
    if running is not None and not running[0].is_alive:
        name += ", which has reported nothing for a while; others take over when its lease has ended"
    if node.state == STOPPING:
        text = f"it is to stop, and its handler has not ended on {name}"
        advice = command("cancel", node.run, "--force")
        return Reason(code="stopping", text=text, since_ms=since_ms, until_ms=until_ms, worker=worker, advice=advice)
    return Reason(code="running", text=f"runs on {name}", since_ms=since_ms, until_ms=until_ms, worker=worker)


def _of_gone(facts: Facts, node: Node, worker: WorkerFacts, until_ms: int | None) -> Reason:
    """A leaf whose lease is left of a process of this host that has ended."""
    then = "is cancelled" if node.state == STOPPING else "starts again on another worker"
    is_served = any(one.is_alive for one in facts.workers)
    text = f"the process of worker {worker.name}, which ran it, has ended on this host; the task {then}"
    text += " when its loss is noticed, at the latest when its lease ends" if is_served else " once a worker runs"
    return Reason(
        code="worker-gone", text=text, until_ms=until_ms, worker=worker.name,
        advice=None if is_served else _start_worker(node.queue),
    )  # fmt: skip


# -- scopes


def _of_scope(facts: Facts, node: Node, tally: Tally) -> list[Reason]:
    if node.state == HELD:
        members = [_waits_for_members(facts, node, tally)] if tally.open else []
        return [*_of_start(facts, node), *members]
    if node.handling:
        return [_waits_for_follow_up(facts, node)]
    return [_waits_for_members(facts, node, tally)]


def _waits_for_follow_up(facts: Facts, node: Node) -> Reason:
    """A catch, a hook or a cleanup of the scope runs."""
    plan = facts.plan_of(node)
    paths = [child_path(node.path, f"!{name}") for name in names_of(plan)] if isinstance(plan, ScopePlan) else []
    running = [path for path in paths if (one := facts.nodes.get(path)) is not None and one.state not in FINAL]
    text = f"its members have ended; it ends as {node.verdict} after {listed(running)}"
    holder = task_id((node.run, running[0])) if running else None
    return Reason(code="hook", text=text, since_ms=node.opened_at_ms, holder=holder)


def _waits_for_members(facts: Facts, node: Node, tally: Tally) -> Reason:
    plan = facts.plan_of(node)
    stopping = "it stops, and " if node.state == STOPPING else ""
    paths = [_member_path(facts, node, index) for index in bits(tally.open)] if isinstance(plan, ScopePlan) else []
    open_paths = [path for path in paths if (one := facts.nodes.get(path)) is not None and one.state not in FINAL]
    if paths and not open_paths:
        text = f"{stopping}the ends of its members are committed, and are being applied"
        return Reason(code="applying", text=text, since_ms=node.opened_at_ms)
    names = listed(path or "the run" for path in open_paths)
    text = f"{stopping}waits for {names}; {tally.done:,} of {many(tally.size, 'member')} have ended"
    if node.state == STOPPING:
        advice = command("cancel", node.run, "--force")
        return Reason(code="stopping", text=text, since_ms=node.opened_at_ms, advice=advice)
    holder = task_id((node.run, open_paths[0])) if open_paths else None
    return Reason(code="members", text=text, since_ms=node.opened_at_ms, until_ms=node.due_at_ms, holder=holder)


def _member_path(facts: Facts, scope: Node, index: int) -> str:
    plan = facts.plan_of(scope)
    assert isinstance(plan, ScopePlan)
    return child_path(scope.path, rules_of(plan).segment(plan, index))


def _unopened(facts: Facts, scope: Node, plan: ScopePlan, tally: Tally) -> Iterator[Explanation]:
    """The members of a scope that it has not opened, and that have neither opened nor ended."""
    rules = rules_of(plan)
    rest = ((1 << tally.size) - 1) & ~(tally.opened | tally.ended)
    if not rest:
        return
    window = rules.window(plan)
    if window is not None:
        count = rest.bit_count()
        text = f"{many(tally.open.bit_count(), 'member')} of the {window:,} that may be open at a time have not ended"
        reason = Reason(code="window", text=text, since_ms=scope.opened_at_ms, holder=task_id(scope.key))
        first = _member_path(facts, scope, next(bits(rest)))
        yield Explanation(path=first, state=WAITING, reasons=(reason,), members=count)
        return
    earlier = _earlier(facts, scope, rules, tally)
    for index in bits(rest):
        before = [one for one in earlier.get(index, ()) if not _has_ended(facts, scope, tally, one)]
        yield Explanation(
            path=_member_path(facts, scope, index), state=WAITING, reasons=(_behind(facts, scope, tally, before),)
        )


def _has_ended(facts: Facts, scope: Node, tally: Tally, index: int) -> bool:
    """Whether a member has ended, also if its end is still in the inbox."""
    record = facts.nodes.get(_member_path(facts, scope, index))
    return bool(tally.ended >> index & 1) or (record is not None and record.state in FINAL)


def _earlier(facts: Facts, scope: Node, rules: KindRules, tally: Tally) -> dict[int, list[int]]:
    """The members that each member waits for."""
    found: dict[int, list[int]] = {}
    for before, after in rules.waits(facts.shapes[scope.plan], scope.node, tally.size):
        found.setdefault(after, []).append(before)
    return found


def _behind(facts: Facts, scope: Node, tally: Tally, before: list[int]) -> Reason:
    """Why a member has not opened; `before`: members that it waits for and that have not ended."""
    if not before:
        text = "what it waited for has ended, and is being applied"
        return Reason(code="applying", text=text)
    paths = [_member_path(facts, scope, index) for index in before]
    running = [path for path, index in zip(paths, before, strict=True) if tally.opened >> index & 1]
    text = f"waits for the end of {listed(paths)}"
    return Reason(code="steps", text=text, holder=task_id((scope.run, (running or paths)[0])))


def _span(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms % size == 0:
            return unit if ms == size else f"{ms // size} {unit}"
    return f"{ms} ms"
