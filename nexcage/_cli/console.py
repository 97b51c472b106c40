"""A terminal of a container on this machine: its master end, as a runtime sends it over a console socket, and ours."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import socket
import sys
import tempfile
import termios
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from nexcage._cli.verbs_exec import raw_terminal

__all__ = ["attached", "console_socket", "received"]

_CHUNK = 1 << 16


@contextmanager
def console_socket() -> Generator[tuple[str, socket.socket]]:
    """A socket to receive a terminal from, with its path; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nexcage-") as directory, socket.socket(socket.AF_UNIX) as listening:
        path = str(Path(directory, "console"))
        listening.bind(path)
        listening.listen(1)
        yield path, listening


def received(listening: socket.socket) -> int:
    """The terminal's master end; raises TimeoutError when none comes."""
    listening.settimeout(10)
    sending, _ = listening.accept()
    with sending:
        sending.settimeout(10)
        _, given, _, _ = socket.recv_fds(sending, 4096, 1)
    if not given:
        raise OSError("no terminal was sent")
    return given[0]


@asynccontextmanager
async def attached(listening: socket.socket) -> AsyncGenerator[None]:
    """Our own terminal is that of the container until it is left; what it has printed by then is printed."""
    master = await anyio.to_thread.run_sync(received, listening)
    failure: BaseException | None = None
    try:
        async with raw_terminal(wanted=True), anyio.create_task_group() as tasks:
            tasks.start_soon(_input, master)
            tasks.start_soon(_sized, master)
            printed = anyio.Event()
            tasks.start_soon(_output, master, printed)
            try:
                yield
                with anyio.move_on_after(2):  # somebody else may hold the terminal open
                    await printed.wait()
            except BaseException as error:
                failure = error  # raised out of the task group, so that it stays bare
            tasks.cancel_scope.cancel()
    finally:
        os.close(master)
    if failure is not None:
        raise failure


async def _input(master: int) -> None:
    while True:
        with suppress(OSError):  # a file cannot be waited for, and need not be
            await anyio.wait_readable(0)
        data = os.read(0, _CHUNK)
        if not data:
            return
        with suppress(OSError):  # the terminal is gone: whoever waits for the program hears of it
            while data:
                await anyio.wait_writable(master)
                data = data[os.write(master, data) :]


async def _output(master: int, printed: anyio.Event) -> None:
    try:
        while True:
            await anyio.wait_readable(master)
            data = os.read(master, _CHUNK)
            if not data:
                return
            await anyio.to_thread.run_sync(_write, data)
    except OSError:  # EIO: its last process has closed it
        return
    finally:
        printed.set()


def _write(data: bytes) -> None:
    sys.stdout.flush()
    while data:
        data = data[os.write(1, data) :]


async def _sized(master: int) -> None:
    _resize(master)
    with anyio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            _resize(master)


def _resize(master: int) -> None:
    size = array.array("H", (0, 0, 0, 0))
    with suppress(OSError):  # ours is none
        fcntl.ioctl(0, termios.TIOCGWINSZ, size)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
