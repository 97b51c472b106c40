"""Commands on this machine through a runner: a child process that is started when it is first used. Needs asyncio."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import msgspec

from nexcage._core.command import Command, Result, shown
from nexcage._core.hosts import LOCAL
from nexcage._transports.boot import words
from nexcage._transports.calls import RunnerStream
from nexcage._transports.local import base
from nexcage._transports.runner import HEARTBEAT, Runner
from nexcage._transports.running import GRACE, PATIENCE
from nexcage.errors import NodeNotUsable, NodeUnreachable

__all__ = ["LocalRunner"]

GREETING = 10.0
"""Seconds that the program may take to say that it is there."""


class LocalRunner:
    """Runs commands on this machine through one runner; starts another when it has ended.

    ``env`` is added to the small environment that the runner and each command get. Unlike `LocalTransport` it keeps claims and
    fences, and its commands are ended when this process is killed. It answers for claims that outlive it.
    """

    claims: bool = True
    fencing: bool = True

    def __init__(
        self, *, env: Mapping[str, str] | None = None, patience: float = PATIENCE, heartbeat: float = HEARTBEAT
    ) -> None:
        self._env = dict(env or {})
        self._patience = patience
        self._heartbeat = heartbeat
        self._child: _Child | None = None
        self._starting = anyio.Lock()
        self._closed = False

    async def run(self, command: Command[Any]) -> Result:
        """Run it to its end; raises NodeNotUsable when no runner can be started here."""
        runner = await self._runner()
        return await runner.run(self._with_env(command))

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncGenerator[RunnerStream]:
        """Run it and hand out what it prints; its standard input stays open until `Stream.send_eof`."""
        runner = await self._runner()
        async with runner.stream(self._with_env(command)) as stream:
            yield stream

    async def aclose(self) -> None:
        """End the runner and what it runs without a claim, by its class; a tool that takes longer is left to itself."""
        self._closed = True
        child, self._child = self._child, None
        if child is not None:
            await child.aclose()

    @property
    def pid(self) -> int:
        """The runner's process, 0 when there is none."""
        return self._child.popen.pid if self._child is not None else 0

    def _with_env(self, command: Command[Any]) -> Command[Any]:
        return msgspec.structs.replace(command, env={**self._env, **command.env}) if self._env else command

    async def _runner(self) -> Runner:
        child = self._child
        if child is not None and not child.runner.over:
            return child.runner
        async with self._starting:
            if self._closed:
                raise NodeUnreachable(LOCAL, "its transport is closed")
            if self._child is not None and not self._child.runner.over:
                return self._child.runner
            if self._child is not None:
                child, self._child = self._child, None
                await child.aclose()
            self._child = await self._started()
            return self._child.runner

    async def _started(self) -> _Child:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise NodeNotUsable(LOCAL, "a runner needs the asyncio event loop") from None
        child = _Child({**base(), **self._env}, self._patience, self._heartbeat)
        try:
            await child.open()
            with anyio.fail_after(GREETING):
                await child.runner.greeted()
        except BaseException as error:
            said = child.said
            if child.runner.hello is None:
                child.popen.kill()  # it runs nothing yet, and whatever it is may never end by itself
            await child.aclose()
            if isinstance(error, TimeoutError):
                raise NodeNotUsable(LOCAL, f"its runner did not greet within {GREETING:g} seconds") from error
            if isinstance(error, NodeNotUsable):
                error.noted(said)
            raise
        return child


class _Child(asyncio.Protocol):
    """The runner's process, its pipes, and its end. It is the protocol of both pipes."""

    def __init__(self, env: Mapping[str, str], patience: float, heartbeat: float) -> None:
        nonce = secrets.token_hex(8)
        pipe = subprocess.PIPE
        try:
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(
                words(nonce, heartbeat=heartbeat), stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True
            )
        except OSError as error:
            raise NodeNotUsable(LOCAL, f"cannot start a runner: {error}") from error
        self.runner: Runner = Runner(
            LOCAL, nonce, write=self._write, abort=self._hang_up, patience=patience, heartbeat=heartbeat
        )
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._input: asyncio.WriteTransport | None = None
        self._output: asyncio.ReadTransport | None = None
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(self.popen.pid)
        self._loop.add_reader(self._pidfd, self._ended.set)

    async def open(self) -> None:
        """Take hold of the pipes and send the program."""
        output, _ = await self._loop.connect_read_pipe(lambda: self, self.popen.stdout)
        self._output = output
        sink, _ = await self._loop.connect_write_pipe(lambda: _Sink(self.runner), self.popen.stdin)
        self._input = sink
        self._input.set_write_buffer_limits(high=1 << 20)
        self.runner.start()

    @property
    def said(self) -> str:
        """What it said on stderr so far."""
        assert self.popen.stderr is not None
        os.set_blocking(self.popen.stderr.fileno(), False)
        with suppress(OSError):
            return shown(os.read(self.popen.stderr.fileno(), 4096), 400).strip()
        return ""

    def data_received(self, data: bytes) -> None:
        self.runner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.runner.lost(f"its runner has ended{f': {exc}' if exc else ''}")

    def _write(self, data: bytes) -> None:
        if self._input is not None and not self._input.is_closing():
            self._input.write(data)

    def _hang_up(self) -> None:
        if self._input is not None:
            self._input.close()
        if self._output is not None:
            self._output.close()

    async def aclose(self) -> None:
        """End the session, wait for the end of its commands and reap it; one that goes on is reaped by a thread."""
        with anyio.CancelScope(shield=True):
            self.runner.close("its transport is closed")
            self._hang_up()
            for pipe in (self.popen.stdin, self.popen.stdout):
                if pipe is not None and self._input is None:
                    pipe.close()
            with anyio.move_on_after(max(self._patience, 5 * GRACE) + 2 * GRACE):
                await self._ended.wait()
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            if self.popen.stderr is not None:
                self.popen.stderr.close()
            if self._ended.is_set():
                self.popen.wait()
            else:
                threading.Thread(target=self.popen.wait, name="nexcage-left", daemon=True).start()


class _Sink(asyncio.BaseProtocol):
    """The other pipe: tells the runner when it is full."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def pause_writing(self) -> None:
        self._runner.pause_writing()

    def resume_writing(self) -> None:
        self._runner.resume_writing()
