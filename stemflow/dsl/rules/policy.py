"""SF5: numbers that cannot be meant, and limits that work against each other."""

from __future__ import annotations

from collections.abc import Iterator

from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.values import duration_ms, hard_timeout, kind_label, per_second, task_defaults
from stemflow.dsl.rules.view import Step, View
from stemflow.dsl.source import Node
from stemflow.units import format_duration

_LIMITS = ("timeout", "expires")
MOST_RETRIES = 1_000
"""Retries whose delays are added one by one."""


def _owners(view: View, *keys: str) -> Iterator[tuple[str, Node]]:
    """(how messages begin, mapping) of all that has one of these options: steps, compensations, defaults, the file."""
    found = {id(step.node): step.node for key in keys for step in view.having(key)}
    yield from (("", node) for node in found.values())
    for step in (*view.having("event"), *view.having("approval")):
        if step.body is not None and step.kind in ("event", "approval"):
            yield f"{step.kind}.", step.body
    for undo in view.undos.values():
        yield "compensate.", undo.node
    defaults = task_defaults(view)
    if defaults is not None:
        yield "defaults.task.", defaults


@rule("SF505")
def zero_limits(view: View) -> Iterator[Found]:
    """A limit of no time at all."""
    for where, node in _owners(view, *_LIMITS, "retry"):
        limits = [(key, node.get(key)) for key in _LIMITS]
        timeout, retry = node.get("timeout"), node.get("retry")
        limits += [(f"timeout.{key}", timeout.get(key)) for key in ("soft", "hard") if timeout is not None]
        for one in [] if retry is None else retry.items or [retry]:
            limits.append(("retry.budget", one.get("budget")))
        for key, limit in limits:
            if limit is not None and duration_ms(limit) == 0:
                yield Found(
                    f"{where}{key}: a limit of 0 lets nothing run", limit.place, "leave the key out for no limit"
                )


@rule("SF506", "warning")
def wait_of_nothing(view: View) -> Iterator[Found]:
    """A wait that does not wait."""
    for step in view.having("wait"):
        wait = step.body.get("for") if step.kind == "wait" and step.body is not None else None
        if wait is not None and duration_ms(wait) == 0:
            yield Found("wait.for: 0 waits for nothing", wait.place, "take the step out")


def _retries(view: View) -> Iterator[tuple[str, Node, Node]]:
    for where, node in _owners(view, "retry"):
        retry = node.get("retry")
        for one in [] if retry is None else retry.items or [retry]:
            if isinstance(one.value, dict):
                yield where, node, one


@rule("SF507", "warning")
def retries_that_never_happen(view: View) -> Iterator[Found]:
    """Details of retries together with `max: 0`."""
    for where, _, retry in _retries(view):
        most = retry.get("max")
        others = [key for key in retry.members if key not in ("max", "on")]
        if most is not None and most.value == 0 and others:
            yield Found(
                f"{where}retry: with max: 0 there are no retries, so `{others[0]}` has no effect",
                retry.key_place(others[0]),
                "raise `max`, or take the other keys out",
            )


@rule("SF508", "warning")
def first_delay_above_the_longest(view: View) -> Iterator[Found]:
    """A backoff that begins above its maximum."""
    for where, _, retry in _retries(view):
        backoff = retry.get("backoff")
        if backoff is None or not isinstance(backoff.value, dict):
            continue
        first, longest = duration_ms(backoff.get("initial")), duration_ms(backoff.get("max"))
        if first is not None and longest is not None and first > longest:
            yield Found(
                f"{where}retry.backoff: initial ({format_duration(first)}) is above max "
                f"({format_duration(longest)}), which is then every delay",
                backoff.members["initial"].place,
                "lower `initial`",
            )


@rule("SF509", "warning")
def budget_below_the_first_delay(view: View) -> Iterator[Found]:
    """A retry budget that the first delay passes."""
    for where, _, retry in _retries(view):
        budget = duration_ms(retry.get("budget"))
        delays = _delays(retry, 1)
        if budget and delays is not None and delays > budget:
            yield Found(
                f"{where}retry.budget: {format_duration(budget)} is over before the first retry, after "
                f"{format_duration(delays)}",
                retry.members["budget"].place,
                "raise the budget",
            )


def _delays(retry: Node, count: int) -> int | None:
    """The sum of the first `count` delays in ms, where the backoff is written out."""
    backoff = retry.get("backoff")
    if backoff is None or not isinstance(backoff.value, dict):
        return None
    initial = duration_ms(backoff.get("initial"))
    kind = backoff.text("kind") or "exponential"
    factor_node, longest = backoff.get("factor"), duration_ms(backoff.get("max"))
    factor = factor_node.value if factor_node is not None else 2
    if initial is None or isinstance(factor, bool) or not isinstance(factor, (int, float)):
        return None
    longest = 300_000 if longest is None else longest
    total, delay = 0.0, float(initial)
    for _ in range(min(count, MOST_RETRIES)):
        total += min(delay, longest)
        if kind == "exponential":
            delay = min(delay * factor, longest + 1)
        elif kind == "linear":
            delay += initial * factor
    return round(total)


def _around(view: View, path: str) -> tuple[Step, Node, int] | None:
    """The shortest timeout of what holds the step at `path`.

    The time of a step is over for what follows it (a catch, a hook, a cleanup), and nothing stops a cleanup.
    """
    found: tuple[Step, Node, int] | None = None
    ended = view.ended_around(path)
    for step in view.above(path):
        if ended is not None and ended[0] == step.path:
            if ended[1] == "finally":
                return found
            ended = view.ended_around(step.path)
            continue
        limit = hard_timeout(step.node)
        if limit is not None and limit[1] > 0 and (found is None or limit[1] < found[2]):
            found = (step, *limit)
    return found


@rule("SF510", "warning")
def timeout_above_the_outer_one(view: View) -> Iterator[Found]:
    """A timeout that is longer than that of what holds the step."""
    for step in (*view.having("timeout"), *view.having("event"), *view.having("approval")):
        waits = step.body if step.kind in ("event", "approval") else None
        own = hard_timeout(waits or step.node) if step.path else None
        outer = _around(view, step.path) if own is not None else None
        if own is not None and outer is not None and own[1] > outer[2]:
            yield Found(
                f"timeout: {format_duration(own[1])} is never reached, as {kind_label(outer[0])} ends after "
                f"{format_duration(outer[2])}",
                own[0].place,
                "lower this one, or raise the outer one",
            )


@rule("SF511")
def waits_beyond_the_timeout(view: View) -> Iterator[Found]:
    """A wait that is longer than the time of what holds it."""
    for step in view.having("wait"):
        wait = step.body.get("for") if step.kind == "wait" and step.body is not None else None
        pause = duration_ms(wait)
        outer = _around(view, step.path) if pause else None
        if wait is not None and pause and outer is not None and pause >= outer[2]:
            yield Found(
                f"wait.for: {format_duration(pause)} is not over before the timeout of {kind_label(outer[0])}, "
                f"{format_duration(outer[2])}",
                wait.place,
                "raise the timeout",
            )


@rule("SF512", "warning")
def retries_beyond_the_timeout(view: View) -> Iterator[Found]:
    """Attempts and delays that together take longer than what holds the step may."""
    for step in view.having("retry"):
        retry = step.node.get("retry") if step.kind == "task" else None
        most = retry.get("max") if retry is not None else None
        own = hard_timeout(step.node)
        outer = _around(view, step.path) if most is not None else None
        if retry is None or most is None or outer is None or not isinstance(most.value, int) or most.value < 1:
            continue
        delays = _delays(retry, most.value) or 0
        worst = delays + (most.value + 1) * (own[1] if own is not None else 0)
        if worst > outer[2]:
            yield Found(
                f"retry: {most.value} retries take up to {format_duration(worst)}, and the timeout of "
                f"{kind_label(outer[0])} is {format_duration(outer[2])}",
                most.place,
                "lower `max` or the delays, or raise the timeout",
            )


@rule("SF513", "warning")
def fan_out_beyond_the_timeout(view: View) -> Iterator[Found]:
    """A map whose rate limit does not let all items start in time."""
    for step in view.having("map"):
        items = step.body.get("items") if step.kind == "map" and step.body is not None else None
        if step.body is None or items is None or not isinstance(items.value, list):
            continue
        do = step.body.get("do")
        rate = per_second(do.get("rate_limit")) if do is not None else None
        own = hard_timeout(step.node)
        outer = _around(view, step.path)
        limits = [one for one in (own and own[1], outer and outer[2]) if one]
        if rate and limits and do is not None and len(items.value) / rate * 1000 > min(limits) + 1000:
            needed = format_duration(round(len(items.value) / rate * 1000))
            yield Found(
                f"rate_limit: {len(items.value)} items need {needed} at this rate, and the timeout is "
                f"{format_duration(min(limits))}",
                do.members["rate_limit"].place,
                "raise the timeout or the rate",
            )


@rule("SF514", "warning")
def window_wider_than_the_items(view: View) -> Iterator[Found]:
    """A map's `concurrency` that is not below the number of its items."""
    for step in view.having("map"):
        if step.kind != "map" or step.body is None:
            continue
        items, window = step.body.get("items"), step.body.get("concurrency")
        if items is None or window is None or not isinstance(items.value, list) or not isinstance(window.value, int):
            continue
        if "batch" not in step.body.members and 0 < len(items.value) < window.value:
            yield Found(f"map.concurrency: there are only {len(items.value)} items", window.place, "take the key out")


@rule("SF515", "warning")
def key_of_one_run(view: View) -> Iterator[Found]:
    """A key that no other run has, so that nothing is limited across runs."""
    by_node = {id(read.node): read for read in view.reads}
    for path, key in (("concurrency", "key"), ("unique", "key")):
        node = view.root.get(path)
        inner = None if node is None or not isinstance(node.value, dict) else node.get(key)
        read = None if inner is None else by_node.get(id(inner))
        if inner is not None and read is not None and any(one.path[:2] == ("run", "id") for one in read.references):
            yield Found(
                f"{path}.key: it holds run.id, so no two runs have the same key and nothing is limited",
                inner.place,
                "make the key of inputs",
            )


@rule("SF523")
def completions_that_cannot_be_meant(view: View) -> Iterator[Found]:
    """`race`, `quorum` and `tolerate` together, a race with a policy, or a quorum of more members than there are."""
    found = {step.path: step for key in ("race", "quorum", "tolerate") for step in view.having(key)}
    for step in found.values():
        given = [key for key in ("race", "quorum", "tolerate") if step.node.get(key) is not None]
        if len(given) > 1:
            text = f"expected one of race, quorum and tolerate, got {' and '.join(given)}"
            yield Found(text, step.node.keys[given[1]], "keep one")
        race, policy, quorum = (step.node.get(key) for key in ("race", "on_member_error", "quorum"))
        if race is not None and race.value is True and policy is not None:
            yield Found(
                "on_member_error has no effect on a race, whose output is that of one member",
                step.node.keys["on_member_error"],
                "take it out",
            )
        size = len(view.children.get(step.path, ()))
        if step.kind == "group" and quorum is not None and quorum.value > size:
            yield Found(f"quorum: expected at most {size}, the number of members, got {quorum.value}", quorum.place)


@rule("SF521", "warning")
def window_above_the_limit(view: View) -> Iterator[Found]:
    """A map that lets more run at a time than the concurrency limit of its step."""
    for step in view.having("map"):
        if step.kind != "map" or step.body is None:
            continue
        window, do = step.body.get("concurrency"), step.body.get("do")
        limited = do.get("concurrency") if do is not None else None
        limit, key = (None, None) if limited is None else (limited.get("limit"), limited.text("key"))
        if window is None or key is None or "${{" in key or not isinstance(window.value, int):
            continue
        most = 1 if limit is None else limit.value
        if isinstance(most, int) and window.value > most:
            yield Found(
                f"map.concurrency: {window.value} at a time, but the concurrency key `{key}` lets {most} run",
                window.place,
                f"write {most}",
            )
