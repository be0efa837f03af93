"""Making the context of a handler from the records of its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stemflow.core.kinds import KINDS
from stemflow.model.plan import LeafPlan
from stemflow.model.policy import Options
from stemflow.model.records import Node, task_id
from stemflow.runtime.payloads.encoders import JSON_ONLY, encoder_names
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
    header = library.headers.get(node.run) or await library.header(node.run)
    before = await values.predecessor_path(node) if node.path else None
    parent = header.parent if before is None else (node.run, before)
    named = encoder_names(node, leaf, options, header, library.encoders)
    headers, meta = header.headers, header.meta
    if leaf.headers or leaf.meta or named is not JSON_ONLY:
        headers = merged(merged(headers, leaf.headers), named.headers)
        meta = merged(merged(meta, leaf.meta), named.meta)
    return kind(
        run_id=node.run,
        node=node.path,
        name=leaf.task,
        services=services,
        attempt=node.attempt,
        max_retries=options.max_retries,
        headers=headers,
        meta=meta,
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
        scope, plan = await values.around(node)
        if KINDS[plan.kind].may_join(plan, node.index):
            return node.index >= 0
        node = scope
    return False
