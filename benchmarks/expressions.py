"""What expressions cost: a path, a condition, a pattern, a date; and how soon a costly one is refused."""

from __future__ import annotations

import time
import timeit
import tracemalloc
from typing import Any

from stemflow.expr import ExpressionError, compile_expression, parse_template

ENV: dict[str, Any] = {
    "inputs": {"n": 5, "name": "ann", "order": "DE000042"},
    "run": {"created_at_ms": 1_796_094_000_123},
    "steps": {"pay": {"output": {"id": "ch_1", "ok": True, "total": 12}}},
}
CALLS = 20_000
SOURCES = {
    "path": "steps.pay.output.id",
    "three terms": "steps.pay.output.ok and inputs.n > 3 and inputs.name != 'x'",
    "pattern": "matches(inputs.order, '^[A-Z]{2}[0-9]{6}$')",
    "dates": "now() + duration('2h') > now()",
}
COSTLY = [
    "'a' * 10**9", "9**9**9", "range(10**12)", "f'{1:>1000000}'", "format(1, '.999999f')",
    "join(['a'] * 99999, 'b' * 9999)", "replace('a' * 1000000, 'a', 'bb')", "split(',' * 1000000, ',')",
    "[x * y for x in range(9999) for y in range(9999)]", "[strip('a' * 100000, 'xyz') for n in range(1000)]",
    "matches('a' * 9999, '(a|aa)+$b')", "[[0] * 1000] * 99999", "[f'{n:1000}' for n in range(90000)]",
]  # fmt: skip


def main() -> None:
    for name, source in SOURCES.items():
        expression = compile_expression(source, ENV)
        spent = timeit.repeat(lambda: expression(ENV), number=CALLS, repeat=7, timer=time.process_time)  # noqa: B023
        print(f"{name:<14}{min(spent) / CALLS * 1e6:>8.2f} us")
    template = parse_template({"id": "${{ steps.pay.output.id }}", "kind": "card"}, ENV)
    spent = timeit.repeat(lambda: template(ENV), number=CALLS, repeat=7, timer=time.process_time)
    print(f"{'arguments':<14}{min(spent) / CALLS * 1e6:>8.2f} us")
    for source in COSTLY:
        print(f"{refused(source)}  {source}")


def refused(source: str) -> str:
    """Milliseconds of processor time, and the peak of memory in a second try, which is slower."""
    began = time.process_time()
    first = tried(source)
    took = (time.process_time() - began) * 1_000
    tracemalloc.start()
    tried(source)
    peak = tracemalloc.get_traced_memory()[1] / 1_048_576
    tracemalloc.stop()
    return f"{took:>8.1f} ms{peak:>7.1f} MiB  {first}"


def tried(source: str) -> str:
    try:
        compile_expression(source, ENV)(ENV)
    except ExpressionError:
        return "refused"
    return "computed"


if __name__ == "__main__":
    main()
