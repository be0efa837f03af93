"""What every test may use."""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import settings

from stemflow.testing import vloop

T = TypeVar("T")

settings.register_profile("stemflow", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("stemflow")


class VirtualRun(Protocol):
    """Runs an async function of no arguments on the virtual loop and returns its result."""

    def __call__(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        seed: int = 0,
        horizon_s: float = 3_600.0,
        shuffle: bool = True,
    ) -> T: ...


@pytest.fixture
def vrun() -> VirtualRun:
    """Run an async function in virtual time; `asyncio.get_running_loop()` is the VirtualLoop."""

    def run(
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        seed: int = 0,
        horizon_s: float = 3_600.0,
        shuffle: bool = True,
    ) -> T:
        result, _ = vloop.run(lambda _: main(), seed, horizon_s, shuffle=shuffle)
        return result

    return run
