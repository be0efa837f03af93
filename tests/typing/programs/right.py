"""Programs whose links fit: a type checker has nothing to say about them, and knows what they give."""

from __future__ import annotations

from typing import Any, assert_type

from tasks import Charge, Receipt, add, buy, charge, count, label, now, printing, read, remote, shout, total

from stemflow import (
    Canvas,
    NoInput,
    RunHandle,
    Signature,
    Stemflow,
    TaskDefinition,
    TaskEnqueueBuilder,
    TaskOptions,
    TaskResult,
    skew,
)

# A call is complete, or waits for the value of the step before it as its first argument.
assert_type(add.s(1, 2), Signature[NoInput, int])
assert_type(add.s(x=1, y=2), Signature[NoInput, int])
assert_type(add.s(1), Signature[int, int])
assert_type(shout.s(), Signature[str, str])
assert_type(label.s(prefix="no "), Signature[int, str])
assert_type(now.s(), Signature[NoInput, int])
assert_type(now.si(), Signature[object, int])
assert_type(add.with_options(priority=3, countdown=1).s(1), Signature[int, int])
assert_type(total.s(), Signature[list[int], int])

# chain and `|`
assert_type(Canvas.chain(add.s(1, 2)), Signature[NoInput, int])
assert_type(Canvas.chain(add.s(1, 2), label.s()), Signature[NoInput, str])
assert_type(Canvas.chain(add.s(1, 2), add.s(3), label.s(), shout.s(), count.s()), Signature[NoInput, int])
assert_type(Canvas.chain(add.s(1), label.s()), Signature[int, str])
assert_type(Canvas.chain(add.s(1, i) for i in range(3)), Signature[Any, Any])
assert_type(add.s(1, 2) | add.s(3) | label.s(), Signature[NoInput, str])
assert_type(add.s(1, 2) | now.si() | label.s(), Signature[NoInput, str])
assert_type((add.s(1, 2) | label.s()).on_failure(shout.s()).named("first"), Signature[NoInput, str])

# group
assert_type(Canvas.group(add.s(1, 2), now.s()), Signature[NoInput, list[int]])
assert_type(Canvas.group(add.s(1, i) for i in range(3)), Signature[NoInput, list[int]])
assert_type(Canvas.group(label.s(), label.s(prefix="no ")), Signature[int, list[str]])
assert_type(add.s(1, 2) | Canvas.group(add.s(1), add.s(2)) | total.s(), Signature[NoInput, int])
assert_type(Canvas.group(Canvas.group(add.s(1, 2)), Canvas.group(now.s())), Signature[NoInput, list[list[int]]])
assert_type(Canvas.group(add.s(1, 2), now.si()), Signature[NoInput, list[int]])
assert_type(skew(Canvas.group(add.s(1, 2))), Signature[NoInput, list[int]])

# chord
assert_type(Canvas.chord([add.s(1, 2), now.s()], total.s()), Signature[NoInput, int])
assert_type(Canvas.chord(Canvas.group(add.s(1), add.s(2)), total.s()), Signature[int, int])
assert_type(Canvas.chord([add.s(1, 2)], total.s(), on_member_error="collect") | label.s(), Signature[NoInput, str])
assert_type(Canvas.chord([add.s(1, 2)], total.s() | label.s()), Signature[NoInput, str])
assert_type(Canvas.chord([add.s(1, 2)], now.si()), Signature[NoInput, int])

# map
assert_type(Canvas.map(label.s(), [1, 2]), Signature[NoInput, list[str]])
assert_type(Canvas.map(add.s(1), range(10)) | total.s(), Signature[NoInput, int])
assert_type(Canvas.map(add.s(1) | label.s(), [1, 2]), Signature[NoInput, list[str]])
assert_type(Canvas.chunks(add.s(1), range(100), 10), Signature[NoInput, list[list[int]]])
assert_type(label.map([1, 2], concurrency=5), Signature[NoInput, list[str]])

# A name alone says nothing of types: it fits everywhere.
assert_type(add.s(1, 2) | Canvas.task("other", 1) | shout.s(), Signature[NoInput, str])

# Classes as arguments and results
assert_type(buy.s(Charge(1)), Signature[NoInput, Receipt])
assert_type(buy.s(Charge(1)) | read.s(), Signature[NoInput, str])
assert_type(Canvas.map(buy.s(), [Charge(1)]), Signature[NoInput, list[Receipt]])

# Definitions, handlers as classes, builders
assert_type(charge, TaskDefinition[Charge, Receipt])
assert_type(printing, TaskDefinition[Receipt, int])
assert_type(charge.call(Charge(1)), TaskEnqueueBuilder[object, Receipt])
built = remote.call(Charge(1)).with_headers({"a": "b"}).priority(3).delay("5s")
assert_type(built, TaskEnqueueBuilder[object, Receipt])
assert_type(remote.call(Charge(1)) | read.s(), Signature[object, str])
assert_type(Canvas.chain(now.s(), remote.call(Charge(1)), read.s()), Signature[NoInput, str])
assert_type(Canvas.group(charge.call(Charge(1)), buy.si(Charge(2))), Signature[object, list[Receipt]])
TaskOptions(max_retries=3, priority=0, queue="slow", soft_time_limit="5s", rate_limit=["5/s", "100/m"])

# decode=
assert_type(add.s(1, 2) | Canvas.task("print", decode=Receipt), Signature[NoInput, Receipt])
assert_type(add.s(1, 2) | Canvas.task("print", decode=str.upper) | shout.s(), Signature[NoInput, str])


async def results(app: Stemflow) -> None:
    """What running, submitting and waiting give."""
    assert_type(await app.run(buy.s(Charge(1))), Receipt)
    assert_type(await app.run(Canvas.group(add.s(1, 2))), list[int])
    handle = await app.submit(charge.call(Charge(1)))
    assert_type(handle, RunHandle[Receipt])
    result = await handle.wait(timeout=3)
    assert_type(result, TaskResult[Receipt])
    assert_type(result.value, Receipt | None)
    assert_type(result.required(), Receipt)
    assert_type(result.value_or(None), Receipt | None)
    assert_type(result.value_or(0), Receipt | int)
    assert_type(await app.wait_for_task(handle.id, decode=Receipt), TaskResult[Receipt])
    assert_type(await app.result(handle.id), TaskResult[Any])
