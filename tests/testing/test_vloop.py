"""The virtual loop: one seed, one run."""

import asyncio
import random
import threading

import pytest

from stemflow.testing.simulation.virtual_loop import (
    EPOCH_MS,
    Deadlock,
    OutOfTime,
    RealInputOutput,
    SeededIds,
    VirtualClock,
    VirtualLoop,
    run,
)


async def _race(loop: VirtualLoop) -> str:
    order: list[str] = []

    async def runner(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            order.append(name)

    await asyncio.gather(*(runner(name) for name in "abcd"))
    await asyncio.to_thread(order.append, "thread")
    loop.observe("".join(order))
    return "".join(order)


def test_the_same_seed_gives_the_same_order_and_the_same_digest() -> None:
    for seed in range(20):
        assert run(_race, seed) == run(_race, seed)


def test_different_seeds_reach_different_orders() -> None:
    outcomes = {run(_race, seed) for seed in range(20)}

    assert len({order for order, _ in outcomes}) > 10
    assert len({digest for _, digest in outcomes}) == 20


def test_two_tasks_are_seen_in_both_orders() -> None:
    async def main(loop: VirtualLoop) -> tuple[str, ...]:
        order: list[str] = []

        async def runner(name: str) -> None:
            order.append(name)

        await asyncio.gather(runner("a"), runner("b"))
        return tuple(order)

    assert {run(main, seed)[0] for seed in range(20)} == {("a", "b"), ("b", "a")}


def test_without_shuffle_tasks_run_in_the_order_in_which_they_were_made() -> None:
    assert {run(_race, seed, shuffle=False)[0] for seed in range(5)} == {"abcd" * 3 + "thread"}


def test_an_observation_is_part_of_the_digest() -> None:
    def saying(text: str) -> str:
        async def main(loop: VirtualLoop) -> None:
            loop.observe(text)

        return run(main)[1]

    assert saying("one") == saying("one") != saying("two")


def test_a_day_of_heartbeats_passes_at_once() -> None:
    async def main(loop: VirtualLoop) -> int:
        beats = 0
        while loop.time() < 86_400:
            await asyncio.sleep(10)
            beats += 1
        return loop.elapsed_ms()

    assert run(main, horizon_s=2 * 86_400)[0] == 86_400_000


def test_time_is_exact_to_the_millisecond() -> None:
    async def main(loop: VirtualLoop) -> int:
        for delay_ms in (1, 7, 33, 1_001) * 500:
            before = loop.elapsed_ms()
            await asyncio.sleep(delay_ms / 1_000)
            assert loop.elapsed_ms() - before == delay_ms
        return loop.elapsed_ms()

    assert run(main)[0] == (1 + 7 + 33 + 1_001) * 500


@pytest.mark.parametrize("seed", range(5))
def test_plain_callbacks_keep_the_order_of_call_soon(seed: int) -> None:
    async def main(loop: VirtualLoop) -> list[int]:
        seen: list[int] = []
        sleepers = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(5)]
        for number in range(50):
            loop.call_soon(seen.append, number)
        await asyncio.gather(*sleepers)
        await asyncio.sleep(1)
        return seen

    assert run(main, seed)[0] == list(range(50))


def test_timers_with_one_deadline_come_in_seeded_order() -> None:
    async def main(loop: VirtualLoop) -> tuple[int, ...]:
        seen: list[int] = []
        for number in range(5):
            loop.call_at(1.0, seen.append, number)
        await asyncio.sleep(2)
        return tuple(seen)

    assert run(main, 3)[0] == run(main, 3)[0]
    assert len({run(main, seed)[0] for seed in range(20)}) > 5
    assert run(main, 3, shuffle=False)[0] == (0, 1, 2, 3, 4)


def test_a_deadlock_is_reported_with_the_tasks_that_wait() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main(loop: VirtualLoop) -> None:
        await asyncio.create_task(waits_for_ever(), name="the-waiter")

    with pytest.raises(Deadlock, match=r"the-waiter waits at .*test_vloop\.py") as caught:
        run(main, 7)

    assert "seed 7" in caught.value.__notes__[0]


def test_a_run_that_passes_its_horizon_ends_with_an_error() -> None:
    async def main(loop: VirtualLoop) -> None:
        await asyncio.sleep(61)

    with pytest.raises(OutOfTime, match="horizon of 60 s"):
        run(main, horizon_s=60)


def test_a_function_for_a_thread_runs_later_and_its_error_comes_back() -> None:
    async def main(loop: VirtualLoop) -> tuple[int, bool]:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        same = await asyncio.to_thread(threading.get_ident) == threading.get_ident()
        return loop.elapsed_ms(), same

    (elapsed_ms, same), _ = run(main, shuffle=False)
    assert (elapsed_ms, same) == (4, True)


def test_real_input_and_output_is_refused() -> None:
    async def main(loop: VirtualLoop) -> None:
        with pytest.raises(RealInputOutput, match="create_connection"):
            await asyncio.open_connection("localhost", 1)
        with pytest.raises(RealInputOutput, match="subprocess_exec"):
            await asyncio.create_subprocess_exec("true")

    run(main)


def test_a_call_from_another_thread_is_refused() -> None:
    async def main(loop: VirtualLoop) -> None:
        caught: list[BaseException] = []

        def intrude() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except RealInputOutput as error:
                caught.append(error)

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        assert len(caught) == 1

    run(main)


def test_tasks_left_behind_are_cancelled_when_the_run_ends() -> None:
    ended: list[str] = []

    async def lingers() -> None:
        try:
            await asyncio.sleep(3_000)
        finally:
            ended.append("cancelled")

    async def main(loop: VirtualLoop) -> None:
        task = asyncio.create_task(lingers())
        await asyncio.sleep(1)
        assert not task.done()

    run(main)
    assert ended == ["cancelled"]


def test_a_skewed_clock_is_wrong_about_the_date_and_right_about_durations() -> None:
    async def main(loop: VirtualLoop) -> None:
        clock = VirtualClock(loop, skew_ms=-5_000)
        await asyncio.sleep(2.5)
        assert (clock.now_ms(), clock.monotonic_ms()) == (EPOCH_MS - 2_500, 2_500)

    run(main)


def test_seeded_ids_are_ordered_unique_version_7_and_the_same_for_a_seed() -> None:
    first, second = SeededIds(random.Random(1)), SeededIds(random.Random(1))
    ids = [first.run_id() for _ in range(100)]

    assert ids == [second.run_id() for _ in range(100)]
    assert ids == sorted(set(ids))
    assert {(len(id_), id_[12], id_[16] in "89ab") for id_ in ids} == {(32, "7", True)}


def test_the_fixture_runs_an_async_function_in_virtual_time(vrun) -> None:  # type: ignore[no-untyped-def]
    async def main() -> float:
        await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    assert vrun(main) == 100
