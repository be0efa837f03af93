"""Resolving values of a run: results of nodes, results of previous steps, and the names in expressions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

from msgspec import to_builtins

from stemflow.core.kinds import KINDS, rules_of
from stemflow.core.leaf import undone_path
from stemflow.core.shape import base_size
from stemflow.model.plan import ScopePlan, Sealed
from stemflow.model.records import (
    CANCELLED,
    FAILED,
    NO_RUN,
    SKIPPED,
    SUCCEEDED,
    Claim,
    ErrorInfo,
    Header,
    Key,
    Node,
    Record,
    StoredEvent,
    child_path,
    event_key,
    parent_path,
    task_id,
)
from stemflow.model.signature import Span
from stemflow.runtime.payloads.encoders import is_json
from stemflow.runtime.payloads.json_data import decode
from stemflow.runtime.values.library import Library
from stemflow.runtime.values.map_items import PAGE
from stemflow.runtime.values.value_codec import value_location
from stemflow.store.damaged import RecordsDamaged, readable


class Prev(NamedTuple):
    """The value put in front of the arguments, and how: `one`, unpacked (`star`), or `chunk` by chunk."""

    value: Any
    how: str = "one"


class Values:
    """Resolves the values of runs from their records.

    `overlay`: records that are decided but not yet committed. `known`: records that may be outdated; they serve to walk
    up to the scopes of a node, whose path and kind never change.
    """

    def __init__(
        self,
        library: Library,
        overlay: Mapping[Key, Record | None] | None = None,
        known: Mapping[Key, Record | None] | None = None,
    ) -> None:
        self.library = library
        self.store = library.store
        self.overlay = overlay or {}
        self.known = known or {}

    async def nodes(self, keys: Sequence[Key]) -> list[Node | None]:
        found: dict[Key, Record | None] = {}
        missing = []
        for key in keys:
            if key in self.overlay:
                found[key] = self.overlay[key]
            elif (done := self.library.finished.get(key)) is not None:
                found[key] = done
            else:
                missing.append(key)
        if missing:
            read = await self.store.read(missing)
            if self.library.trust.keys is not None:
                for one in read:
                    self.library.trust.verify(one)
            found.update(zip(missing, map(readable, read), strict=True))
        return [record if isinstance(record := found[key], Node) else None for key in keys]

    async def events(self, type: str, numbers: Sequence[int]) -> list[StoredEvent]:
        """The events of a type with these numbers that are kept, in order."""
        keys = [(NO_RUN, event_key(type, number)) for number in numbers]
        missing = [key for key in keys if key not in self.overlay]
        read = dict(zip(missing, await self.store.read(missing) if missing else (), strict=True))
        found = [self.overlay.get(key) or read.get(key) for key in keys]
        now_ms = self.store.now_ms()
        kept = [one for one in found if isinstance(one, StoredEvent) and one.until_ms > now_ms]
        if self.library.trust.keys is not None:
            for one in kept:
                if one.key not in {key for _, key in self.overlay}:
                    self.library.trust.verify(one)
        return kept

    async def node(self, key: Key) -> Node | None:
        return (await self.nodes([key]))[0]

    async def needed(self, key: Key) -> Node:
        """The node at `key`, which another record refers to. Raises RecordsDamaged if there is none."""
        found = await self.node(key)
        if found is None:
            raise RecordsDamaged(key[0], f"the record of {task_id(key)} is missing")
        return found

    async def scope(self, node: Node) -> ScopePlan:
        plan = (await self.library.shape(node.plan)).nodes[node.node]
        assert isinstance(plan, ScopePlan)
        return plan

    async def around(self, node: Node) -> tuple[Node, ScopePlan]:
        """The scope that holds `node`, perhaps in an old version, and its plan."""
        key = (node.run, parent_path(node.path))
        scope = self.known.get(key)
        if not isinstance(scope, Node) or scope.tally is None:
            scope = await self.needed(key)
        shape = self.library.shapes.get(scope.plan) or await self.library.shape(scope.plan)
        plan = shape.nodes[scope.node]
        assert isinstance(plan, ScopePlan)
        return scope, plan

    # -- results of nodes

    async def value(self, node: Node | None) -> Any:
        """The value of a node; null for a task without success. A composite may be read before it is final."""
        if node is None or (node.state != SUCCEEDED and node.tally is None):
            return None
        if node.alias is not None and node.result is None:
            return await self.value(await self.node(node.alias))
        if node.tally is None:
            return await self.library.codec.read(node.result, *(node.alias or (node.run, node.path)), "result")
        plan = await self.scope(node)
        rules = rules_of(plan)
        given = rules.value_from(plan, node.tally)
        if node.result is not None and (given is None or not rules.carries):
            return await self.library.codec.read(node.result, *(node.alias or node.key), "result")
        if isinstance(given, range):
            return await self.member_values(node, given)
        if plan.kind == "chain" and not node.tally.size:  # it passes on what came before
            return before.value if (before := await self.prev(node)) is not None else None
        return None if given is None else await self.value(await self.node(self._member_key(node, plan, given)))

    async def member_values(self, scope: Node, indices: Iterable[int]) -> list[Any]:
        """The values of members in order: null for a member without a value, an error if it failed under `collect`."""
        plan = await self.scope(scope)
        keys = [self._member_key(scope, plan, i) for i in indices]
        values: list[Any] = []
        for start in range(0, len(keys), PAGE):
            for node in await self.nodes(keys[start : start + PAGE]):
                if node is not None and node.state == FAILED and plan.policy == "collect":
                    values.append({"error": public_error(await self.error_of(node))})
                elif node is not None and node.tally is None and node.alias is None:
                    done = node.result if node.state == SUCCEEDED else None
                    bare = done is None or is_json(done)  # one coroutine less for each member of a wide join
                    if done is not None:
                        self.library.codec.check(done, *node.key, "result")
                    values.append(decode(done) if bare else await self.library.codec.read(done, *node.key, "result"))
                else:
                    values.append(await self.value(node) if node is not None and node.state == SUCCEEDED else None)
        return values

    async def header_values(self, key: Key, plan: ScopePlan) -> list[Any]:
        chord = await self.needed(key)
        assert chord.tally is not None
        body = rules_of(plan).last(plan)
        return await self.member_values(chord, (i for i in range(chord.tally.size) if i != body))

    def _member_key(self, scope: Node, plan: ScopePlan, index: int) -> Key:
        return (scope.run, child_path(scope.path, KINDS[plan.kind].segment(plan, index)))

    async def error_of(self, node: Node) -> ErrorInfo:
        """The error that made `node` FAILED: its own, or that of the leaf below it."""
        seen: Node | None = node
        if node.alias is not None and node.error is None:
            seen = await self.node(node.alias)
            return await self.error_of(seen) if seen is not None else ErrorInfo("Unknown", "its error is gone")
        if node.error is None and node.failed_at is not None and node.failed_at != node.path:
            seen = await self.node((node.run, node.failed_at))
            if seen is not None and seen.alias is not None:
                return await self.error_of(seen)
        return seen.error if seen is not None and seen.error is not None else ErrorInfo("Unknown", "its error is gone")

    # -- results of previous steps

    async def prev(self, node: Node) -> Prev | None:
        """The value that becomes the first argument of `node`, or None if there is none.

        Nodes that were added at run time get none: the task that added them, or that they replaced, got the value.
        """
        while node.path and not (node.node == 0 and node.index >= 0):
            scope, plan = await self.around(node)
            if node.index < 0:
                is_cleanup = plan.cleanup is not None and node.index == -1 - len(plan.catches) - len(plan.hooks)
                return Prev(await self._follow_up_argument(scope.key, is_cleanup))
            rules = KINDS[plan.kind]
            if not rules.repeats and node.index >= base_size(scope):
                return None
            match rules.feed(plan, node.index):
                case "before":
                    before = await self.node(self._member_key(scope, plan, node.index - 1))
                    return Prev(await self.value(before) if before is not None and before.state == SUCCEEDED else None)
                case "results":
                    return Prev(await self.header_values(scope.key, plan))
                case "item":
                    item = await self.item(scope, plan, node.index)
                    return Prev(item, "one" if plan.spread == "item" else plan.spread)
                case "carry":
                    return Prev(await self.carry(scope, plan, node.index))
                case None:
                    node = scope
                case other:
                    assert_never(other)
        return None

    async def carry(self, loop: Node, plan: ScopePlan, index: int) -> Any:
        """What iteration `index` of a loop is given: the value of the one before, or what the loop began with."""
        if index == 0:
            return await self.library.codec.read(loop.result, *loop.key, "result")
        before = await self.node(self._member_key(loop, plan, index - 1))
        return await self.value(before) if before is not None and before.state == SUCCEEDED else None

    async def predecessor_path(self, node: Node) -> str | None:
        """The path of the task that made `node` ready: in a chain the last one before it; None for a first task."""
        while node.path and not (node.node == 0 and node.index >= 0):
            scope, plan = await self.around(node)
            feed = KINDS[plan.kind].feed(plan, node.index)
            if feed == "before" or (feed == "carry" and node.index):
                return await self._last_task(scope, node.index - 1)
            if feed == "results":
                return await self._last_task(scope, 0) if node.index else None
            node = scope
        return None

    async def _last_task(self, scope: Node, index: int) -> str:
        """Down from a member to the task that gave its value."""
        shape = self.library.shapes.get(scope.plan) or await self.library.shape(scope.plan)
        nodes = shape.nodes
        path, plan, at = scope.path, nodes[scope.node], index
        while isinstance(plan, ScopePlan) and plan.members:
            rules = KINDS[plan.kind]
            path = child_path(path, rules.segment(plan, at))
            plan = nodes[rules.place(plan, at)]
            if isinstance(plan, ScopePlan):
                at = await self._giver((scope.run, path), plan)
        return path

    async def _giver(self, key: Key, plan: ScopePlan) -> int:
        """The member whose value is that of the composite at `key`."""
        rules = rules_of(plan)
        if rules.gives != "taken":
            return rules.last(plan)
        node = await self.node(key)
        return (rules.taken(node.tally) or 0) if node is not None and node.tally is not None else 0

    async def _follow_up_argument(self, key: Key, is_cleanup: bool) -> Any:
        """The argument of a hook or catch: the value, or the node that ended, with the leaf and its error if it
        failed. A cleanup always gets the node, with its state."""
        scope = await self.needed(key)
        if scope.verdict == SUCCEEDED and not is_cleanup:
            return await self.value(scope)
        ended: dict[str, Any] = {"id": f"{scope.run}/{scope.path}".rstrip("/"), "node": scope.path}
        if is_cleanup:
            ended["state"] = scope.verdict
        if scope.verdict == FAILED:
            error = await self.error_of(scope)
            ended |= {"leaf": scope.failed_at, "error": public_error(error)}
        return ended

    # -- names in expressions

    async def item(self, scope: Node, plan: ScopePlan, index: int) -> Any:
        if isinstance(plan.items, Span):
            return range(plan.items.start, plan.items.stop, plan.items.step)[index]
        if isinstance(plan.items, tuple):
            return plan.items[index]
        if isinstance(plan.items, Sealed):
            items = await self.literal(scope, plan.items)
            return items[index]
        return await self.library.items.item(scope, index)

    async def literal(self, node: Node, sealed: Sealed) -> Any:
        """What an encoder wrote into the plan of `node`."""
        plan = (await self.library.shape(node.plan)).plan
        return await self.library.codec.read(sealed.body, node.run, plan.origin, f"literal {node.node}")

    async def env(self, node: Node, wanted: Iterable[tuple[str, ...]]) -> dict[str, Any]:
        """The names that an expression of `node` refers to, with their values. `wanted`: paths of references."""
        paths = list(wanted)
        names = {path[0] for path in paths}
        env: dict[str, Any] = {}
        header = await self.library.header(node.run)
        if "run" in names:
            env["run"] = {"id": header.run, "name": header.name, "created_at_ms": header.created_at_ms}
        if names & {"prev", "results"}:
            before = await self.prev(node)
            env["prev"] = env["results"] = before.value if before is not None else None
        steps: dict[str, int] = {}
        for path in paths:
            if path[0] == "steps" and len(path) > 1:
                steps[path[1]] = max(steps.get(path[1], 0), path.count("members"))
        await self._names_above(node, names, steps, env)
        if "inputs" in names - env.keys():
            env["inputs"] = await self.inputs(header)
        if "vars" in names - env.keys():
            env["vars"] = to_builtins((await self.library.shape(header.plan)).plan.vars)
        if "self" in names and "self" not in env:
            env["self"] = {"output": await self.value(node)}
        return env

    async def inputs(self, header: Header, root: Node | None = None) -> Any:
        """The inputs of a run; a later submission that was debounced has brought newer ones."""
        if root is None and header.claim is not None and header.claim.mode == "debounce":
            root = await self.node((header.run, ""))
        if root is None or root.inputs is None:
            return await self.library.codec.read(header.inputs, header.run, "", "inputs")
        run, newer = root.inputs
        self.library.codec.check(newer, run, "", "inputs")
        return decode(newer) if is_json(newer) else self.library.encoders.read(newer, value_location(run, "", "inputs"))

    async def duplicates(self, node: Node) -> int:
        """The number of other submissions that used the unique key of `node` while `node` held it."""
        if node.claim is None:
            return node.duplicates
        (claim,) = await self.store.read([(NO_RUN, node.claim)])
        return claim.duplicates if isinstance(claim, Claim) and node.key in claim.holders else node.duplicates

    async def _names_above(self, node: Node, names: set[str], steps: dict[str, int], env: dict[str, Any]) -> None:
        """Items of the maps around `node`, and the steps of the graphs around it, the innermost graph first.

        `steps`: name -> how many levels of its members are wanted too.
        """
        shown: dict[str, Any] = {}
        scope: Node | None = node
        while scope is not None:
            if scope.tally is not None:
                plan = await self.scope(scope)
                rules = rules_of(plan)
                if rules.isolates and scope is not node and node.index >= 0:
                    env["inputs"] = await self.carry(scope, plan, 0)
                    env["vars"] = to_builtins(plan.vars)
                    break
                given = rules.names(plan)
                if rules.carries and scope is not node:
                    if "carry" in names - env.keys():
                        env["carry"] = await self.carry(scope, plan, node.index)
                    env.setdefault("index", node.index)
                elif given and scope is not node and names & {*given, "item", "index"}:
                    item = await self.item(scope, plan, node.index)
                    for name, value in (
                        (plan.var, item),
                        (plan.index_var, node.index),
                        ("item", item),
                        ("index", node.index),
                    ):
                        env.setdefault(name, value)
                if rules.names_steps and plan.names is not None:
                    for name in steps.keys() & set(plan.names) - set(shown):
                        shown[name] = await self._step(scope, plan, plan.names.index(name), steps[name])
                if scope is not node and node.index < 0 and names & {"self", "error"} - env.keys():
                    ended = await self.outcome(scope.key)
                    env.setdefault("self", ended)
                    env.setdefault("error", ended["error"])
            node = scope
            scope = (await self.around(scope))[0] if scope.path else None
        if "steps" in names:
            env["steps"] = shown

    async def outcome(self, key: Key) -> dict[str, Any]:
        """The state in which a scope whose members have ended is about to end, for expressions in its handlers."""
        scope = await self.node(key)
        assert scope is not None
        output = await self.value(scope) if scope.verdict == SUCCEEDED else None
        error = public_error(await self.error_of(scope)) if scope.verdict == FAILED else None
        return {"output": output, "state": scope.verdict, "error": error}

    async def _step(self, scope: Node, plan: ScopePlan, index: int, depth: int) -> Any:
        """A member as expressions see it; `depth`: how many levels of its own members are among that."""
        node = await self.node(self._member_key(scope, plan, index))
        state = node.state if node is not None else SKIPPED
        if node is None and scope.tally is not None and scope.tally.how(index) == "cancelled":
            state = CANCELLED
        output = await self.value(node) if node is not None and state == SUCCEEDED else None
        error = public_error(await self.error_of(node)) if node is not None and state == FAILED else None
        shown = {"output": output, "state": state, "error": error}
        if depth:
            shown["members"] = await self._shown_members(node, depth)
        return shown

    async def _shown_members(self, scope: Node | None, depth: int) -> Any:
        """The members of a composite by name, as a list if they have no names; null for tasks, maps and loops."""
        if scope is None or scope.tally is None:
            return None
        plan = await self.scope(scope)
        rules = rules_of(plan)
        if rules.repeats:
            return None
        shown = [await self._step(scope, plan, index, depth - 1) for index in range(len(plan.members))]
        if plan.names is None and not rules.has_body:
            return shown
        return {rules.segment(plan, index): one for index, one in enumerate(shown)}

    async def origin(self, node: Node) -> Node:
        """The node in whose place expressions of `node` are evaluated: for an undo node, the node that it undoes."""
        if "!undo" not in node.path:
            return node
        done = await self.node((node.run, undone_path(node.path)))
        return done if done is not None else node


def public_error(error: ErrorInfo) -> dict[str, Any]:
    """An error as users' code sees it."""
    return {"type": error.type, "qualname": error.qualname, "message": error.message, "data": error.data}
