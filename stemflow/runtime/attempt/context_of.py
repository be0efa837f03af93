"""Making the context of a handler from the records of its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stemflow.core.kinds import rules_of
from stemflow.model.plan import LeafPlan
from stemflow.model.policy import Options
from stemflow.model.records import Node, task_id
from stemflow.runtime.payloads.encoders import encoder_names
from stemflow.runtime.payloads.headers import merged
from stemflow.runtime.tasks.context import HandlerServices, TaskContext
from stemflow.runtime.values.resolver import Values

C = TypeVar("C", bound=TaskContext)


async def context_of(
    kind: Callable[..., C], services: HandlerServices, values: Values, node: Node, leaf: LeafPlan, options: Options,
    state: Any,
) -> C:  # fmt: skip
    """The context of an attempt at `node`.

    `kind` makes it, from keywords, for handlers that run where this one does. `state`: what the lifespan yielded.
    """
    library = values.library
    header = await library.header(node.run)
    before = await values.predecessor_path(node)
    parent = header.parent if before is None else (node.run, before)
    named = encoder_names(node, leaf, options, header, library.encoders)
    return kind(
        run_id=node.run,
        node=node.path,
        name=leaf.task,
        services=services,
        attempt=node.attempt,
        max_retries=options.max_retries,
        headers=merged(merged(header.headers, leaf.headers), named.headers),
        meta=merged(merged(header.meta, leaf.meta), named.meta),
        queue=node.queue,
        enqueued_at_ms=node.opened_at_ms,
        parent_id=None if parent is None else task_id(parent),
        root_id=header.root,
        delivery=node.delivery,
        state=state,
        in_fan_in=bool(node.path) and await _in_fan_in(values, node),
        labels={**header.labels, **leaf.labels},
    )


async def _in_fan_in(values: Values, node: Node) -> bool:
    """Whether a group, chord header or map around the task can be joined by `add_to_group`."""
    while node.path:
        scope = await values.above(node)
        plan = await values.scope(scope)
        if rules_of(plan).may_join(plan, node.index):
            return node.index >= 0
        node = scope
    return False
