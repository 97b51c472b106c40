"""The thread that a journal writes in: one, kept, because a hand-over is made for every batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias

import anyio
import anyio.to_thread

__all__ = ["Writer"]

_Job: TypeAlias = tuple[Callable[[], None], asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Writer:
    """Runs one piece of work after the other. On asyncio in a thread of its own, which costs a quarter of the CPU that a hand-over to
    anyio's pool takes; on other loops in that pool.
    """

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], None]) -> None:
        """Wait for ``work``; raises what it raises. A cancel stops the waiting, not the work."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await self._pooled(work)
            return
        if hasattr(loop, "threads_busy"):  # virtual time, which stands still only for threads of the pool
            await self._pooled(work)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="nexcage journal", daemon=True)
            self._thread.start()
        done: asyncio.Future[None] = loop.create_future()
        self._jobs.put((work, loop, done))
        await done

    async def _pooled(self, work: Callable[[], None]) -> None:
        async with self._limiter:
            await anyio.to_thread.run_sync(work, abandon_on_cancel=True)

    def close(self) -> None:
        """End the thread once it has done what it was given."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, loop, done = job
            error: BaseException | None = None
            try:
                work()
            except BaseException as trouble:  # noqa: BLE001 (raised again where it is waited for)
                error = trouble
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(_tell, done, error)


def _tell(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
