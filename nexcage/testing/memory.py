"""The way in without a network: a transport over a simulated node in this process, for virtual time and thousands of nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import anyio
from msgspec import structs

from nexcage._core.command import Command, Result
from nexcage._transports.running import GRACE, PATIENCE, Output, Running, running
from nexcage._transports.wire import checked
from nexcage.errors import Fenced, HostKeyRejected, NexcageError, NodeNotUsable, NodeTimeout, NodeUnreachable
from nexcage.testing import claims, faults
from nexcage.testing.calls import Call, spawn
from nexcage.tools.claims import unclaimed

if TYPE_CHECKING:
    from nexcage.testing.cluster import SimNode

__all__ = ["MemoryTransport"]

_ROUNDS = 4
"""Round trips of a login."""
_KILLING = 5.0
_DRAIN = 2.0
_SLACK = 5.0
"""Seconds after a node should have ended a claimed command by itself."""


class MemoryTransport:
    """Runs commands on a simulated node as over SSH: connects when first used, loses its link, times out, refuses host keys.

    ``keepalive``: seconds without an answer after which the link is given up. ``runner``: as over a runner, claims are kept and
    fences minded by the node; without, commands with a claim come as scripts (`nexcage.tools.claims.claimed`).
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
        runner: bool = True,
    ) -> None:
        self.claims: bool = runner
        self.fencing: bool = runner
        self.mode: str = "runner" if runner else "exec: no runner was asked for"
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
        if command.claim is not None:
            return await self._run_claimed(command)
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

    async def _run_claimed(self, command: Command[Any]) -> Result:
        if not self.claims:
            raise ValueError(
                "a command with a claim for a node without a runner: wrap it by nexcage.tools.claims.claimed"
            )
        link = await self._opened(command)
        if faults.state_of(self._node.model).get("faults") and self._lost_on_the_way(command):
            link.cut()
            return Result(None, lost="link")
        process = _Claimed(self._node, link, command, self._patience)
        process.begin()
        bounded = structs.replace(command, timeout=(command.timeout or claims.DAY) + self._patience + _SLACK)
        async with running(process, bounded, _DRAIN) as stream:
            result = await stream.wait()
        if process.answer is None:
            return result
        return structs.replace(unclaimed(Result(0, process.answer), self._node.name), seconds=result.seconds)

    def _lost_on_the_way(self, command: Command[Any]) -> bool:
        with self._node.step():
            return faults.taken(self._node.model, command.argv, {"drop-before"}) is not None

    async def _opened(self, command: Command[Any]) -> _Link:
        """A link that the command can be sent over now."""
        checked(command.argv, command.env)
        link = await self._linked()
        if self._rtt:
            await anyio.sleep(self._rtt)
        await self._passable(link)
        if faults.state_of(self._node.model).get("faults"):
            with self._node.step():
                lost = faults.taken(self._node.model, command.argv, {"drop-open"})
            if lost is not None:
                link.cut()
                raise NodeUnreachable(self._node.name, "the link was lost before the command was sent")
        return link

    @asynccontextmanager
    async def _started(self, command: Command[Any], *, eof: bool) -> AsyncIterator[Running]:
        link = await self._opened(command)
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
    """A connection: open until it is cut; held while the node is partitioned; mute when only what is sent to the node arrives."""

    def __init__(self, node: SimNode, keepalive: float) -> None:
        self.open: bool = True
        self.held: bool = False
        self.muted: bool = False
        self.processes: dict[_Process | _Claimed, None] = {}
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

    @property
    def silent(self) -> bool:
        """Whether nothing comes from the node, at least for now."""
        return self.held or self.muted

    def hold(self) -> None:
        self.held = True
        self._tell()
        spawn(self._give_up)

    def mute(self) -> None:
        if not self.muted:
            self.muted = True
            spawn(self._give_up)

    def release(self) -> None:
        self.held = False
        self._tell()

    async def _give_up(self) -> None:
        with anyio.move_on_after(self._keepalive):
            while self.silent and self.open:
                await self.news()
        if self.silent:
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
        self._call.ctx.eof = False
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
            if self._link.silent:
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
        elif not self._link.silent:
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
        self._call.ctx.feed(data)

    async def write_eof(self) -> None:
        self._call.ctx.end_input()

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


class _Claimed:
    """A command under its claim, as its caller sees it: the node keeps the answer whatever becomes of the link."""

    def __init__(self, node: SimNode, link: _Link, command: Command[Any], patience: float) -> None:
        self.output: Output = Output(0)
        self.exit: int | None = None
        self.signalled: bool = False
        self.ended: bool = False
        self.answer: bytes | None = None
        """What the node reports of the claim, once that has arrived."""
        self._node = node
        self._link = link
        self._command = command
        self._patience = patience
        self._asked: claims.Asked | None = None
        self._refused: NexcageError | bytes | None = None
        self._news = anyio.Event()

    @property
    def done(self) -> bool:
        return self.ended

    @property
    def error(self) -> NexcageError | None:
        return self._refused if isinstance(self._refused, NexcageError) else None

    def begin(self) -> None:
        self._link.processes[self] = None
        claim = self._command.claim
        assert claim is not None
        started = claims.start(self._node, self._command, link=self._link, when_ended=self.notice)
        self._asked = started.asked
        match started.kind:
            case "fenced":
                self._refused = Fenced(claim.fleet, started.seen[0])
            case "unusable":
                self._refused = NodeNotUsable(self._node.name, "claims cannot be kept there: /run cannot be written")
            case "rebooted":
                self._refused = b"@nexcage claim rebooted\n"
            case "void":
                self._refused = b"@nexcage claim void - 0 0 0 0 0 0 0 0 0 0\n"
            case _:
                pass
        self.notice()

    def notice(self) -> None:
        """There is an answer, or something has become of the link."""
        if self.ended:
            return
        if not self._link.open:
            self._finish(None)
        elif not self._link.silent and (self._asked is None or self._asked.ended):
            self._finish(self._refused if isinstance(self._refused, bytes) else self._report())
        news, self._news = self._news, anyio.Event()
        news.set()

    def _report(self) -> bytes | None:
        return None if self._asked is None else self._asked.report()

    def _finish(self, answer: bytes | None) -> None:
        self.ended = True
        self.answer = answer
        if answer is None and not self._link.open:
            self._refused = None  # nobody was told
        self._link.processes.pop(self, None)
        if self._asked is not None:
            self._asked.leave()

    async def progress(self) -> None:
        await self._news.wait()

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None: ...

    def roomy(self) -> None: ...

    def cut(self) -> None: ...

    async def end(self, cancel: Literal["kill", "term"]) -> None:
        if self._link.held:
            with anyio.move_on_after(_KILLING):
                while self._link.held and self._link.open:
                    await self.progress()
        if self._link.open and not self._link.held and self._asked is not None:
            self._asked.end()
            with anyio.move_on_after(2 * GRACE if cancel == "kill" else self._patience):
                while not self.ended:
                    await self.progress()
        if not self.ended:
            self._finish(None)

    async def close(self) -> None:
        self._link.processes.pop(self, None)
