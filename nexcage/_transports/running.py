"""A running command, whatever carries it: reading its output within bounds, its deadline, its end."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol, TypeAlias

import anyio

from nexcage._core.command import Command, Result
from nexcage._transports.caps import HeadTail
from nexcage.errors import NexcageError

__all__ = ["GRACE", "PATIENCE", "Kind", "Output", "Process", "Running", "running"]

Kind: TypeAlias = Literal["stdout", "stderr"]

GRACE = 1.0
"""Seconds between TERM and KILL in class ``kill``."""
PATIENCE = 90.0
"""Seconds that a command of class ``term`` has for its own clean-up before it is left to itself."""
ROOM = 256 * 1024
"""Bytes that wait for a reader of a stream before the command has to wait."""


class Output:
    """What a command prints: queued for whoever iterates, or kept within the cap once somebody waits for the end."""

    def __init__(self, cap: int) -> None:
        self._kept: dict[Kind, HeadTail] = {"stdout": HeadTail(cap), "stderr": HeadTail(cap)}
        self._queue: deque[tuple[Kind, bytes]] | None = deque()
        self._queued = 0

    def put(self, kind: Kind, data: bytes) -> None:
        if self._queue is None:
            self._kept[kind].add(data)
        elif data:
            self._queue.append((kind, data))
            self._queued += len(data)

    def take(self) -> tuple[Kind, bytes] | None:
        """The next piece for a reader, if there is one."""
        if not self._queue:
            return None
        item = self._queue.popleft()
        self._queued -= len(item[1])
        return item

    def collect(self) -> None:
        """From now on keep everything within the cap; never full again."""
        while (item := self.take()) is not None:
            self._kept[item[0]].add(item[1])
        self._queue = None

    @property
    def collecting(self) -> bool:
        return self._queue is None

    @property
    def queued(self) -> int:
        """Bytes that wait for a reader."""
        return self._queued

    @property
    def full(self) -> bool:
        """Whether the command should wait until somebody takes what is here."""
        return self._queued >= ROOM

    @property
    def dropped(self) -> int:
        return sum(kept.dropped for kept in self._kept.values())

    def kept(self, kind: Kind) -> bytes:
        return bytes(self._kept[kind])


class Process(Protocol):
    """What a transport has to offer for `running`. Nothing here raises because of what the command or the link does."""

    output: Output

    @property
    def exit(self) -> int | None:
        """Its exit status; 128 + the signal's number when a signal ended it; None when nobody knows."""
        ...

    @property
    def signalled(self) -> bool:
        """Whether a signal ended it."""
        ...

    @property
    def ended(self) -> bool:
        """Its exit status is known, or will never be."""
        ...

    @property
    def done(self) -> bool:
        """Ended, and its output was read to the end (or nobody waits for the rest any more)."""
        ...

    @property
    def error(self) -> NexcageError | None:
        """Why it surely did not begin, if so."""
        ...

    async def progress(self) -> None:
        """Wait until something has changed: output, the end, room for input."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None: ...

    def roomy(self) -> None:
        """Go on reading if the output has room again."""
        ...

    def cut(self) -> None:
        """Wait no longer for output (someone the command started holds the pipe): it is done."""
        ...

    async def end(self, cancel: Literal["kill", "term"]) -> None:
        """End it by its class, with a deadline of its own; afterwards it is done. Runs shielded."""
        ...

    async def close(self) -> None:
        """Let go of pipes and channels. Runs shielded."""
        ...


class Running:
    """The `Stream` over a process."""

    def __init__(self, process: Process, command: Command[Any], drain: float) -> None:
        self._process = process
        self._command = command
        self._began = anyio.current_time()
        self._deadline = float("inf") if command.timeout is None else self._began + command.timeout
        self._drain = drain
        self._drain_left = 5 * drain
        self._late = False

    def __aiter__(self) -> Running:
        return self

    async def __anext__(self) -> tuple[Kind, bytes]:
        while (item := self._process.output.take()) is None:
            if self._process.done:
                if self._process.error is not None:
                    raise self._process.error
                raise StopAsyncIteration
            await self._step()
        self._process.roomy()
        return item

    async def send(self, data: bytes) -> None:
        await self._process.write(data)

    async def send_eof(self) -> None:
        await self._process.write_eof()

    async def wait(self) -> Result:
        self._process.output.collect()
        self._process.roomy()
        while not self._process.done:
            await self._step()
        if self._process.error is not None:
            raise self._process.error
        return self._result()

    async def stop(self) -> None:
        """End the command by its class if it still runs; nothing interrupts that."""
        if self._process.done:
            return
        with anyio.CancelScope(shield=True):
            self._process.output.collect()
            self._process.roomy()
            await self._process.end(self._command.cancel)

    async def _step(self) -> None:
        process = self._process
        if not process.ended:
            with anyio.CancelScope(deadline=self._deadline) as scope:
                await process.progress()
            if scope.cancelled_caught:
                self._late = True
                await self.stop()
            return
        # It has ended and its output has not: something that it started still holds the pipe. Wait as long as output comes,
        # but not for ever.
        before = anyio.current_time()
        with anyio.move_on_after(min(self._drain, self._drain_left)) as scope:
            await process.progress()
        self._drain_left -= anyio.current_time() - before
        if (scope.cancelled_caught or self._drain_left <= 0) and not process.done:
            process.cut()

    def _result(self) -> Result:
        exit, lost = self._process.exit, "" if self._process.exit is not None else "link"
        if self._late:
            lost = "deadline"
            # What the tool says after TERM is its answer; what a signal made of it is not.
            exit = exit if self._command.cancel == "term" and not self._process.signalled else None
        output = self._process.output
        seconds = anyio.current_time() - self._began
        return Result(exit, output.kept("stdout"), output.kept("stderr"), output.dropped, lost, seconds)


@asynccontextmanager
async def running(process: Process, command: Command[Any], drain: float) -> AsyncGenerator[Running]:
    """Hand out the stream; on leaving, end what still runs by its class and let go of everything."""
    stream = Running(process, command, drain)
    try:
        yield stream
    finally:
        try:
            await stream.stop()
        finally:
            with anyio.CancelScope(shield=True):
                await process.close()
