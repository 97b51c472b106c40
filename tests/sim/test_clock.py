"""Virtual time passes at once, in order, and never over the work of a thread."""

from __future__ import annotations

import socket
import time

import anyio
import anyio.to_thread
import pytest

from nexcage.testing.clock import VirtualTimeError, busy, is_virtual, virtual_run, watch

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
