"""What the hot paths need of the event loop, without the price of anyio's detour: on asyncio these are the loop's own."""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["Once", "loop_time"]


def loop_time() -> float:
    """Seconds on the loop's clock, as `anyio.current_time` tells them."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return anyio.current_time()


class Once:
    """Something that happens once, and that one task at a time waits for. A quarter of the price of an `anyio.Event`."""

    __slots__ = ("_event", "_future", "_happened")

    def __init__(self) -> None:
        self._happened = False
        self._future: asyncio.Future[None] | None = None
        self._event: anyio.Event | None = None

    def set(self) -> None:
        """It has happened. In the loop's own thread only."""
        self._happened = True
        if self._future is not None:
            if not self._future.done():
                self._future.set_result(None)
        elif self._event is not None:
            self._event.set()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._happened

    async def wait(self) -> None:
        """Until it has happened; no checkpoint when it has already. Cancelled, it may be waited for again."""
        if self._happened:
            return
        try:
            self._future = asyncio.get_running_loop().create_future()
        except RuntimeError:
            self._event = anyio.Event()
            await self._event.wait()
        else:
            await self._future
