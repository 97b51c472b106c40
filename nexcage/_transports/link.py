"""An open connection to a node: its slots for channels, and the attempts to open one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    import asyncssh

    from nexcage._transports.session import Session

__all__ = ["Link"]

REGROWTH = 30.0
"""Seconds after a refused session until one more is tried than was granted then."""


class Link:
    """An open connection, its slots for channels, and the attempts to open one."""

    conn: asyncssh.SSHClientConnection

    def __init__(self, channels: int) -> None:
        self.sudo = False
        self.lost = False
        self.slots = anyio.CapacityLimiter(channels)
        self.orders = anyio.Semaphore(2)  # channels to end commands, besides those that carry them
        self._most = channels
        self._left = 0
        self._refused_at = float("-inf")
        self._opening: set[asyncio.Task[object]] = set()

    def note_lost(self) -> None:
        self.lost = True

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

    def open(self, session: Session, line: bytes) -> None:
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
        self.conn.close()
        with anyio.move_on_after(2.0):
            await self.conn.wait_closed()
            return
        self.conn.abort()
