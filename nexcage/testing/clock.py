"""Virtual time: a clock that jumps to the next timer when nothing can happen before it.

Under it thousands of seconds pass in milliseconds, and on asyncio the same program takes the same steps in the same order on
every run (only anyio's order of cancelling the tasks of one group is left to chance). On trio it is trio's own ``MockClock``,
and trio shuffles tasks on purpose. It suits everything in memory. Real sockets, pipes and child processes live
in real time; a jump while one of them is open is a :class:`VirtualTimeError` and not a riddle.

    virtual_run(main)                                          # or, spelled out:
    anyio.run(main, backend="asyncio", backend_options={"loop_factory": VirtualLoop})
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar

import anyio
import anyio.to_thread

__all__ = ["VirtualLoop", "VirtualTimeError", "backend", "busy", "is_virtual", "virtual_run", "watch"]

T = TypeVar("T")

_STUCK = 5.0  # real seconds without a timer, a thread or an event before a run is called stuck


class VirtualTimeError(RuntimeError):
    """The program does something that virtual time cannot follow; the message says what."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time begins at 0 and passes only while everybody waits."""

    def __init__(self) -> None:
        self._virtual_now: float = 0.0
        self._held: int = 0
        self._limiters: list[anyio.CapacityLimiter] = []
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._virtual_now

    def call_at(  # type: ignore[override]  # typeshed ties args to callback, which nothing here depends on
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if when == math.inf:  # asyncio would wake up for it once a day, for ever
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def threads_busy(self) -> bool:
        """Whether some worker thread may still change what happens next, so that the clock must not jump over it."""
        if self._held or any(limiter.borrowed_tokens for limiter in self._limiters):
            return True
        try:
            return anyio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
        except Exception:  # noqa: BLE001 - the loop is closing, or nobody uses anyio on it
            return False


class _Selector(selectors.DefaultSelector):
    """Asks the real selector without waiting; where asyncio would have waited for a timer, lets the time pass at once."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turn = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turn += 1
        # Alone with the loop's own pipe, only a signal can be waiting: asking for it now and then saves most of the system calls.
        ready = super().select(0) if len(self.get_map()) > 1 or self._turn % 32 == 0 else []
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop.threads_busy():
            return super().select()  # the thread's answer comes through the loop's own pipe
        if timeout is None:
            return self._last_wait()
        if len(self.get_map()) > 1:  # one is the loop's own pipe
            raise VirtualTimeError(
                "real sockets, pipes or child processes are open under virtual time; "
                "use the real clock for them (@pytest.mark.sim(real_time=True))"
            )
        self._loop._virtual_now += timeout
        return []

    def _last_wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(_STUCK)
        if not ready:
            raise VirtualTimeError("every task waits and no timer will ever wake one: the program is stuck")
        return ready


@contextmanager
def busy() -> Generator[None, None, None]:
    """Keep the clock from jumping while the block runs: something outside the loop is at work and will call back."""
    loop = _loop()
    if loop is None:
        yield
        return
    loop._held += 1
    try:
        yield
    finally:
        loop._held -= 1


def watch(limiter: anyio.CapacityLimiter) -> None:
    """Keep the clock from jumping while threads of this limiter are at work (anyio's default limiter is watched anyway)."""
    loop = _loop()
    if loop is not None:
        loop._limiters.append(limiter)


def _loop() -> VirtualLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, VirtualLoop) else None


def is_virtual() -> bool:
    """Whether the running event loop is under virtual time."""
    if _loop() is not None:
        return True
    import sys

    trio = sys.modules.get("trio")  # not running under trio when nobody has imported it
    if trio is None or not trio.lowlevel.in_trio_run():
        return False
    from trio.testing import MockClock

    return isinstance(trio.lowlevel.current_clock(), MockClock)


def backend(name: str = "asyncio") -> tuple[str, dict[str, Any]]:
    """An ``anyio_backend`` (or the arguments of `anyio.run`) that runs ``asyncio`` or ``trio`` under virtual time."""
    if name == "trio":
        from trio.testing import MockClock

        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualLoop}


def virtual_run(main: Callable[..., Awaitable[T]], *args: Any, backend_name: str = "asyncio") -> T:
    """`anyio.run` under virtual time."""
    name, options = backend(backend_name)
    return anyio.run(main, *args, backend=name, backend_options=options)
