"""The driver's side of one runner: many commands at once over one pipe of bytes, whatever carries that pipe. Needs asyncio.

This is a hot path: a command costs one future, one frame out and one frame in. There are no tasks and no timers of its own; one
heartbeat per session looks after the link and after deadlines that the node should have kept, and what one turn of the loop has
to say goes out in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from nexcage._core.command import Command, Result, shown
from nexcage._transports import frames
from nexcage._transports.boot import Greeting, program
from nexcage._transports.calls import Call, RunnerStream
from nexcage._transports.frames import FrameError, Hello, Refused
from nexcage._transports.running import GRACE, PATIENCE
from nexcage._transports.wire import checked, named
from nexcage.errors import Fenced, InvalidInput, NexcageError, NodeNotUsable, NodeUnreachable

__all__ = ["HEARTBEAT", "Runner", "RunnerStream"]

HEARTBEAT = 15.0
"""Seconds between pings; a runner that hears nothing for four of them ends its commands."""
SLACK = 10.0
"""Seconds that a node may be late with what it promised: the end of a command, an answer."""


class Runner:
    """One session. Whoever owns the pipe calls `start` when it is open, `data_received`, `lost`, and the two writing hooks.

    ``write`` takes all that it is given and never waits; ``abort`` closes the pipe. `run` and `stream` keep the promises of
    `nexcage.abc.Transport`: after a lost link each command has a Result without exit status.
    """

    def __init__(
        self,
        node: str,
        nonce: str,
        *,
        write: Callable[[bytes], None],
        abort: Callable[[], None],
        patience: float = PATIENCE,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        self.hello: Hello | None = None
        self.reason: str = ""
        """Why the session is over, when it is."""
        self.over: bool = False
        self._node = node
        self._patience = patience
        self._heartbeat = heartbeat
        self._write = write
        self._abort = abort
        self._loop = asyncio.get_running_loop()
        self._greeting: Greeting | None = Greeting(nonce)
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._decoder = frames.Decoder(frames.FROM_NODE)
        self._calls: dict[int, Call] = {}
        self._number = 0
        self._out: list[bytes] = []
        self._fresh: list[Call] = []
        """Calls whose frame is still in ``_out``: they have surely not begun."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._silent = 0
        """Pings since something was heard. Not a time: whoever was suspended for long has to ask first."""
        self._beat: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = (
            f"over: {self.reason}" if self.over else f"{len(self._calls)} commands" if self.hello else "not there yet"
        )
        return f"<Runner {self._node}: {state}>"

    # What the owner of the pipe calls.

    def start(self) -> None:
        """The pipe is open: send the program."""
        self._write(program())

    def data_received(self, data: bytes) -> None:
        if self.over:
            return
        self._silent = 0
        if self._greeting is not None:
            data = self._greeting.feed(data)
            if not self._greeting.over:
                return
            self._greeting = None
        try:
            for kind, number, payload in self._decoder.feed(data):
                self._hear(kind, number, payload)
        except FrameError as error:
            self._fail(f"the runner does not speak our protocol: {error}")

    def lost(self, reason: str) -> None:
        """The pipe is gone: whatever ran has lost its answer. Idempotent."""
        if self.over:
            return
        self.over, self.reason = True, reason
        if self._beat is not None:
            self._beat.cancel()
        fresh, self._fresh = set(map(id, self._fresh)), []
        calls, self._calls = self._calls, {}
        self._out.clear()
        for call in calls.values():
            call.lose(NodeUnreachable(self._node, reason) if id(call) in fresh else None)
        self._writable.set()
        if not self._greeted.done():
            self._greeted.set_result(None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What its users call.

    async def greeted(self) -> Hello:
        """Wait for the runner's first words; raises NodeNotUsable when there are none, or when it speaks another protocol."""
        await asyncio.shield(self._greeted)
        if self.hello is None:
            said = shown(self._greeting.before, 400).strip() if self._greeting is not None else ""
            raise NodeNotUsable(self._node, f"no runner there: {self.reason}").noted(f"it said: {said}" if said else "")
        return self.hello

    async def run(self, command: Command[Any]) -> Result:
        """Run it to its end. Cancelled, it ends the command by its class first."""
        call = Call(self, command)
        self._begin(call, command, stream=False)
        try:
            return await call.future
        except asyncio.CancelledError:
            await call.end()
            raise

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncGenerator[RunnerStream]:
        """Run it and hand out what it prints; its standard input stays open until `RunnerStream.send_eof`."""
        call = RunnerStream(self, command)
        self._begin(call, command, stream=True)
        try:
            yield call
        finally:
            await call.end()

    def close(self, reason: str) -> None:
        """End the session: the node ends commands without a claim by their class, here they have lost their answer."""
        self._flush()
        self._fail(reason)

    # Inside.

    def _begin(self, call: Call, command: Command[Any], *, stream: bool) -> None:
        argv, env = command.argv, command.env
        if not argv or not argv[0] or not named(env):
            checked(argv, env)
        if self.over:
            raise NodeUnreachable(self._node, self.reason)
        number = self._number + 1
        try:
            data = frames.run(number, command, patience=self._patience, stream=stream)
        except ValueError as error:
            checked(argv, env)
            raise InvalidInput("argv", argv, f"words that fit into a frame: {error}") from None
        self._number = call.number = number
        if command.timeout is not None:
            call.due = call.began + command.timeout + SLACK + _ending(command, self._patience)
        self._calls[number] = call
        self._fresh.append(call)
        self.send(data)

    def send(self, data: bytes) -> None:
        """Put frames into the one write of this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._fresh.clear()
            self._write(data)

    def _hear(self, kind: int, number: int, payload: bytes) -> None:
        if self.hello is None and kind not in {frames.HELLO, frames.QUIT}:
            raise FrameError("it does not greet")
        if kind == frames.RESULT:
            ended = frames.Ended.decode(payload)  # first: a call that is taken out must get its end
            call = self._calls.pop(number, None)
            if call is not None:
                call.ended(ended)
            elif number > self._number:
                raise FrameError("an answer that nobody asked for")
        elif kind == frames.HELLO:
            self._greet(Hello.decode(payload))
        elif kind == frames.QUIT:
            self._fail(f"the runner gave up: {shown(frames.one(payload), 400)}")
        elif kind == frames.REFUSED:
            refused = Refused.decode(payload)
            call = self._calls.pop(number, None)
            if call is not None:
                call.lose(self._refusal(refused, call.command))
        elif kind in _PARTS:
            call = self._calls.get(number)
            if call is not None:
                call.part(kind, payload)
        elif kind != frames.PONG:
            raise FrameError(f"no such kind of frame: {kind:02x}")

    def _greet(self, hello: Hello) -> None:
        if self.hello is not None:
            raise FrameError("it greets twice")
        if hello.protocol != frames.PROTOCOL:
            raise FrameError(f"it speaks version {hello.protocol}, not {frames.PROTOCOL}")
        self.hello = hello
        self._beat = self._loop.call_later(self._heartbeat, self._pulse)
        if not self._greeted.done():
            self._greeted.set_result(None)

    def _refusal(self, refused: Refused, command: Command[Any]) -> NexcageError:
        message = shown(refused.message.encode("utf-8", "surrogateescape"), 400)
        match refused.kind:
            case "fenced":
                epoch = message.partition(" ")[0]
                return Fenced(command.claim.fleet if command.claim else "", int(epoch) if epoch.isdecimal() else 0)
            case "claims":
                return NodeNotUsable(self._node, f"claims cannot be kept there: {message}")
            case "invalid":
                return InvalidInput("command", command.argv, message)
            case _:
                return NodeUnreachable(self._node, message)

    def _pulse(self) -> None:
        now = self._loop.time()
        if self._silent >= 2:
            self._fail(f"the runner has not answered for {2 * self._heartbeat:g} seconds")
            return
        self._silent += 1
        for number, call in [(n, c) for n, c in self._calls.items() if c.due < now]:
            del self._calls[number]
            self.send(frames.frame(frames.END, number))
            call.give_up("deadline")
        self.send(frames.frame(frames.PING))
        self._beat = self._loop.call_later(self._heartbeat, self._pulse)

    def _fail(self, reason: str) -> None:
        if not self.over:
            self.lost(reason)
            self._abort()

    # What its calls use.

    def forget(self, number: int) -> None:
        """Nobody waits for it any more."""
        self._calls.pop(number, None)

    async def writable(self) -> None:
        """Wait until the pipe takes more."""
        await self._writable.wait()

    def ending(self, command: Command[Any]) -> float:
        """The seconds that ending a command may take here, its answer included."""
        return _ending(command, self._patience) + SLACK / 2


_PARTS = frozenset({frames.PIECE, frames.OUT, frames.ERR, frames.BEGUN, frames.CREDIT})


def _ending(command: Command[Any], patience: float) -> float:
    return patience if command.cancel == "term" else 5 * GRACE
