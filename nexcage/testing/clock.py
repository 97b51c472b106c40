"""Virtual time: a clock that jumps to the next timer when nothing can happen before it.

Under it thousands of seconds pass in milliseconds, and on asyncio the same program takes the same steps in the same order on
every run: tasks are numbered, and those that are cancelled together wake in the order of their numbers (anyio cancels the tasks
of a scope in the order of their addresses). On trio it is trio's own ``MockClock``, and trio shuffles tasks on purpose. It suits
everything in memory. Real sockets, pipes and child processes live in real time; a jump while one of them is open is a
:class:`VirtualTimeError` and not a riddle.

Tasks may belong to a program (:data:`PROGRAM`, inherited by the tasks that they start), and a program can be stopped for a while
as SIGSTOP does: `VirtualLoop.stop_program`.

    virtual_run(main)                                          # or, spelled out:
    anyio.run(main, backend="asyncio", backend_options={"loop_factory": VirtualLoop})
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread

__all__ = ["PROGRAM", "VirtualLoop", "VirtualTimeError", "backend", "busy", "is_virtual", "virtual_run", "watch"]

T = TypeVar("T")

PROGRAM: ContextVar[str] = ContextVar("nexcage_program", default="")
"""Which of several simulated programs on one loop the running task belongs to; empty for none."""

_STUCK = 5.0  # real seconds without a timer, a thread or an event before a run is called stuck


class VirtualTimeError(RuntimeError):
    """The program does something that virtual time cannot follow; the message says what."""


class _Task(asyncio.Task[Any]):  # Any: whatever its coroutine returns
    """A task with a number, which is its place among others wherever asyncio or anyio keep tasks in a set."""

    __slots__ = ("number",)

    def __init__(self, number: int, coro: Any, **options: Any) -> None:  # Any: as asyncio hands them over
        self.number: int = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class _Due:
    """A timer of a program: what it calls waits while that program is stopped."""

    __slots__ = ("args", "callback", "handle", "loop")
    handle: asyncio.TimerHandle

    def __init__(self, loop: VirtualLoop, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.loop = loop
        self.callback = callback
        self.args = args

    def __call__(self) -> None:
        if not self.loop.parked(self.handle):
            self.callback(*self.args)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time begins at 0 and passes only while everybody waits."""

    _ready: deque[asyncio.Handle]  # asyncio's own: what runs next, in order
    _clock_resolution: float  # asyncio's own: how much earlier than its time a timer may run

    def __init__(self) -> None:
        self._virtual_now: float = 0.0
        self._held: int = 0
        self._limiters: list[anyio.CapacityLimiter] = []
        self._tasks: int = 0
        self._stopped: dict[str, list[asyncio.Handle]] = {}
        super().__init__(_Selector(self))
        self.set_task_factory(_numbered)

    def time(self) -> float:
        return self._virtual_now

    def pass_time(self, seconds: float) -> None:
        """Let ``seconds`` go by."""
        self._virtual_now += seconds
        # After some months a nanosecond is less than what a double can tell, and asyncio would take no timer for due.
        self._clock_resolution = max(self._clock_resolution, 2 * math.ulp(self._virtual_now))

    def call_soon(  # type: ignore[override]  # typeshed ties args to callback, which nothing here depends on
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        if args and isinstance(args[0], asyncio.Future) and _woken(handle) is not None:
            self._in_order(handle)
        if self._stopped and self.parked(handle):
            self._ready.remove(handle)
        return handle

    def _in_order(self, handle: asyncio.Handle) -> None:
        """Put a task that is woken by a cancellation among those before it by its number."""
        number, place = _woken(handle), len(self._ready) - 1
        assert number is not None
        while place and ((before := _woken(self._ready[place - 1])) is not None and before > number):
            place -= 1
        if place < len(self._ready) - 1:
            self._ready.pop()
            self._ready.insert(place, handle)

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if when == math.inf:  # asyncio would wake up for it once a day, for ever
            return asyncio.TimerHandle(when, callback, args, self, context)
        if not (context.get(PROGRAM, "") if context is not None else PROGRAM.get()):
            return super().call_at(when, callback, *args, context=context)
        due = _Due(self, callback, args)
        due.handle = super().call_at(when, due, context=context)
        return due.handle

    def stop_program(self, name: str) -> None:
        """Nothing of the program ``name`` runs any more until `continue_program`; time passes and its timers fall due."""
        if name in self._stopped:
            return
        held = self._stopped[name] = [handle for handle in self._ready if _program(handle) == name]
        for handle in held:
            self._ready.remove(handle)

    def continue_program(self, name: str) -> None:
        """It goes on where it was stopped."""
        self._ready.extend(handle for handle in self._stopped.pop(name, ()) if not handle.cancelled())

    def parked(self, handle: asyncio.Handle) -> bool:
        """Whether ``handle`` belongs to a stopped program; it is then run when that goes on."""
        held = self._stopped.get(_program(handle))
        if held is None:
            return False
        held.append(handle)
        return True

    def threads_busy(self) -> bool:
        """Whether some worker thread may still change what happens next, so that the clock must not jump over it."""
        if self._held or any(limiter.borrowed_tokens for limiter in self._limiters):
            return True
        try:
            return anyio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
        except Exception:  # noqa: BLE001 - the loop is closing, or nobody uses anyio on it
            return False


def _numbered(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> _Task:  # Any: as asyncio hands it over
    assert isinstance(loop, VirtualLoop)
    loop._tasks += 1
    return _Task(loop._tasks, coro, loop=loop, **options)


def _woken(handle: asyncio.Handle) -> int | None:
    """The number of the task that ``handle`` wakes because what it waited for was cancelled; None for everything else."""
    task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]  # asyncio's own
    if not isinstance(task, _Task) or not handle._args:
        return None
    waited = handle._args[0]
    return task.number if isinstance(waited, asyncio.Future) and waited.cancelled() else None


def _program(handle: asyncio.Handle) -> str:
    context = cast("Context", handle._context)  # type: ignore[attr-defined]  # asyncio's own
    return context.get(PROGRAM, "")


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
        self._loop.pass_time(timeout)
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
