"""One command on one SSH channel, as asyncssh's callbacks tell it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, Protocol

import anyio

from nexcage._transports.running import GRACE, PATIENCE, Output
from nexcage._transports.wire import Frame
from nexcage.errors import NexcageError

__all__ = ["Channel", "Session"]


class Channel(Protocol):
    """The part of asyncssh's client channel that is used here."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def send_signal(self, signal: str) -> None: ...
    def close(self) -> None: ...


class Session:
    """A command behind a channel: the client session that asyncssh calls, and the `Process` that `running` drives.

    Callbacks rather than asyncssh's streams: those buffer without limit unless someone reads, and cost several times the CPU.
    ``kill`` signals the remote pid by its class; it may fail, never raise.
    """

    def __init__(
        self,
        nonce: str,
        cap: int,
        stdin: bytes = b"",
        *,
        eof: bool = True,
        kill: Callable[[int, Literal["kill", "term"]], Awaitable[None]] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.output = Output(cap)
        self.signalled = False
        self.opening_over = asyncio.Event()
        """Set when the channel is open and the command is on its way, or when there is a `failure` instead."""
        self.sent = False
        """The command is on its way: from here on it may have begun."""
        self.failure: BaseException | None = None
        """Why the channel did not open, or why the server did not take the command."""
        self.unwanted = False
        """Nobody waits for the channel any more: close it as soon as it opens, before the command is sent."""
        self.refused: Callable[[str, bool], NexcageError] | None = None
        """Makes the error for a command that surely did not begin: what the login shell said, and whether we ended it."""
        self.left = False
        """The command was left to its own clean-up, with its channel open."""
        self.when_closed: Callable[[], None] | None = None
        self._frames = {"stdout": Frame(nonce), "stderr": Frame(nonce)}
        self._stdin, self._eof, self._kill, self._patience = stdin, eof, kill, patience
        self._channel: Channel | None = None
        self._news = asyncio.Event()
        self._writable = True
        self._started = False
        self._status: int | None = None
        self._closed = self._cut = self._broken = self._seen_eof = self._declined = self._ending = False

    # What asyncssh calls.

    def connection_made(self, chan: Channel) -> None:
        if self.unwanted:
            chan.close()
            raise ConnectionAbortedError("nobody waits for this channel any more")
        self._channel = chan
        self.sent = True
        self.opening_over.set()

    def session_started(self) -> None:
        assert self._channel is not None
        self._started = True
        self._news.set()
        with suppress(OSError):  # it may have ended without reading: its own affair
            if self._stdin:
                self._channel.write(self._stdin)
            if self._eof:
                self._channel.write_eof()
        self._stdin = b""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        kind: Literal["stdout", "stderr"] = "stdout" if datatype is None else "stderr"
        frame = self._frames[kind]
        if not frame.begun:
            data = frame.feed(data)
            self._news.set()
        self.output.put(kind, data)
        if not self.output.collecting:
            self._news.set()
            if self.output.full and self._channel is not None:
                self._channel.pause_reading()
        elif self._status is not None:
            self._news.set()

    def eof_received(self) -> bool:
        self._seen_eof = True
        return True

    def exit_status_received(self, status: int) -> None:
        self._status = status
        self._news.set()

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: ARG002 - its signature
        self.signalled = True
        number = getattr(signal, f"SIG{name}", 0)
        self._status = 128 + (number if isinstance(number, int) else 0)
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._broken = exc is not None and not self._seen_eof
        self._channel = None
        self._news.set()
        if self.when_closed is not None:
            self.when_closed()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._news.set()

    def xon_xoff_requested(self, client_can_do: bool) -> None: ...

    def opened(self, task: asyncio.Task[object]) -> None:
        """The end of the attempt to open the channel and to hand over the command."""
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if failure is not None:
            self.failure = failure
            # The channel still being there means that the server answered "no"; otherwise nobody knows whether it began.
            self._declined = self.sent and not self._closed
            self._closed = True
            self.opening_over.set()
            self._news.set()

    # What `running` asks.

    @property
    def pid(self) -> int:
        """The command's pid on the node, 0 as long as it is not known."""
        return self._frames["stdout"].pid

    @property
    def exit(self) -> int | None:
        """The exit status, unless the link broke off the output that belongs to it."""
        return None if self._broken else self._status

    @property
    def ended(self) -> bool:
        return self._status is not None or self._closed or self._cut

    @property
    def closed(self) -> bool:
        """Whether the channel is gone, so that the server has a session free."""
        return self._closed

    @property
    def done(self) -> bool:
        return self._closed or self._cut

    @property
    def error(self) -> NexcageError | None:
        if self._frames["stdout"].begun or not (self._declined or self.exit is not None) or self.refused is None:
            return None
        said = self._frames["stderr"].before.strip() or self._frames["stdout"].before.strip()
        words = said.decode("utf-8", "replace") or str(self.failure or f"exit status {self.exit}, no message")
        return self.refused(words, self._ending)

    async def progress(self) -> None:
        self._news.clear()
        await self._news.wait()

    def roomy(self) -> None:
        if self._channel is not None and not self.output.full:
            self._channel.resume_reading()

    async def write(self, data: bytes) -> None:
        while not self._started and not self.ended:  # what came with the command goes first
            await self.progress()
        if self._channel is not None:
            with suppress(OSError):
                self._channel.write(data)
        while not self._writable and not self.ended:
            await self.progress()

    async def write_eof(self) -> None:
        while not self._started and not self.ended:
            await self.progress()
        if self._channel is not None:
            with suppress(OSError):
                self._channel.write_eof()

    def cut(self) -> None:
        self._cut = True

    async def end(self, cancel: Literal["kill", "term"]) -> None:
        self._ending = True
        if cancel == "term":
            await self._end_kindly()
            return
        await self._until(lambda: self.done or bool(self.pid), 2 * GRACE)
        if self.pid and self._kill is not None:
            await self._kill(self.pid, cancel)
            await self._until(lambda: self.done, 2 * GRACE)
        elif self._channel is not None:
            # The login shell has not come to our command yet. Not every server hands signals on; there is nothing better.
            self._channel.send_signal("TERM")
            await self._until(lambda: self.done, GRACE)
            if self._channel is not None:
                self._channel.send_signal("KILL")
            await self._until(lambda: self.done, GRACE)
        self._cut = True

    async def _end_kindly(self) -> None:
        with anyio.move_on_after(self._patience):
            await self._until(lambda: self.done or bool(self.pid), self._patience)
            if self.pid and self._kill is not None:
                await self._kill(self.pid, "term")
            await self._until(lambda: self.ended, self._patience)
            await self._until(lambda: self.done, GRACE)
        if not self.ended:
            # Closing the channel would end it by SIGPIPE at its next word: leave the channel open and drop what comes.
            self.left = True
        self._cut = True

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        with anyio.move_on_after(seconds):
            while not true():
                await self.progress()

    async def close(self) -> None:
        if self._channel is not None and not self.left:
            self._channel.close()
