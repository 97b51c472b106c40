"""Commands on this machine: a subprocess in its own session, read and reaped without helper threads."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import IO, Any, Literal

import anyio

from nexcage._core.command import Command, Result
from nexcage._core.hosts import LOCAL
from nexcage._transports.running import GRACE, PATIENCE, Kind, Output, Running, running
from nexcage._transports.wire import checked
from nexcage.errors import NexcageError, NodeUnreachable

__all__ = ["LocalTransport", "base"]

DRAIN = 1.0
"""Seconds to wait for output after the end, while something that the command started holds the pipe."""
_CHUNK = 64 * 1024
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LocalTransport:
    """Runs commands on this machine. ``env`` is added to the small environment that each command gets.

    ``patience``: seconds that a cancelled command of class ``term`` has for its own clean-up.
    """

    claims: bool = False
    fencing: bool = False

    def __init__(self, *, env: Mapping[str, str] | None = None, patience: float = PATIENCE) -> None:
        self._env = dict(env or {})
        self._patience = patience

    async def run(self, command: Command[Any]) -> Result:
        """Run it to its end; raises NodeUnreachable only when this machine cannot start a process at all."""
        async with self._started(command, eof=True) as stream:
            return await stream.wait()

    @asynccontextmanager
    async def stream(self, command: Command[Any]) -> AsyncGenerator[Running]:
        """Run it and hand out what it prints; its standard input stays open until `Stream.send_eof`."""
        async with self._started(command, eof=False) as stream:
            yield stream

    async def aclose(self) -> None:
        """Nothing to close: each command belongs to its caller."""

    @asynccontextmanager
    async def _started(self, command: Command[Any], *, eof: bool) -> AsyncGenerator[Running]:
        checked(command.argv, command.env)
        process = _start(command, {**base(), **self._env, **command.env}, self._patience, eof=eof)
        async with running(process, command, DRAIN) as stream:
            yield stream


def base() -> dict[str, str]:
    """The environment of every command on this machine."""
    return {"PATH": os.environ.get("PATH") or _PATH, "HOME": os.environ.get("HOME") or "/", "LC_ALL": "C"}


def _start(command: Command[Any], env: Mapping[str, str], patience: float, *, eof: bool) -> _Subprocess | _Missing:
    # Popen waits for the exec, about a millisecond; asyncio's own subprocesses do the same.
    idle = eof and not command.stdin
    pipe = subprocess.PIPE
    try:
        popen = subprocess.Popen(
            [
                word.encode("utf-8", "surrogateescape") for word in command.argv
            ],  # whatever the locale of this process is
            stdin=subprocess.DEVNULL if idle else pipe,
            stdout=pipe,
            stderr=pipe,
            env=env,
            bufsize=0,
            start_new_session=True,
        )
    except (FileNotFoundError, NotADirectoryError):
        return _Missing(command, 127, "not found")
    except PermissionError:
        return _Missing(command, 126, "Permission denied")
    except OSError as error:
        if error.errno in _NOT_RUNNABLE:
            return _Missing(command, 126, os.strerror(error.errno or 0))
        raise NodeUnreachable(LOCAL, f"cannot start a process: {error}") from error
    try:
        return _Subprocess(popen, command, patience, eof=eof)
    except OSError as error:  # no file descriptors left to watch it with: it has begun, and its answer is lost
        os.killpg(popen.pid, signal.SIGKILL)
        popen.communicate()
        return _Missing(command, None, str(error))


_NOT_RUNNABLE = {errno.E2BIG, errno.ENOEXEC, errno.EISDIR, errno.ELOOP, errno.ETXTBSY, errno.ENAMETOOLONG}


class _Missing:
    """A program that could not be run, with the answer that a shell would give."""

    signalled = False
    ended = True
    done = True
    error: NexcageError | None = None

    def __init__(self, command: Command[Any], exit: int | None, why: str) -> None:
        self.exit: int | None = exit
        self.output = Output(command.cap)
        self.output.put("stderr", f"{command.argv[0]}: {why}\n".encode("utf-8", "surrogateescape"))

    async def progress(self) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def write_eof(self) -> None: ...
    def roomy(self) -> None: ...
    def cut(self) -> None: ...
    async def end(self, cancel: Literal["kill", "term"]) -> None: ...
    async def close(self) -> None: ...


class _Subprocess:
    """A child process. One selector watches its pipes and its pidfd, so one waiting task does all of the reading and writing.

    The child stays a zombie until `close`, so that its pid and process group cannot become somebody else's before that.
    """

    def __init__(self, popen: subprocess.Popen[bytes], command: Command[Any], patience: float, *, eof: bool) -> None:
        self.output = Output(command.cap)
        self.exit: int | None = None
        self.signalled = False
        self.ended = False
        self.error: NexcageError | None = None
        self._popen = popen
        self._patience = patience
        self._input = bytearray(command.stdin)
        self._input_ends = eof
        self._readers: dict[int, tuple[Kind, IO[bytes]]] = {}
        self._stdin = popen.stdin
        self._cut = self._left = False
        self._pumping = False
        self._turn = anyio.Event()
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(popen.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        kinds: tuple[tuple[Kind, IO[bytes] | None], ...] = (("stdout", popen.stdout), ("stderr", popen.stderr))
        for kind, pipe in kinds:
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._readers[pipe.fileno()] = (kind, pipe)
            self._selector.register(pipe, selectors.EVENT_READ)
        if self._stdin is not None:
            os.set_blocking(self._stdin.fileno(), False)
        self._feed()

    @property
    def done(self) -> bool:
        return self.ended and (self._cut or not self._readers)

    async def progress(self) -> None:
        # Only one task may wait for a file descriptor; others wait for its turn to end and look again.
        if self._pumping:
            await self._turn.wait()
            return
        self._pumping = True
        try:
            await anyio.wait_readable(self._selector.fileno())
            for key, _ in self._selector.select(0):
                self._handle(key.fd)
        finally:
            self._pumping = False
            turn, self._turn = self._turn, anyio.Event()
            turn.set()

    def _handle(self, fd: int) -> None:
        if fd == self._pidfd:
            self._note_exit()
        elif fd in self._readers:
            self._read(fd)
        elif self._stdin is not None and fd == self._stdin.fileno():
            self._feed()

    def _note_exit(self) -> None:
        self._selector.unregister(self._pidfd)
        self.ended = True
        with suppress(ChildProcessError):  # somebody else reaped it: then its exit status is lost
            info = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            assert info is not None
            self.signalled = info.si_code != os.CLD_EXITED
            self.exit = 128 + info.si_status if self.signalled else info.si_status

    def _read(self, fd: int) -> None:
        kind, pipe = self._readers[fd]
        if self.output.full:
            self._selector.unregister(pipe)
            return
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self.output.put(kind, data)
        else:
            self._selector.unregister(pipe)
            del self._readers[fd]
            pipe.close()

    def roomy(self) -> None:
        if not self.output.full:
            watched = self._selector.get_map()
            for fd, (_, pipe) in self._readers.items():
                if fd not in watched:
                    self._selector.register(pipe, selectors.EVENT_READ)

    def _feed(self) -> None:
        """Write what its standard input takes now; watch it while there is more."""
        if self._stdin is None:
            return
        try:
            while self._input:
                del self._input[: os.write(self._stdin.fileno(), self._input[:_CHUNK])]
        except BlockingIOError:
            if self._stdin.fileno() not in self._selector.get_map():
                self._selector.register(self._stdin, selectors.EVENT_WRITE)
            return
        except OSError:  # it does not read: its own affair
            self._input.clear()
            self._input_ends = True
        if self._stdin.fileno() in self._selector.get_map():
            self._selector.unregister(self._stdin)
        if self._input_ends:
            self._stdin.close()
            self._stdin = None

    async def write(self, data: bytes) -> None:
        if self._stdin is None or self._input_ends:
            return
        self._input += data
        self._feed()
        while self._input and not self.ended:
            await self.progress()

    async def write_eof(self) -> None:
        self._input_ends = True
        self._feed()

    def cut(self) -> None:
        self._cut = True

    async def end(self, cancel: Literal["kill", "term"]) -> None:
        if cancel == "term":
            await self._end_kindly()
            return
        self._signal(signal.SIGTERM, group=True)
        with anyio.move_on_after(GRACE):
            await self._until_done()
        self._signal(signal.SIGKILL, group=True)
        with anyio.move_on_after(5 * GRACE):
            await self._until_ended()
        self._left = not self.ended
        self.ended = self._cut = True

    async def _end_kindly(self) -> None:
        self._signal(signal.SIGTERM, group=False)
        with anyio.move_on_after(self._patience):
            await self._until_ended()
            with anyio.move_on_after(DRAIN):
                await self._until_done()
        self._left = not self.ended
        self.ended = self._cut = True

    async def _until_ended(self) -> None:
        while not self.ended:
            await self.progress()

    async def _until_done(self) -> None:
        while not self.done:
            await self.progress()

    def _signal(self, number: int, *, group: bool) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(self._popen.pid, number)
            elif not self.ended:
                os.kill(self._popen.pid, number)

    async def close(self) -> None:
        self._selector.close()
        os.close(self._pidfd)
        if self._left:
            # Closing its pipes would end it by SIGPIPE at its next word. Somebody has to read and reap it; it may outlast us.
            threading.Thread(target=_outlive, args=(self._popen,), name="nexcage-left", daemon=True).start()
            return
        for pipe in (self._stdin, *(pipe for _, pipe in self._readers.values())):
            if pipe is not None:
                pipe.close()
        self._popen.wait()


def _outlive(popen: subprocess.Popen[bytes]) -> None:
    """Read and drop what a command that was left running prints, until it ends; then reap it."""
    if popen.stdin is not None:
        popen.stdin.close()
    with selectors.DefaultSelector() as selector:
        for pipe in (popen.stdout, popen.stderr):
            if pipe is not None and not pipe.closed:
                os.set_blocking(pipe.fileno(), True)
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if not os.read(key.fd, _CHUNK):
                    selector.unregister(key.fd)
    popen.wait()
    for pipe in (popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()
