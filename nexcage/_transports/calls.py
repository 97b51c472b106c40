"""Commands that a runner has been given: one that is collected on its node, and one whose output comes as it is printed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import anyio
import msgspec

from nexcage._core.command import Command, Result
from nexcage._transports import frames
from nexcage._transports.frames import FrameError
from nexcage._transports.running import Kind, Output
from nexcage.errors import NexcageError

__all__ = ["Call", "RunnerStream", "Session"]

_CREDIT = frames.WINDOW // 8
"""Bytes that were taken before the node is told: rarely, and long before it has to wait."""
_PART = 64 * 1024


class Session(Protocol):
    """What a call needs of its runner."""

    def send(self, data: bytes) -> None: ...
    def forget(self, number: int) -> None: ...
    def ending(self, command: Command[Any]) -> float: ...
    async def writable(self) -> None: ...


class Call:
    """A command that runs. ``future`` is its end; ``due`` when the node's answer is overdue."""

    __slots__ = ("_loop", "_pieces", "_session", "began", "command", "due", "future", "number")

    def __init__(self, session: Session, command: Command[Any]) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] | None = None
        self.command: Command[Any] = command
        self.number: int = 0
        self.began: float = self._loop.time()
        self.due: float = float("inf")
        self.future: asyncio.Future[Result] = self._loop.create_future()

    # What the runner calls.

    def part(self, kind: int, payload: bytes) -> None:
        """A frame that belongs to it and is not its end."""
        if kind != frames.PIECE:
            raise FrameError("output of a command that is not streamed")
        if self._pieces is None:
            self._pieces = []
        self._pieces.append(payload)

    def ended(self, ended: frames.Ended) -> None:
        """Its answer has come."""
        data = ended.data if self._pieces is None else b"".join((*self._pieces, ended.data))
        if ended.out > len(data):
            self.lose(None)
            raise FrameError("an answer that is shorter than it says")
        exit, lost = ended.exit, ""
        if ended.late:
            lost = "deadline"
            # What the tool says after TERM is its answer; what a signal made of it is not.
            exit = exit if self.command.cancel == "term" and not ended.signalled else None
        elif exit is None:
            lost = "link"
        seconds = ended.seconds if ended.attached else self._loop.time() - self.began
        self._finish(Result(exit, data[: ended.out], data[ended.out :], ended.dropped, lost, seconds))

    def give_up(self, lost: str) -> None:
        """There will be no answer."""
        self._finish(Result(None, lost=lost, seconds=self._loop.time() - self.began))

    def lose(self, error: NexcageError | None) -> None:
        """The link is gone; with an error, the command surely has not begun."""
        if error is None:
            self.give_up("link")
        elif not self.future.done():
            self.future.set_exception(error)

    def _finish(self, result: Result) -> None:
        if not self.future.done():
            self.future.set_result(result)

    # What its user calls.

    async def end(self) -> None:
        """End it by its class and wait for that, within bounds; nothing interrupts it."""
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # somebody has seen it
            return
        if self.future.cancelled():  # with the task that waited for it; its answer may have come meanwhile
            self.future = self._loop.create_future()
        self._session.send(frames.frame(frames.END, self.number))
        with anyio.move_on_after(self._session.ending(self.command), shield=True), suppress(NexcageError):
            await self.future
        self._session.forget(self.number)


class RunnerStream(Call):
    """The `nexcage.abc.Stream` over a runner."""

    __slots__ = ("_input_over", "_news", "_output", "_owing", "_taken", "pid")

    def __init__(self, session: Session, command: Command[Any]) -> None:
        super().__init__(session, command)
        self._output = Output(command.cap)
        self._news = asyncio.Event()
        self._taken = 0
        self._owing = len(command.stdin)
        self._input_over = False
        self.pid: int = 0

    def __aiter__(self) -> RunnerStream:
        return self

    async def __anext__(self) -> tuple[Kind, bytes]:
        while (item := self._output.take()) is None:
            if self.future.done():
                self.future.result()
                raise StopAsyncIteration
            await self._progress()
        self._credit(len(item[1]))
        return item

    async def send(self, data: bytes) -> None:
        """Write to its standard input; waits while it does not read."""
        for at in range(0, len(data), _PART):
            while self._owing >= frames.WINDOW and not self.future.done():
                await self._progress()
            await self._session.writable()
            if self.future.done() or self._input_over:
                return
            piece = data[at : at + _PART]
            self._owing += len(piece)
            self._session.send(frames.frame(frames.INPUT, self.number, piece))
        while self._owing >= frames.WINDOW and not self.future.done():
            await self._progress()

    async def send_eof(self) -> None:
        """Close its standard input."""
        if not self._input_over and not self.future.done():
            self._input_over = True
            self._session.send(frames.frame(frames.EOF, self.number))

    async def wait(self) -> Result:
        """Its end; the output is what iterating has not taken, within the command's cap."""
        self._collect()
        result = await asyncio.shield(self.future)
        output = self._output
        return msgspec.structs.replace(
            result,
            stdout=output.kept("stdout"),
            stderr=output.kept("stderr"),
            dropped=result.dropped + output.dropped,
        )

    async def end(self) -> None:
        """End the command if it still runs."""
        if not self.future.done():
            self._collect()
        await super().end()

    # What the runner calls.

    def part(self, kind: int, payload: bytes) -> None:
        """Output, credit for input, its pid, or a piece of the answer."""
        if kind in {frames.OUT, frames.ERR}:
            self._output.put("stdout" if kind == frames.OUT else "stderr", payload)
            if self._output.collecting:
                self._credit(len(payload))
        elif kind == frames.CREDIT:
            self._owing = max(0, self._owing - frames.count(payload))
        elif kind == frames.BEGUN:
            self.pid = frames.count(payload)
        else:
            super().part(kind, payload)
        self._news.set()

    def _finish(self, result: Result) -> None:
        self._output.put("stdout", result.stdout)
        self._output.put("stderr", result.stderr)
        super()._finish(msgspec.structs.replace(result, stdout=b"", stderr=b""))
        self._news.set()

    def lose(self, error: NexcageError | None) -> None:
        """The link is gone; with an error, the command surely has not begun."""
        super().lose(error)
        self._news.set()

    # Inside.

    async def _progress(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _collect(self) -> None:
        if not self._output.collecting:
            waiting = self._output.queued
            self._output.collect()
            self._credit(waiting)

    def _credit(self, taken: int) -> None:
        self._taken += taken
        if self._taken >= _CREDIT and not self.future.done():
            self._session.send(frames.frame(frames.CREDIT, self.number, frames.field(self._taken)))
            self._taken = 0
