"""Virtual time passes at once, in order, and never over the work of a thread."""

from __future__ import annotations

import asyncio
import socket
import time

import anyio
import anyio.to_thread
import pytest

from nexcage.testing.clock import PROGRAM, VirtualLoop, VirtualTimeError, busy, is_virtual, virtual_run, watch

BACKENDS = ("asyncio", "trio")


@pytest.mark.parametrize("name", BACKENDS)
def test_days_pass_in_no_time(name: str) -> None:
    async def main() -> float:
        assert is_virtual()
        await anyio.sleep(10 * 86400)
        return anyio.current_time()

    before = time.process_time()
    assert virtual_run(main, backend_name=name) == pytest.approx(864000)
    assert time.process_time() - before < 5  # of CPU: nobody waited for ten days


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("years", [1, 100])
def test_a_clock_that_has_run_for_years_still_wakes_those_who_wait(name: str, years: int) -> None:
    async def main() -> float:
        await anyio.sleep(years * 365.25 * 86400)
        start = anyio.current_time()
        for _ in range(1000):
            await anyio.sleep(0.1)
        return anyio.current_time() - start

    assert virtual_run(main, backend_name=name) == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize("name", BACKENDS)
def test_timers_fire_in_order(name: str) -> None:
    async def main() -> list[float]:
        fired: list[float] = []

        async def at(seconds: float) -> None:
            await anyio.sleep(seconds)
            fired.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            for seconds in (3.0, 1.0, 2.5, 0.1):
                tasks.start_soon(at, seconds)
        return fired

    assert virtual_run(main, backend_name=name) == pytest.approx([0.1, 1.0, 2.5, 3.0])


@pytest.mark.parametrize("name", BACKENDS)
def test_deadlines_are_met_exactly(name: str) -> None:
    async def main() -> float:
        with anyio.move_on_after(30):
            await anyio.sleep(1000)
        return anyio.current_time()

    assert virtual_run(main, backend_name=name) == pytest.approx(30)


def test_the_clock_does_not_jump_over_a_worker_thread() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        gate = anyio.Event()

        async def timer() -> None:
            await anyio.sleep(1)
            order.append("timer")

        def work() -> None:
            anyio.from_thread.run_sync(gate.set)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(timer)
            await anyio.to_thread.run_sync(work)
            order.append("thread")
        return order

    assert virtual_run(main) == ["thread", "timer"]


def test_other_limiters_hold_the_clock_when_they_are_watched() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        limiter = anyio.CapacityLimiter(1)
        watch(limiter)

        async def timer() -> None:
            await anyio.sleep(1)
            order.append("timer")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(timer)
            await anyio.to_thread.run_sync(lambda: sum(range(200_000)), limiter=limiter)
            order.append("thread")
        return order

    assert virtual_run(main) == ["thread", "timer"]


def test_busy_holds_the_clock() -> None:
    async def main() -> float:
        import asyncio
        import threading

        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(called.set))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 50)
            with busy():
                thread.start()
                await called.wait()
                seen = anyio.current_time()
        thread.join()
        return seen

    assert virtual_run(main) == 0


def test_real_sockets_are_refused_with_a_reason() -> None:
    async def main() -> None:
        import asyncio

        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            with anyio.fail_after(1):
                await asyncio.get_running_loop().sock_recv(left, 1)

    with pytest.raises(VirtualTimeError, match="real sockets"):
        virtual_run(main)


def test_a_program_that_waits_for_nothing_is_called_stuck() -> None:
    async def main() -> None:
        await anyio.sleep_forever()

    with pytest.raises(VirtualTimeError, match="stuck"):
        virtual_run(main)


def test_the_same_program_takes_the_same_steps() -> None:
    async def main() -> list[tuple[float, int]]:
        steps: list[tuple[float, int]] = []

        async def walk(n: int) -> None:
            for pause in (n % 7, n % 3, n % 5):
                await anyio.sleep(pause)
                steps.append((anyio.current_time(), n))

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(walk, n)
        return steps

    assert virtual_run(main) == virtual_run(main)


def test_tasks_that_are_cancelled_together_wake_in_the_order_they_were_made() -> None:
    async def main() -> list[int]:
        woken: list[int] = []

        async def wait(number: int) -> None:
            try:
                with anyio.CancelScope():  # a scope of its own, for anyio keeps those in a set too
                    await anyio.sleep_forever()
            finally:
                woken.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(wait, number)
            await anyio.sleep(1)
            ballast = [object() for _ in range(1000)]  # addresses are not what decides
            tasks.cancel_scope.cancel()
            del ballast
        return woken

    for _ in range(3):
        assert virtual_run(main) == list(range(50))


def test_a_stopped_program_does_nothing_while_time_passes_and_then_goes_on() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        seen: list[tuple[str, float]] = []
        bell = anyio.Event()

        async def ticking(name: str) -> None:
            PROGRAM.set(name)
            for _ in range(4):
                await anyio.sleep(1)
                seen.append((name, anyio.current_time()))

        async def woken() -> None:
            PROGRAM.set("b")
            await bell.wait()
            seen.append(("bell", anyio.current_time()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ticking, "a")
            tasks.start_soon(ticking, "b")
            tasks.start_soon(woken)
            await anyio.sleep(1.5)
            loop.stop_program("b")
            bell.set()
            await anyio.sleep(10)
            loop.continue_program("b")
        return seen

    seen = virtual_run(main)
    assert [entry for entry in seen if entry[0] == "a"] == [("a", 1), ("a", 2), ("a", 3), ("a", 4)]
    assert [entry for entry in seen if entry[0] != "a"] == [
        ("b", 1),
        ("bell", 11.5),
        ("b", 11.5),
        ("b", 12.5),
        ("b", 13.5),
    ]


def test_a_timer_that_is_taken_back_while_its_program_is_stopped_does_not_fire() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        fired: list[str] = []
        PROGRAM.set("a")
        timer = loop.call_later(1, fired.append, "taken back")
        loop.call_later(1, fired.append, "kept")
        PROGRAM.set("")
        loop.stop_program("a")
        await anyio.sleep(5)
        timer.cancel()
        assert fired == []
        loop.continue_program("a")
        await anyio.sleep(1)
        return fired

    assert virtual_run(main) == ["kept"]
