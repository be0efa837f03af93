"""Tasks that fail, a retry strategy that says what it decides, and a listener for every signal of their attempts."""

from __future__ import annotations

from stemflow import Reject, TaskContext, TaskEvent, TaskRegistry

registry = TaskRegistry(max_retries=4)
_due_at_ms: dict[str, int] = {}
"""When the next attempt of a task is due, by the id of the task."""


def say(text: str) -> None:
    """A line of the worker."""
    print(f"worker    {text}\n", end="", flush=True)  # one write: the producer prints, too


class ProviderBusy(ConnectionError):
    """The provider asks to come again in `after` seconds, or does not answer (None)."""

    def __init__(self, after: float | None = None) -> None:
        super().__init__("no answer" if after is None else f"come again in {after} s")
        self.after = after


class AskedOrDoubled:
    """A strategy: as long as the provider asks for, else 0.1 s, 0.2 s, 0.4 s and so on."""

    def next_delay(self, attempt: int, error: BaseException) -> float | None:
        delay = getattr(error, "after", None) or 0.1 * 2**attempt
        say(f"strategy  attempt {attempt} failed with {type(error).__name__}: the next one after {delay:.1f} s")
        return delay


@registry.task("charge", retry_strategy=AskedOrDoubled())
async def charge(context: TaskContext) -> str:
    """Succeeds at the fourth attempt; the delays double."""
    if context.attempt < 3:
        raise ProviderBusy
    return f"charged at attempt {context.attempt}"


@registry.task("refund", retry_strategy=AskedOrDoubled(), visibility_timeout="1s")
async def refund(context: TaskContext) -> str:
    """The provider asks for a delay that is longer than the lease of the task, which a waiting task does not have."""
    if context.attempt == 0:
        raise ProviderBusy(after=2.0)
    return "refunded"


@registry.task("settle", retry_strategy=AskedOrDoubled(), max_retries=1)
async def settle() -> None:
    """Never succeeds: after one retry it fails for good."""
    raise ProviderBusy


@registry.task("close", retry_strategy=AskedOrDoubled())
async def close() -> None:
    """Fails for good at once, and asks no strategy."""
    raise Reject("the account is closed")


@registry.signals.prerun.connect
def starts(event: TaskEvent) -> None:
    due_at_ms = _due_at_ms.pop(event.id, None)
    late = "" if due_at_ms is None else f", {event.at_ms - due_at_ms} ms after it was due in the store"
    say(f"prerun    {event.task} attempt {event.attempt}{late}")


@registry.signals.retry.connect
def retries(event: TaskEvent) -> None:
    assert event.next_at_ms is not None
    assert event.error is not None
    _due_at_ms[event.id] = event.next_at_ms
    say(
        f"retry     {event.task} attempt {event.attempt} is stored, due in {event.next_at_ms - event.at_ms} ms: "
        f"{event.error.type}: {event.error.message}"
    )


@registry.signals.succeeded.connect
def succeeds(event: TaskEvent) -> None:
    say(f"succeeded {event.task} at attempt {event.attempt}")


@registry.signals.failed.connect
def fails(event: TaskEvent) -> None:
    assert event.error is not None
    say(f"failed    {event.task} at attempt {event.attempt}: {event.error.type}: {event.error.message}")
