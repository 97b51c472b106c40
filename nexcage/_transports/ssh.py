"""Commands on another machine, over SSH, on one connection per node. Needs asyncio (asyncssh does)."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from random import Random
from typing import Any

import anyio

from nexcage._core.command import Command, Result
from nexcage._core.hosts import Host
from nexcage._transports.carrier import start_runner
from nexcage._transports.channels import Channels
from nexcage._transports.dial import Dialer, Logins, SshSettings, translate
from nexcage._transports.link import Link
from nexcage._transports.runner import Runner
from nexcage._transports.running import Running
from nexcage._transports.wire import checked
from nexcage.abc import Stream
from nexcage.errors import NexcageError, NodeNotUsable, NodeTimeout, NodeUnreachable
from nexcage.tools.claims import claimed, unclaimed

__all__ = ["Logins", "SshSettings", "SshTransport", "translate"]


class SshTransport:
    """Runs commands on ``host``. Connects when first used; connects again, not too often, when the link was lost.

    Raises NodeUnreachable, NodeTimeout, AuthRejected, HostKeyRejected or NodeNotUsable, and then no command was begun.
    """

    def __init__(
        self,
        host: Host,
        *,
        settings: SshSettings | None = None,
        logins: Logins | None = None,
        random: Random | None = None,
    ) -> None:
        self._host = host
        self._settings = settings or SshSettings()
        self._logins = logins or Logins()
        self._random = random or Random()
        self._link: Link | None = None
        self._connecting = anyio.Lock()
        self._attempts = 0
        self._failures = 0
        self._failure: NexcageError | None = None
        self._not_before = 0.0
        self._closed = False
        self._channels = Channels(host.key, self._settings, self._random, self._linked, self._login)

    @property
    def mode(self) -> str:
        """How commands travel: ``runner``, ``exec`` and why, or empty before that is known."""
        if self._settings.runner == "off":
            return "exec: the runner is switched off"
        if self._link is None:
            return ""
        return (
            "runner"
            if self._link.runner is not None
            else f"exec: {self._link.no_runner}"
            if self._link.no_runner
            else ""
        )

    @property
    def claims(self) -> bool:
        """Whether the node itself keeps the claims of commands, by its runner."""
        return self._link is not None and self._link.runner is not None

    @property
    def fencing(self) -> bool:
        """Whether the node refuses claims below the fence."""
        return self.claims

    async def run(self, command: Command[Any]) -> Result:
        """Run it to its end; a lost link is a Result without exit status."""
        link = self._link
        runner = None if link is None or link.lost else link.runner
        if runner is None:
            runner = await self._runner(command)
        if runner is not None:
            result = await runner.run(command)
            if result.exit is not None:
                self._failures = 0
            return result
        if command.claim is not None:  # the link before this one had a runner
            return unclaimed(await self.run(claimed(command)), self._host.key)
        async with self._started(command, eof=True) as stream:
            return await stream.wait()

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncGenerator[Stream]:
        """Run it and hand out what it prints; its standard input stays open until `Stream.send_eof`."""
        runner = await self._runner(command)
        if runner is not None:
            async with runner.stream(command) as stream:
                yield stream
        else:
            async with self._started(command, eof=False) as running:
                yield running

    async def aclose(self) -> None:
        """Close the connection; running commands get a Result without exit status."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            with anyio.CancelScope(shield=True):
                await link.close()

    @asynccontextmanager
    async def _started(self, command: Command[Any], *, eof: bool) -> AsyncGenerator[Running]:
        self._needs_asyncio()
        checked(command.argv, command.env)
        reused = self._link is not None
        async with self._channels.started(command, eof=eof, reused=reused, answered=self._answered) as stream:
            yield stream

    async def _runner(self, command: Command[Any]) -> Runner | None:
        """The runner of the link; None when commands go on channels of their own."""
        self._needs_asyncio()
        if self._settings.runner == "off":
            return None
        checked(command.argv, command.env)
        reused = self._link is not None
        timeout = float("inf") if command.timeout is None else command.timeout
        while True:
            link = await self._linked()
            try:
                known = await link.decided(self._start_runner, timeout)
            except NexcageError:
                # The link may have been dead for long without anybody noticing: one new connection is worth a try.
                if not (link.lost and reused):
                    raise
                reused = False
                continue
            if not known:
                raise NodeTimeout(self._host.key, f"no runner started within {timeout:g} seconds")
            if link.no_runner is not None and self._settings.runner == "always":
                raise copy.copy(link.no_runner)
            if link.runner is not None or link.no_runner is not None:
                return link.runner

    async def _start_runner(self, link: Link) -> Runner:
        return await start_runner(self._host.key, link, self._settings, self._random)

    def _answered(self) -> None:
        self._failures = 0

    def _needs_asyncio(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            advice = "run with anyio.run(..., backend='asyncio')"
            raise NodeNotUsable(self._host.key, f"SSH needs the asyncio event loop: {advice}") from None

    # The connection.

    async def _linked(self) -> Link:
        """The link, made if need be. Callers that wait for the same attempt share its failure."""
        if self._link is not None and not self._link.lost:
            return self._link
        seen = self._attempts
        async with self._connecting:
            if self._link is not None and not self._link.lost:
                return self._link
            if self._closed:
                raise NodeUnreachable(self._host.key, "its transport is closed")
            if self._attempts != seen and self._failure is not None:
                raise copy.copy(self._failure)
            await anyio.sleep(max(0.0, self._not_before - anyio.current_time()))
            self._failure = None
            try:
                self._link = await self._login()
            except NexcageError as error:
                self._failure = error
                raise
            finally:
                # Also after success: a server that drops each connection at once must not be logged in to in a tight loop.
                self._attempts += 1
                self._failures += 1
                most = min(self._settings.backoff_most, self._settings.backoff * 2.0 ** (self._failures - 1))
                self._not_before = anyio.current_time() + self._random.uniform(0, most)
            if self._closed:
                await self.aclose()
                raise NodeUnreachable(self._host.key, "its transport is closed")
            return self._link

    async def _login(self) -> Link:
        host, settings = self._host, self._settings
        if "asyncssh" not in sys.modules:  # importing it takes long enough to be felt by everything else on the loop
            await anyio.to_thread.run_sync(import_module, "asyncssh")
        link = Link(settings.max_channels)
        async with self._logins.slots:
            try:
                with anyio.fail_after(settings.connect_timeout):
                    link.conn = await Dialer(host, settings, link.note_lost).dial()
            except TimeoutError as error:
                raise NodeUnreachable(host.key, f"no connection within {settings.connect_timeout:g} seconds") from error
            except NexcageError:
                raise
            except Exception as error:
                raise translate(error, host.key) from error
        link.sudo = settings.sudo and link.conn.get_extra_info("username") != "root"
        return link
