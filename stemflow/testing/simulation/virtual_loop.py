"""A seeded event loop with virtual time: the same seed gives the same run, step for step.

Waiting takes no real time: when no task can run, time jumps to the next timer. Tasks that can run at the same instant
run in an order chosen by the seed, while plain callbacks keep the order of `call_soon`, which asyncio promises and
transports rely on. Threads become steps of the loop, and real input and output is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import random
import selectors
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context
from functools import partial
from typing import Any, NoReturn, TypeVar, TypeVarTuple, cast

from stemflow.errors import StemflowError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_MS = 1_700_000_000_000
"""The wall clock's reading at virtual time zero, in milliseconds since the Unix epoch."""

_TICKS = 1_000_000  # time is counted in whole microseconds, so that a day of additions does not drift
_STEPS_WITHOUT_TIME = 1_000_000
_CLEAN_UP_S = 3_600.0


class SimulationStuck(StemflowError):
    """The loop cannot continue; the message lists the tasks and where each one waits."""


class Deadlock(SimulationStuck):
    """Nothing can run and no timer is set: every task waits for another."""


class OutOfTime(SimulationStuck):
    """The next timer is beyond the horizon of the run."""


class Livelock(SimulationStuck):
    """Tasks keep running and time does not pass."""


class RealInputOutput(StemflowError, RuntimeError):
    """A simulated program reached for a socket, a subprocess, a signal or another thread."""


class _Timer(asyncio.TimerHandle):
    """A timer with an order among timers with the same deadline."""

    __slots__ = ("tie",)
    _when: float
    tie: float

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        mine, theirs = self._when, cast(_Timer, other)._when
        return mine < theirs or (mine == theirs and self.tie < cast(_Timer, other).tie)


class _Jump(selectors.BaseSelector):
    """Replaces the selector: instead of waiting, it advances the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.pass_time(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> NoReturn:
        raise RealInputOutput("virtual loop: expected no file to wait for, got one; use an in-memory substitute")

    def unregister(self, fileobj: Any) -> NoReturn:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual and whose order is drawn from `rng`; `shuffle=False` keeps FIFO."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int = 0, *, horizon_s: float | None = None, shuffle: bool = True) -> None:
        self.rng = random.Random(seed)
        self.shuffle = shuffle
        self.horizon_s = horizon_s
        self._next_event_ms: Callable[[], int | None] | None = None
        """Gives the instant, in virtual ms, before which nothing but periodic timers happens; None: it is not known."""
        self._ticks = 0
        self._idle_steps = 0
        self._made = 0
        self._trace = hashlib.sha256()
        self._home = threading.get_ident()
        super().__init__(selector=_Jump(self))
        self._clock_resolution = 1 / _TICKS

    # -- time

    def time(self) -> float:
        """Return the virtual time in seconds since the loop was made."""
        return self._ticks / _TICKS

    def elapsed_ms(self) -> int:
        """Return the virtual time in whole milliseconds since the loop was made."""
        return self._ticks * 1_000 // _TICKS

    def pass_time(self, timeout_s: float | None) -> None:
        """Jump to the next timer. Raises Deadlock if there is none, OutOfTime if it is beyond the horizon."""
        if timeout_s is None:
            raise Deadlock(self._story("every task waits and no timer is set"))
        ticks = round(timeout_s * _TICKS)
        if ticks <= 0:
            self._idle_steps += 1
            if self._idle_steps > _STEPS_WITHOUT_TIME:
                raise Livelock(self._story(f"{_STEPS_WITHOUT_TIME} steps and time has not passed"))
            return
        self._idle_steps = 0
        ticks = max(ticks, self._ticks_until_event())
        if self.horizon_s is not None and self._ticks + ticks > self.horizon_s * _TICKS:
            raise OutOfTime(self._story(f"nothing more happens before the horizon of {self.horizon_s:g} s"))
        self._ticks += ticks

    def _ticks_until_event(self) -> int:
        at_ms = None if self._next_event_ms is None else self._next_event_ms()
        return 0 if at_ms is None else at_ms * _TICKS // 1_000 - self._ticks

    def _story(self, what: str) -> str:
        waiting = [_where(task) for task in asyncio.all_tasks(self)]
        return "\n  ".join([f"virtual loop at {self.time():.6f} s: {what}; tasks:", *sorted(waiting)])

    # -- order

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer for a virtual time in seconds; equal deadlines come in seeded order."""
        self._check_closed()  # type: ignore[attr-defined]
        timer = _Timer(when, callback, args, self, context)
        self._made += 1
        timer.tie = self.rng.random() if self.shuffle else self._made
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def create_task(  # type: ignore[override]
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """Make a task; a nameless one is named by this loop, since asyncio's counter is the process's."""
        self._made += 1
        lane = name or f"{getattr(coro, '__qualname__', 'task')}-{self._made}"
        return super().create_task(coro, name=lane, **options)

    def _run_once(self) -> None:
        lanes = [(place, task) for place, handle in enumerate(self._ready) if (task := _lane(handle))]
        if self.shuffle and len(lanes) > 1:
            ready = list(self._ready)
            places = [place for place, _ in lanes]
            self.rng.shuffle(lanes)
            for place, (origin, _) in zip(places, lanes, strict=True):
                self._ready[place] = ready[origin]
        self.observe(",".join(task.get_name() for _, task in lanes))
        super()._run_once()  # type: ignore[misc]

    # -- trace

    def jump_to(self, next_event_ms: Callable[[], int | None] | None) -> None:
        """Ask `next_event_ms` for the instant to jump to, whenever nothing in the loop can run; None: jump no more."""
        self._next_event_ms = next_event_ms

    def observe(self, text: str) -> None:
        """Record something that the run did: two runs with one seed must observe the same at the same times."""
        self._trace.update(b"%d %s\n" % (self._ticks, text.encode("utf-8", "backslashreplace")))

    def digest(self) -> str:
        """Return what identifies all steps and observations so far."""
        return self._trace.hexdigest()[:16]

    # -- threads

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run the function inline, at a later virtual time; its answer arrives later still.

        A future that is cancelled in between has run and its answer is dropped, as with a thread.
        """
        future: asyncio.Future[T] = self.create_future()

        def start() -> None:
            if future.cancelled():
                return
            events._set_running_loop(None)  # a thread has no running loop
            try:
                deliver = partial(_deliver, future.set_result, func(*args))
            except BaseException as error:
                deliver = partial(_deliver, future.set_exception, error)
            finally:
                events._set_running_loop(self)
            self.call_later(self._thread_delay_s(), deliver, future)

        self.call_later(self._thread_delay_s(), start)
        return future

    def _thread_delay_s(self) -> float:
        return self.rng.uniform(0.0001, 0.005) if self.shuffle else 0.001

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call soon; a call from another thread is refused, because no seed could order it."""
        if threading.get_ident() != self._home:
            raise RealInputOutput("virtual loop: expected one thread, got a call from another; use run_in_executor")
        return self.call_soon(callback, *args, context=context)

    # -- the outside

    def _make_self_pipe(self) -> None:
        self._internal_fds = 0

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise RealInputOutput(f"virtual loop: expected no real input or output, got loop.{name}()")

    return refuse


for _name in (
    "add_reader", "add_signal_handler", "add_writer", "connect_accepted_socket", "connect_read_pipe",
    "connect_write_pipe", "create_connection", "create_datagram_endpoint", "create_server",
    "create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo", "sendfile", "sock_accept",
    "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_sendall", "sock_sendfile",
    "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell",
):  # fmt: skip
    setattr(VirtualLoop, _name, _refuse(_name))


def _deliver(settle: Callable[[Any], None], outcome: object, future: asyncio.Future[Any]) -> None:
    if not future.done():
        settle(outcome)


def _lane(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """Return the task whose step this is, or None for a plain callback."""
    callback = getattr(handle, "_callback", None)
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task) and getattr(callback, "__name__", "") != "cancel":
        return owner
    return None


def _where(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    place = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "not started"
    return f"{task.get_name()} waits at {place}"


class VirtualClock:
    """A clock over the loop's time; `skew_ms` is how far this machine's wall clock is off."""

    def __init__(self, loop: VirtualLoop, skew_ms: int = 0) -> None:
        self._loop = loop
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        """Return the virtual wall clock in milliseconds since the Unix epoch."""
        return EPOCH_MS + self._loop.elapsed_ms() + self.skew_ms

    def monotonic_ms(self) -> int:
        """Return the milliseconds of virtual time; no skew touches it."""
        return self._loop.elapsed_ms()


class SeededIds:
    """An IdSource that gives the same ids for the same seed, each later than the one before."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._at_ms = EPOCH_MS

    def run_id(self) -> str:
        """Return the next UUIDv7 as 32 lower-case hex characters."""
        self._at_ms += 1
        return f"{self._at_ms:012x}7{self._rng.getrandbits(12):03x}{0b10 << 62 | self._rng.getrandbits(62):016x}"


def run(
    main: Callable[[VirtualLoop], Coroutine[Any, Any, T]],
    seed: int = 0,
    horizon_s: float = 3_600.0,
    *,
    shuffle: bool = True,
) -> tuple[T, str]:
    """Run `main(loop)` to its end and return its result and the digest of the trace.

    Raises what `main` raises, and SimulationStuck; a note on the error names seed and virtual time.
    """
    loop = VirtualLoop(seed, horizon_s=horizon_s, shuffle=shuffle)
    try:
        result = loop.run_until_complete(main(loop))
        return result, loop.digest()
    except BaseException as error:
        error.add_note(f"virtual loop: seed {seed}, {loop.time():.6f} s, digest {loop.digest()}")
        raise
    finally:
        _clean_up(loop)


def _clean_up(loop: VirtualLoop) -> None:
    """Cancel what is left, give it an hour of virtual time to end, and close the loop."""
    loop.horizon_s = loop.time() + _CLEAN_UP_S
    left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    for task in left:
        task.cancel()
    try:
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except SimulationStuck:
        pass  # a task that refuses to be cancelled; the run's own outcome tells more
    finally:
        loop.close()
