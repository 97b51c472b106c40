"""The way in without a network: a transport over a simulated node in this process, for virtual time and thousands of nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import anyio

from nexcage._core.command import Command, Result
from nexcage._transports.running import GRACE, PATIENCE, Output, Running, running
from nexcage._transports.wire import checked
from nexcage.errors import HostKeyRejected, NexcageError, NodeNotUsable, NodeTimeout, NodeUnreachable
from nexcage.testing.calls import Call, spawn

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimNode

__all__ = ["MemoryTransport"]

_ROUNDS = 4
"""Round trips of a login."""
_KILLING = 5.0
_DRAIN = 2.0


class MemoryTransport:
    """Runs commands on a simulated node as over SSH: connects when first used, loses its link, times out, refuses host keys.

    ``keepalive``: seconds without an answer after which the link is given up.
    """

    def __init__(
        self,
        node: SimNode,
        *,
        rtt: float = 0.0,
        connect_timeout: float = 15.0,
        open_timeout: float = 15.0,
        keepalive: float = 45.0,
        patience: float = PATIENCE,
    ) -> None:
        self._node = node
        self._rtt = rtt
        self._connect_timeout = connect_timeout
        self._open_timeout = open_timeout
        self._keepalive = keepalive
        self._patience = patience
        self._known_key = node.host_key
        self._connecting = anyio.Lock()
        self._link: _Link | None = None
        self._closed = False

    async def run(self, command: Command[Any]) -> Result:
        """Run it to its end; a lost link is a Result without exit status."""
        async with self._started(command, eof=True) as stream:
            return await stream.wait()

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncIterator[Running]:
        """Run it and hand out what it prints."""
        async with self._started(command, eof=False) as stream:
            yield stream

    async def aclose(self) -> None:
        """Close the link; running commands lose their answer and go on."""
        self._closed = True
        if self._link is not None:
            self._link.cut()
            self._link = None

    @asynccontextmanager
    async def _started(self, command: Command[Any], *, eof: bool) -> AsyncIterator[Running]:
        checked(command.argv, command.env)
        link = await self._linked()
        if self._rtt:
            await anyio.sleep(self._rtt)
        await self._passable(link)
        process = _Process(self._node, link, command, self._patience)
        if eof:
            await process.write_eof()
        process.begin()
        async with running(process, command, _DRAIN) as stream:
            yield stream

    async def _linked(self) -> _Link:
        if self._closed:
            raise NodeNotUsable(self._node.name, "its transport is closed")
        if self._link is not None and self._link.open:
            return self._link
        async with self._connecting:
            if self._link is None or not self._link.open:
                self._link = await self._connect()
            return self._link

    async def _connect(self) -> _Link:
        node = self._node
        with anyio.move_on_after(self._connect_timeout) as scope:
            await node.healed()
            if self._rtt:
                await anyio.sleep(_ROUNDS * self._rtt)
        if scope.cancelled_caught:
            raise NodeUnreachable(node.name, f"no answer within {self._connect_timeout:g} seconds")
        if node.down:
            raise NodeUnreachable(node.name, "connection refused: no sshd listens there")
        if node.host_key != self._known_key:
            raise HostKeyRejected(
                node.name, f"the key of {node.name} has changed: now #{node.host_key}, known #{self._known_key}"
            )
        return _Link(node, self._keepalive)

    async def _passable(self, link: _Link) -> None:
        """The channel opens: wait out a partition, but not for ever."""
        if link.open and not link.held:
            return
        with anyio.move_on_after(self._open_timeout):
            while link.open and link.held:
                await link.news()
        if link.open and link.held:
            raise NodeTimeout(self._node.name, f"it opened no channel within {self._open_timeout:g} seconds")
        if not link.open:
            raise NodeUnreachable(self._node.name, "the link was lost before the command was sent")


class _Link:
    """A connection: open until it is cut; held while the node is partitioned."""

    def __init__(self, node: SimNode, keepalive: float) -> None:
        self.open: bool = True
        self.held: bool = False
        self.processes: dict[_Process, None] = {}
        self._node = node
        self._keepalive = keepalive
        self._news = anyio.Event()
        node.links[self] = None

    async def news(self) -> None:
        """Wait until it is held, released or cut."""
        await self._news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()
        for process in list(self.processes):
            process.notice()

    def cut(self) -> None:
        self._node.links.pop(self, None)
        if self.open:
            self.open = False
            self._tell()
            self.processes.clear()

    def hold(self) -> None:
        self.held = True
        self._tell()
        spawn(self._give_up)

    def release(self) -> None:
        self.held = False
        self._tell()

    async def _give_up(self) -> None:
        with anyio.move_on_after(self._keepalive):
            while self.held and self.open:
                await self.news()
        if self.held:
            self.cut()


class _Process:
    """A command on the node as its caller sees it: only what passes the link."""

    def __init__(self, node: SimNode, link: _Link, command: Command[Any], patience: float) -> None:
        self.output: Output = Output(command.cap)
        self.exit: int | None = None
        self.signalled: bool = False
        self.ended: bool = False
        self._link = link
        self._patience = patience
        self._news = anyio.Event()
        self._waiting: list[tuple[Literal["stdout", "stderr"], bytes]] = []
        self._call = Call(
            node,
            command.argv,
            env={"LC_ALL": "C", **command.env},
            stdin=command.stdin,
            out=self._printer("stdout"),
            err=self._printer("stderr"),
            link=link,
            when_ended=self.notice,
        )
        self._cut = False

    @property
    def done(self) -> bool:
        return self.ended

    @property
    def error(self) -> NexcageError | None:
        return None

    def begin(self) -> None:
        self._link.processes[self] = None
        self._call.begin()

    def _printer(self, kind: Literal["stdout", "stderr"]) -> Callable[[bytes], None]:
        def put(data: bytes) -> None:
            if self._cut or not self._link.open:
                return
            if self._link.held:
                self._waiting.append((kind, bytes(data)))
                return
            self.output.put(kind, bytes(data))
            if not self.output.collecting:
                self._tell()

        return put

    def notice(self) -> None:
        """The command has ended, or something has become of the link."""
        if self.ended:
            return
        if not self._link.open:
            self.ended = True
            self._call.reader_gone()
        elif not self._link.held:
            for kind, data in self._waiting:
                self.output.put(kind, data)
            self._waiting.clear()
            if self._call.exit is not None:
                self.exit = self._call.exit
                self.signalled = bool(self._call.signal)
                self.ended = True
                self._link.processes.pop(self, None)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def progress(self) -> None:
        await self._news.wait()

    async def write(self, data: bytes) -> None:
        self._call.ctx.stdin += data

    async def write_eof(self) -> None: ...

    def roomy(self) -> None: ...

    def cut(self) -> None:
        self._cut = True

    async def end(self, cancel: Literal["kill", "term"]) -> None:
        if self._link.held:
            with anyio.move_on_after(_KILLING):
                while self._link.held and self._link.open:
                    await self.progress()
        if self._link.open and not self._link.held:
            self._call.interrupt()
            await self._until_ended(GRACE if cancel == "kill" else self._patience)
            if cancel == "kill" and not self.ended:
                self._call.drop()
                await self._until_ended(GRACE)
        self.ended = self._cut = True

    async def _until_ended(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while not self.ended:
                await self.progress()

    async def close(self) -> None:
        self._link.processes.pop(self, None)
