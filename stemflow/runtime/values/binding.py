"""Evaluating what a plan leaves open: arguments just before a call, and gates while a decision is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import product
from math import prod
from typing import Any, assert_never

from msgspec import structs

from stemflow.compile.freeze import named
from stemflow.core.kinds import rules_of
from stemflow.core.kinds.switch import chosen
from stemflow.core.rates import given_keys
from stemflow.core.shape import Shape
from stemflow.errors import StemflowError
from stemflow.expr import ExpressionError, parse_condition, parse_template
from stemflow.expr.values import describe
from stemflow.model.effects import Frozen, GateError, GateKey, LoopStart
from stemflow.model.plan import (
    AnyPlan,
    ApprovalPlan,
    EmitPlan,
    EventPlan,
    LeafPlan,
    Plan,
    ScopePlan,
    Sealed,
    WaitPlan,
)
from stemflow.model.policy import Options
from stemflow.model.records import SUCCEEDED, ErrorInfo, Key, Node
from stemflow.model.signature import MOST_ITERATIONS
from stemflow.runtime.payloads.encoders import TaskPayloadEncoderRegistry, UnknownEncoder
from stemflow.runtime.payloads.headers import merged
from stemflow.runtime.payloads.json_data import written
from stemflow.runtime.payloads.signing import SigningError
from stemflow.runtime.values.cached_results import cached_key
from stemflow.runtime.values.call_keys import concurrency_key, key_text, unique_key
from stemflow.runtime.values.call_keys import named as by_name
from stemflow.runtime.values.events import answer_in_time, arrival, emission, truth
from stemflow.runtime.values.map_items import PAGE
from stemflow.runtime.values.misfits import refuse_misfit
from stemflow.runtime.values.resolver import Values, public_error
from stemflow.runtime.values.secret_values import secrets_read, with_secrets, without_values
from stemflow.runtime.values.time_limits import timeout_ms
from stemflow.runtime.values.value_codec import value_location
from stemflow.store.base import StoreError
from stemflow.units import parse_duration_ms

Call = tuple[tuple[Any, ...], dict[str, Any]]

PAGE_BYTES = 64 * 1_048_576
"""The largest page of a map's items, in bytes."""

_SHOWN = {"span": "for", "limit": "timeout", "event": "match"}
"""Gates whose names differ from the key in a workflow file."""
_VALUES = {"outputs": "outputs", "tree": "set", "error": "fail"}
"""What the value of a scope is made from -> the key in a workflow file."""

NO_NAMES: Mapping[str, Any] = {}
_NAMES = frozenset({"inputs", "vars", "steps", "prev", "results", "item", "index", "run", "self", "error", "event"})


class Bound(tuple[Call, ...]):
    """The calls of one task: one, or those of a `Chunk`."""

    chunked = False


class Chunk(Bound):
    """The calls of one task for the items of a chunk, one for each."""

    chunked = True


class Binder:
    """Evaluates the expressions of one plan. `shape`: the plan, whose maps define names of items."""

    def __init__(self, shape: Shape) -> None:
        scopes = [node for node in shape.nodes if isinstance(node, ScopePlan)]
        self.names = _NAMES | {name for scope in scopes for name in rules_of(scope).names(scope)}

    async def template(self, values: Values, node: Node, tree: Any, names: Mapping[str, Any] = NO_NAMES) -> Any:
        """The value of a tree of `node`; `names` are known besides those around it."""
        template = parse_template(tree, self.names | names.keys())
        if template.constant:
            return template({})
        env = await values.env(node, (reference.path for reference in template.references))
        return template({**env, **names})

    def secrets_of(self, leaf: LeafPlan) -> frozenset[str]:
        """The secrets that the arguments and variables of a leaf read."""
        return secrets_read(leaf, self.names)

    async def condition(self, values: Values, node: Node, source: str, names: Mapping[str, Any] = NO_NAMES) -> Any:
        """The value of a bare expression of `node`; `names` are known besides those around it."""
        expression = parse_condition(source, self.names)
        env = await values.env(node, (reference.path for reference in expression.references))
        return expression({**env, **names})

    async def outputs(self, values: Values, scope: Node, tree: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a scope whose members have ended; one over a step that gave nothing is null.

        In a body that is not `steps`, `prev` and `results` are the value that the body gave.
        """
        filled: dict[str, Any] = {}
        gives = rules_of(await values.scope(scope)).gives != "nothing"
        for name, one in tree.items():
            template = parse_template(one, self.names)
            env = await values.env(scope, (reference.path for reference in template.references))
            if gives and env.keys() & {"prev", "results"}:
                env["prev"] = env["results"] = await values.value(scope)
            steps = env.get("steps", {})
            void = any(
                reference.path[0] == "steps" and reference.path[2:3] == ("output",) and not reference.optional
                and steps.get(reference.path[1], {}).get("state") != SUCCEEDED
                for reference in template.references
            )  # fmt: skip
            try:
                filled[name] = None if void else template(env)
            except ExpressionError as error:
                raise error.within((name,)) from None
        return filled

    async def calls(
        self, values: Values, node: Node, leaf: LeafPlan, secrets: Mapping[str, str] | None = None
    ) -> Bound:
        """The calls of a leaf; with the arguments of a later submission if they replaced its own (`debounce`).

        `secrets`: the values of those that it reads, for its handler; without them, as in keys, a secret is its name.
        Raises ExpressionError, UnknownEncoder, BadPayload.
        """
        if node.stand_in is not None:
            return await self._calls_of(values, node.stand_in)
        if leaf.bind is not None:
            origin = await values.origin(node)
            if secrets is None:
                names = await without_values(values, origin, self.secrets_of(leaf))
            else:
                names = await with_secrets(values, origin, secrets)
            bound = await self.template(values, origin, dict(leaf.bind), names)
            return Bound([((), bound)])
        args, kwargs = leaf.args, dict(leaf.kwargs)
        if leaf.sealed is not None:
            given = await values.literal(node, leaf.sealed)
            args, kwargs = tuple(given["args"]), given["kwargs"]
        if not node.path and not args and not kwargs:
            inputs = await values.inputs(await values.library.header(node.run), node)
            return Bound([(tuple(inputs.get("args", ())), inputs.get("kwargs", {}))])
        before = await values.prev(node) if leaf.takes_prev and node.path else None
        if before is None:
            return Bound([(args, kwargs)])
        if before.how == "star":
            return Bound([((*before.value, *args), kwargs)])
        if before.how == "chunk":
            return Chunk(((*_unpacked(item), *args), kwargs) for item in before.value)
        return Bound([((before.value, *args), kwargs)])

    async def environment(
        self, values: Values, node: Node, leaf: LeafPlan, secrets: Mapping[str, str]
    ) -> dict[str, str]:
        """The environment variables of a leaf. Raises ExpressionError."""
        origin = await values.origin(node)
        names = await with_secrets(values, origin, secrets)
        found = await self.template(values, origin, dict(leaf.env), names)
        return {name: key_text(value) for name, value in found.items()}

    async def _calls_of(self, values: Values, key: Key) -> Bound:
        node = await values.node(key)
        assert node is not None
        shape = await values.library.shape(node.plan)
        leaf = shape.nodes[node.node]
        assert isinstance(leaf, LeafPlan)
        return await Binder(shape).calls(values, node, leaf)


def _unpacked(item: Any) -> tuple[Any, ...]:
    return tuple(item) if isinstance(item, list) else (item,)


async def gate(values: Values, key: GateKey, binder: Binder, node: Node, plan: AnyPlan) -> Any:
    """The value of a gate, or a GateError: an expression that fails makes the node fail, not the worker."""
    name = key[2]
    try:
        if name == "when":
            assert plan.when is not None
            return bool(await binder.condition(values, node, plan.when))
        if name == "items":
            assert isinstance(plan, ScopePlan)
            return await _frozen(values, binder, node, plan)
        if name == "case":
            assert isinstance(plan, ScopePlan) and plan.on is not None
            return chosen(plan, await binder.condition(values, node, plan.on))
        if name == "span":
            assert isinstance(plan, WaitPlan)
            return parse_duration_ms(await binder.template(values, node, plan.span))
        if name == "timeout":
            assert isinstance(plan, ScopePlan)
            return timeout_ms(await binder.template(values, node, plan.timeout))
        if name == "until" and isinstance(plan, WaitPlan):
            return _instant_ms(await binder.template(values, node, plan.until))
        if isinstance(plan, (EventPlan, EmitPlan, ApprovalPlan)):
            return await _waiting(values, binder, node, plan, name)
        if name == "catch":
            assert isinstance(plan, ScopePlan)
            return await _fitting_catch(values, binder, node, plan)
        if name == "inputs":
            assert isinstance(plan, ScopePlan)
            return await _inputs(values, binder, node, plan)
        if name == "loop":
            assert isinstance(plan, ScopePlan)
            return await _loop_start(values, binder, node, plan)
        if name.startswith("again "):
            assert isinstance(plan, ScopePlan)
            return await _goes_on(values, binder, node, plan, int(name.removeprefix("again ")))
        if name == "returns":
            assert isinstance(plan, ScopePlan) and plan.returns is not None
            return refuse_misfit(plan.returns, await values.value(node), "output")
        if name == "value":
            assert isinstance(plan, ScopePlan) and plan.value is not None
            return await _value(values, binder, node, plan, plan.value)
        return await _key(values, binder, node, plan, name)
    except (StoreError, SigningError):
        raise
    except Exception as error:
        dead = "unknown-encoder" if isinstance(error, UnknownEncoder) else None
        name = _SHOWN.get(name.split()[0], name)
        if name.startswith("again "):
            name = "until" if isinstance(plan, ScopePlan) and plan.until else "while"
        if name == "value" and isinstance(plan, ScopePlan):
            name = _VALUES[rules_of(plan).evaluates]
        text = error.said_of(name) if isinstance(error, ExpressionError) else f"{name}: {error}"
        return GateError(ErrorInfo(type(error).__name__, text, f"stemflow.{type(error).__name__}"), dead)


async def _waiting(
    values: Values, binder: Binder, node: Node, plan: EventPlan | EmitPlan | ApprovalPlan, name: str
) -> Any:
    """The gates of steps that wait for an event or a person, and of those that send an event."""
    if name == "limit":
        assert not isinstance(plan, EmitPlan)
        return parse_duration_ms(await binder.template(values, node, plan.limit))
    if isinstance(plan, EventPlan):
        return await arrival(values, partial(binder.condition, values, node), node, plan, name)
    if isinstance(plan, EmitPlan):
        return await emission(values, partial(binder.template, values, node), node, plan)
    return await answer_in_time(values, node, plan)


async def _value(values: Values, binder: Binder, node: Node, plan: ScopePlan, tree: Mapping[str, Any]) -> Any:
    """The encoded result of a scope from its tree, or the error that the workflow asks for."""
    match rules_of(plan).evaluates:
        case "outputs":
            found, what = await binder.outputs(values, node, tree), f"outputs of {node.path or 'the run'}"
        case "tree":
            found, what = await binder.template(values, node, dict(tree)), f"values of {node.path}"
        case "error":
            error = await binder.template(values, node, dict(tree))
            written(error["data"], f"data of {node.path or 'the run'}")
            return GateError(ErrorInfo(key_text(error["type"]), key_text(error["message"]), data=error["data"]))
        case other:
            assert_never(other)
    write = await values.library.codec.writer(values.library.encoders.results, *node.key, "result")
    return write(found, what)


async def _fitting_catch(values: Values, binder: Binder, node: Node, plan: ScopePlan) -> int:
    """The number of the first catch that is for the error of a scope; -1 if none is."""
    error = await values.error_of(node)
    names = {error.type, error.qualname, *error.mro, *(one.rsplit(".", 1)[-1] for one in error.mro)}
    for number, catch in enumerate(plan.catches):
        if catch.on and names.isdisjoint(catch.on):
            continue
        known = {"error": public_error(error)}
        if catch.when is None or truth(await binder.condition(values, node, catch.when, known)):
            return number
    return -1


async def _inputs(values: Values, binder: Binder, node: Node, plan: ScopePlan) -> bytes:
    """The encoded inputs of a sub-workflow. Raises InvalidInputs."""
    # Only a worker that runs a sub-workflow needs the validator of JSON Schemas.
    from stemflow.runtime.values.forms import complete_form  # noqa: PLC0415

    given = await binder.template(values, node, dict(plan.start or {}))
    write = await values.library.codec.writer(values.library.encoders.results, *node.key, "result")
    return write(complete_form(plan.form or {}, given), f"inputs of {node.path or 'the run'}")


async def _loop_start(values: Values, binder: Binder, node: Node, plan: ScopePlan) -> LoopStart:
    """What a loop carries into its first iteration, and whether there is one."""
    carry = await binder.template(values, node, plan.start)
    limit = None
    if isinstance(plan.limit, str):
        limit = _count(await binder.template(values, node, plan.limit), "max", MOST_ITERATIONS)
    encoded = None
    if carry is not None:
        write = await values.library.codec.writer(values.library.encoders.results, *node.key, "result")
        encoded = write(carry, f"carry of {node.path or 'the run'}")
    if plan.on is None or plan.until:
        return LoopStart(encoded, True, limit)
    goes_on = truth(await binder.condition(values, node, plan.on, {"carry": carry, "index": 0}))
    return LoopStart(encoded, goes_on, limit)


def _instant_ms(value: Any) -> int:
    """An instant in ISO 8601 as epoch ms."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        at = None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise StemflowError(f"expected an instant with its zone, such as 2026-01-31T08:00:00Z, got {value!r}")
    return round(at.timestamp() * 1_000)


async def _goes_on(values: Values, binder: Binder, node: Node, plan: ScopePlan, index: int) -> bool:
    """Whether iteration `index` of a loop follows."""
    assert plan.on is not None
    names = {"carry": await values.carry(node, plan, index), "index": index}
    return truth(await binder.condition(values, node, plan.on, names)) != plan.until


async def _frozen(values: Values, binder: Binder, node: Node, scope: ScopePlan) -> Frozen:
    """The items of a map that are known only now, and its window, if an expression gives it."""
    window = None
    if isinstance(scope.window, str):
        window = _count(await binder.template(values, node, scope.window), "concurrency", 1_000_000)
    if scope.matrix is not None:
        items: Any = _combined(await binder.template(values, node, dict(scope.matrix)))
    elif isinstance(scope.items, str):
        items = await binder.condition(values, node, scope.items)
    else:
        return Frozen(None, (), window)
    if isinstance(items, dict) or not isinstance(items, (list, tuple, range)):
        raise StemflowError(f"map {node.path}: items: expected a list, got {type(items).__name__}")
    everything = list(items)
    if scope.batch is not None:
        size = _count(await binder.template(values, node, scope.batch), "batch", 1_000_000)
        everything = [everything[start : start + size] for start in range(0, len(everything), size)]
    shape = await values.library.shape(node.plan)
    encoder = _args_encoder(shape.plan, scope) or values.library.encoders.args
    where = "" if encoder == "json" else await values.library.codec.location(*node.key, "items")
    what = f"items of {node.path}"
    return Frozen(len(everything), pages_of(everything, what, values.library.encoders, encoder, where), window)


MOST_COMBINATIONS = 1_000_000
"""The largest number of items that a matrix may have."""


def _combined(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of one value of each list, the last list varying fastest."""
    for name, values in matrix.items():
        if not isinstance(values, (list, tuple, range)):
            raise StemflowError(f"matrix.{name}: expected a list, got {describe(values)}")
    number = prod(len(values) for values in matrix.values())
    if number > MOST_COMBINATIONS:
        raise StemflowError(f"matrix: expected at most {MOST_COMBINATIONS:,} combinations, got {number:,}")
    return [dict(zip(matrix, chosen, strict=True)) for chosen in product(*matrix.values())]


def _count(value: Any, name: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise StemflowError(f"{name}: expected a whole number from 1 to {most:,}, got {describe(value)}")
    return value


def _args_encoder(plan: Plan, node: AnyPlan) -> str | None:
    """The encoder of arguments; that of a map's items is its first task's, whose arguments they are."""
    while isinstance(node, ScopePlan) and node.members:
        node = plan.nodes[node.members[0]]
    return plan.options[node.options].args_encoder if isinstance(node, LeafPlan) else None


def seal_literals(plan: Plan, encoders: TaskPayloadEncoderRegistry, origin: str, added_by: str = "") -> Plan:
    """Encode literal arguments and items in a plan of the run `origin`, where their encoder is not JSON.

    `added_by`: the task that adds the plan to its run, or is replaced by it.
    """
    nodes = list(plan.nodes)
    for index, node in enumerate(nodes):
        encoder = _args_encoder(plan, node) or encoders.args
        if encoder == "json":
            continue
        where = value_location(origin, added_by, f"literal {index}")
        if isinstance(node, LeafPlan) and (node.args or node.kwargs):
            given = {"args": list(node.args), "kwargs": dict(node.kwargs)}
            body = encoders.writer(encoder, where)(given, f"arguments of {node.task}")
            nodes[index] = structs.replace(node, args=(), kwargs={}, sealed=Sealed(body))
        elif isinstance(node, ScopePlan) and isinstance(node.items, tuple):
            body = encoders.writer(encoder, where, limit=PAGE_BYTES)(list(node.items), "items")
            nodes[index] = structs.replace(node, items=Sealed(body, len(node.items)))
    if nodes == list(plan.nodes):
        return plan
    return named(structs.replace(plan, nodes=tuple(nodes), origin=added_by))


def pages_of(
    items: list[Any] | tuple[Any, ...], what: str, encoders: TaskPayloadEncoderRegistry, encoder: str, where: str
) -> tuple[bytes, ...]:
    """Encode items in pages of at most PAGE items. `encoder`: its id; `where`: the location of the items."""
    return tuple(
        encoders.writer(encoder, f"{where} {number}", limit=PAGE_BYTES)(
            list(items[number * PAGE : (number + 1) * PAGE]), f"{what} from {number * PAGE}"
        )
        for number in range((len(items) + PAGE - 1) // PAGE)
    )


async def rate_keys(values: Values, binder: Binder, node: Node, leaf: LeafPlan, options: Options) -> tuple[str, ...]:
    """Evaluate the keys of rate limits that `given_keys` gives."""
    given = given_keys(options)
    env: dict[str, Any] = {"headers": merged((await values.library.header(node.run)).headers, leaf.headers)}
    if any("args" in key for key in given):
        (call, *_) = await binder.calls(values, node, leaf)
        env["args"] = by_name(options, call)
    return tuple([key_text(await _text(values, binder, node, key, env)) if "${{" in key else key for key in given])


async def _key(values: Values, binder: Binder, node: Node, plan: AnyPlan, name: str) -> Any:
    """Evaluate the unique key, the concurrency key or the rate limit keys of a node, over the arguments of its task."""
    if not isinstance(plan, LeafPlan):
        assert isinstance(plan, ScopePlan) and plan.concurrency is not None
        return concurrency_key(await binder.template(values, node, plan.concurrency.key), node.path)
    options = (await values.library.shape(node.plan)).plan.options[plan.options]
    if name == "rate_limit":
        return await rate_keys(values, binder, node, plan, options)
    limited = options.concurrency
    source = options.unique_by if name == "unique" else limited.key if limited is not None else None
    calls: Sequence[Call] = ()
    if name == "unique" or "args" in (source or ""):
        calls = await binder.calls(values, node, plan)
    named_calls = [{"args": by_name(options, call)} for call in calls or [((), {})]]
    texts = [await _text(values, binder, node, source, names) for names in named_calls]
    if name == "unique":
        key = unique_key(plan.task, options, calls, texts)
        if not options.cached:
            return key
        private = node.key if (await values.library.header(node.run)).no_cache else None
        return await cached_key(values.store, plan.task, key, private)
    return concurrency_key(texts[0], plan.task)


async def _text(values: Values, binder: Binder, node: Node, source: str | None, names: Mapping[str, Any]) -> Any:
    if source is None:
        return None
    template = parse_template(source, binder.names | {"args", "headers"})
    env = await values.env(await values.origin(node), (reference.path for reference in template.references))
    return template({**env, **names})
