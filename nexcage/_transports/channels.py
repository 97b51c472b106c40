"""One exec channel per command: how a node without a runner is spoken to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Literal

import anyio

from nexcage._core.command import Command
from nexcage._transports.dial import SshSettings, plain, translate
from nexcage._transports.link import Link
from nexcage._transports.running import Running, running
from nexcage._transports.session import Session
from nexcage._transports.wire import ending, wrap
from nexcage.errors import NexcageError, NodeNotUsable, NodeTimeout

__all__ = ["Channels"]

KILLING = 10.0
"""Seconds that signalling a remote command may take, with a login of its own if need be."""


class Channels:
    """Runs commands of the node ``key``, each on a channel of its own.

    ``linked`` gives the link to use, made anew when the last one was lost; ``login`` makes one more.
    """

    def __init__(
        self,
        key: str,
        settings: SshSettings,
        random: Random,
        linked: Callable[[], Awaitable[Link]],
        login: Callable[[], Awaitable[Link]],
    ) -> None:
        self._key = key
        self._settings = settings
        self._random = random
        self._linked = linked
        self._login = login
        self._nonce = 0

    @asynccontextmanager
    async def started(
        self, command: Command[Any], *, eof: bool, reused: bool, answered: Callable[[], None]
    ) -> AsyncGenerator[Running]:
        """The running command. ``reused``: the link was there before, so it may be dead; ``answered`` is called when it is not."""
        link, session = await self._opened(command, eof=eof, reused=reused)
        try:
            async with running(session, command, self._settings.drain_timeout) as stream:
                yield stream
                if session.exit is not None:
                    answered()
                    link.grow()
        finally:
            if session.left and not session.closed:
                link.leave(session)
            link.served_at = anyio.current_time()
            link.slots.release_on_behalf_of(session)

    async def _opened(self, command: Command[Any], *, eof: bool, reused: bool) -> tuple[Link, Session]:
        """A session whose command is on its way, and the link it is on, holding one of the link's slots."""
        refused = 0
        began = anyio.current_time()
        while True:
            link = await self._linked()
            session = self._session(link, command, eof)
            line = wrap(command.argv, command.env, str(self._nonce), sudo=link.sudo)
            await link.slots.acquire_on_behalf_of(session)
            try:
                failure = await self._open(link, session, line, command)
            except BaseException:
                link.slots.release_on_behalf_of(session)
                raise
            if failure is None:
                return link, session
            others = link.refuse(session)
            if link.lost:
                # The link may have been dead for long without anybody noticing: one new connection is worth a try.
                if not reused:
                    raise translate(failure, self._key) from failure
                reused = False
            elif others:
                pass  # sshd allows fewer sessions than we thought: wait for one of ours to end
            elif anyio.current_time() >= max(began, link.served_at) + self._settings.open_timeout:
                advice = "look at MaxSessions in its sshd_config"
                raise NodeNotUsable(self._key, f"sshd refuses sessions ({plain(failure)}); {advice}") from failure
            else:  # it has not yet noticed that our last session is over
                refused += 1
                await anyio.sleep(self._random.uniform(0, min(1.0, 0.02 * 2**refused)))

    def _session(self, link: Link, command: Command[Any], eof: bool) -> Session:
        async def kill(pid: int, cancel: Literal["kill", "term"]) -> None:
            await self._kill(link, pid, cancel)

        self._nonce += 1
        session = Session(
            str(self._nonce), command.cap, command.stdin, eof=eof, kill=kill, patience=self._settings.patience
        )
        session.refused = self._refused
        return session

    def _refused(self, said: str, ended: bool) -> NexcageError:
        if ended:
            return NodeTimeout(self._key, f"its login shell did not come to the command in time: {plain(said)}")
        error = NodeNotUsable(self._key, f"it did not run the command: {plain(said)}")
        return error.noted("a login that is not root needs `sudo -n` without a password" if "sudo" in said else "")

    async def _open(self, link: Link, session: Session, line: bytes, command: Command[Any]) -> BaseException | None:
        """Open a channel and send the command; the failure if the server or the link said no before it was sent."""
        link.open(session, line)
        seconds = min(self._settings.open_timeout, float("inf") if command.timeout is None else command.timeout)
        try:
            with anyio.move_on_after(seconds):
                await session.opening_over.wait()
        except BaseException:
            session.unwanted = True
            if session.sent:  # in the very turn of the loop in which we were cancelled: it may have begun
                with anyio.CancelScope(shield=True):
                    await session.end(command.cancel)
                    await session.close()
            raise
        if not session.opening_over.is_set():
            session.unwanted = True
            raise NodeTimeout(self._key, f"it opened no channel within {seconds:g} seconds")
        return None if session.sent else session.failure

    async def _kill(self, link: Link, pid: int, cancel: Literal["kill", "term"]) -> None:
        """Signal a command by its pid: on a second channel, or by another login when the server has none left for us."""
        with anyio.move_on_after(KILLING):
            async with link.orders:
                if link.lost or await self._order(link, ending(pid, cancel, sudo=link.sudo)):
                    return
            try:
                other = await self._login()
            except NexcageError:
                return
            try:
                await self._order(other, ending(pid, cancel, sudo=other.sudo))
            finally:
                await other.close()

    async def _order(self, link: Link, line: bytes) -> bool:
        """Run a command whose output does not matter; whether the server took it."""
        session = Session("", 0)
        session.output.collect()
        link.open(session, line)
        try:
            await session.opening_over.wait()
            while not session.ended:
                await session.progress()
            return session.failure is None
        finally:
            session.unwanted = True
            await session.close()
