"""Programs with wrong links: every line that a type checker must refuse is marked, and no other."""

from __future__ import annotations

from tasks import Charge, Receipt, add, buy, charge, count, label, now, printing, read, registry, remote, shout, total

from stemflow import Canvas, NoInput, Signature, Stemflow, TaskContext, TaskDefinition, TaskHandler, TaskOptions

# s, si: arguments that the task does not take
add.s("1")  # expect-error
add.s(1, "2")  # expect-error
add.s(1, 2, 3)  # expect-error
add.s(1, z=2)  # expect-error
add.s()  # expect-error
add.si(1)  # expect-error
now.s(1)  # expect-error
label.s(prefix=1)  # expect-error
add.with_options(priority=3).s("1")  # expect-error
given: Signature[NoInput, str] = add.s(1, 2)  # expect-error
partial: Signature[NoInput, int] = add.s(1)  # expect-error

# chain and `|`
Canvas.chain(add.s(1, 2), shout.s())  # expect-error
Canvas.chain(add.s(1, 2), label.s(), add.s(1))  # expect-error
Canvas.chain(add.s(1, 2), add.s(3), add.s(4), label.s(), total.s())  # expect-error
Canvas.chain(add.s(1, 2), add.s(3, 4))  # expect-error
add.s(1, 2) | shout.s()  # expect-error
add.s(1, 2) | now.s()  # expect-error
add.s(1, 2) | label.s() | label.s()  # expect-error
(add.s(1, 2) | label.s()).on_success(shout.s()) | add.s(1)  # expect-error

# group
Canvas.group(add.s(1, 2), add.s(3, 4)) | shout.s()  # expect-error
Canvas.group(label.s(), label.s()) | total.s()  # expect-error
add.s(1, 2) | Canvas.group(shout.s(), shout.s())  # expect-error
add.s(1, 2) | Canvas.group(add.s(1), shout.s())  # expect-error
Canvas.group(add.s(1, 2), on_member_error="explode")  # expect-error
Canvas.group(add.s(1, 2), 3)  # expect-error

# chord
Canvas.chord([add.s(1, 2), now.s()], shout.s())  # expect-error
Canvas.chord([count.s(), count.s()], label.s())  # expect-error
Canvas.chord(Canvas.group(label.s()), total.s())  # expect-error
Canvas.chord([add.s(1, 2)], now.s())  # expect-error
Canvas.chord(add.s(1, 2), total.s())  # expect-error
Canvas.chord([add.s(1, 2)], total.s()) | shout.s()  # expect-error

# map
Canvas.map(shout.s(), [1, 2])  # expect-error
Canvas.map(label.s(), [1, 2]) | total.s()  # expect-error
Canvas.map(add.s(1, 2), [1, 2])  # expect-error
shout.map([1, 2])  # expect-error
Canvas.map(add.s(1), 3)  # expect-error
Canvas.chunks(add.s(1), range(100), 10) | total.s()  # expect-error

# registering
registry.task(3)  # expect-error
registry.register(count.function)  # expect-error

# classes, definitions, handlers, builders
buy.s(1)  # expect-error
buy.s(Receipt("x"))  # expect-error
add.s(1, 2) | read.s()  # expect-error
buy.s(Charge(1)) | shout.s()  # expect-error
Canvas.map(buy.s(), [1])  # expect-error
charge.call(Receipt("x"))  # expect-error
charge.call(1)  # expect-error
remote.call(Charge("x"))  # expect-error
remote.call(Charge(1)).priority("high")  # expect-error
remote.call(Charge(1)).with_headers({"a": 1})  # expect-error
remote.call(Charge(1)) | shout.s()  # expect-error
Canvas.chain(remote.call(Charge(1)), printing.call(Receipt("x")), read.s())  # expect-error
mistyped: TaskDefinition[Charge, str] = TaskDefinition("charge", decode_result=Receipt)  # expect-error
add.s(1, 2) | Canvas.task("print", decode=Receipt) | shout.s()  # expect-error
TaskOptions(max_retries="3")  # expect-error
TaskOptions(unique_mode="sometimes")  # expect-error


class Wrong(TaskHandler[Charge, Receipt]):
    name = "wrong"

    async def call(self, context: TaskContext, args: Receipt) -> Receipt:  # expect-error
        return args


async def results(app: Stemflow) -> None:
    print((await app.run(buy.s(Charge(1)))).amount)  # expect-error
    handle = await app.submit(buy.s(Charge(1)))
    print((await handle.wait()).required().amount)  # expect-error
    print((await handle.wait()).value.text)  # expect-error
    app.submit(1)  # expect-error
