"""An open connection to a node: how commands travel on it, its slots for channels, and the attempts to open one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from nexcage.errors import NexcageError, NodeNotUsable

if TYPE_CHECKING:
    import asyncssh

    from nexcage._transports.runner import Runner
    from nexcage._transports.session import Session

__all__ = ["Link"]

REGROWTH = 30.0
"""Seconds after a refused session until one more is tried than was granted then."""


class _Opening(Protocol):
    def opened(self, task: asyncio.Task[object]) -> None: ...


class Link:
    """An open connection, its runner if one can run there, its slots for channels, and the attempts to open one."""

    conn: asyncssh.SSHClientConnection

    def __init__(self, channels: int) -> None:
        self.sudo = False
        self.lost = False
        self.runner: Runner | None = None
        self.no_runner: NexcageError | None = None
        """Why none can run on this connection, once that is known."""
        self.slots = anyio.CapacityLimiter(channels)
        self.served_at = float("-inf")
        """When a session of it that the server had opened was over."""
        self.orders = anyio.Semaphore(2)  # channels to end commands, besides those that carry them
        self._most = channels
        self._left = 0
        self._refused_at = float("-inf")
        self._opening: set[asyncio.Task[object]] = set()
        self._numbers = count(1)
        self._starting: asyncio.Task[None] | None = None

    def note_lost(self) -> None:
        self.lost = True

    def drop(self) -> None:
        """It is of no use any more."""
        self.lost = True
        self.conn.abort()

    def nonce(self) -> str:
        """A word that no other command line of this connection has."""
        return str(next(self._numbers))

    async def decided(self, start: Callable[[Link], Awaitable[Runner]], timeout: float) -> bool:
        """Whether `runner` or `no_runner` is known now: all who wait share one start, which goes on without them.

        Raises what the start raises otherwise (the link was lost, no channel opened); the next one who asks tries again.
        """
        if self.runner is None and self.no_runner is None:
            if self._starting is None:
                self._starting = asyncio.get_running_loop().create_task(self._start(start))
            starting = self._starting
            with anyio.move_on_after(timeout):
                await asyncio.wait({starting})
            if not starting.done():
                return False
            if self._starting is starting:
                self._starting = None
            if not starting.cancelled() and (error := starting.exception()) is not None:
                raise copy.copy(error) if isinstance(error, NexcageError) else error
        return True

    async def _start(self, start: Callable[[Link], Awaitable[Runner]]) -> None:
        try:
            self.runner = await start(self)
        except NodeNotUsable as error:
            self.no_runner = error

    def refuse(self, session: Session) -> int:
        """Give back the slot of a refused session, and allow no more than the others that there are; returns their number."""
        others = int(self.slots.borrowed_tokens) - 1
        # Before the slot is free, or whoever waits for one would be refused at once, and so on in a circle.
        self.slots.total_tokens = max(1, others)
        self._refused_at = anyio.current_time()
        self.slots.release_on_behalf_of(session)
        return others

    def grow(self) -> None:
        """Allow one more session now and then: the refusal may have been somebody else's doing."""
        if self.slots.total_tokens < self._most - self._left and anyio.current_time() - self._refused_at > REGROWTH:
            self.slots.total_tokens += 1
            self._refused_at = anyio.current_time()

    def leave(self, session: Session) -> None:
        """Allow one less while a command that was left to itself keeps its session; the last one stays, or looks would wait
        for what may never end.
        """

        def closed() -> None:
            self._left -= 1
            if self.slots.total_tokens < self._most - self._left:
                self.slots.total_tokens += 1

        self._left += 1
        self.slots.total_tokens = max(1, min(self.slots.total_tokens, self._most - self._left))
        session.when_closed = closed

    def open(self, session: _Opening, line: bytes) -> None:
        """Begin to open a channel. What comes of it is told to the session, also when its caller is gone by then."""
        conn: Any = self.conn  # Any: asyncssh wants its own session base class and text; it only calls the methods
        create: Coroutine[Any, Any, object] = conn.create_session(
            lambda: session,
            line,  # bytes are sent as they are; text would have to be UTF-8
            env={},
            send_env=[],
            request_pty=False,
            x11_forwarding=False,
            encoding=None,
        )
        task: asyncio.Task[object] = asyncio.ensure_future(create)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        task.add_done_callback(session.opened)

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if self.runner is not None:
            self.runner.close("its transport is closed")
        self.conn.close()
        with anyio.move_on_after(2.0):
            await self.conn.wait_closed()
            return
        self.conn.abort()
