"""Programs with wrong links: every line that a type checker must refuse is marked, and no other."""

from __future__ import annotations

from tasks import add, count, label, now, registry, shout, total

from stemflow import Canvas, NoInput, Signature

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
