"""``run`` in the foreground: the program's signals, terminal and exit status are those of this command.

Its init becomes a child of this process: a runtime ends when it has made a container, and the kernel gives the orphan to the next
ancestor that asked for such.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import anyio

from nexcage import Create, Delete, NexcageError, Start
from nexcage._cli.console import attached
from nexcage._cli.parser import Call
from nexcage._cli.streams import Streams
from nexcage._cli.verbs_create import wanted, write_pid
from nexcage._cli.verbs_fleet import Verb

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["FORWARDED", "become_subreaper", "foreground"]

_OURS = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, signal.SIGABRT}
FORWARDED = tuple(sorted(signal.valid_signals() - _OURS - _FAULTS - {signal.SIGKILL, signal.SIGSTOP}))
"""What is sent to us and meant for the program: everything, real-time signals too, but what is about this process itself."""

_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans among the descendants of this process become its children."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def foreground(call: Call, streams: Streams, terminal: socket.socket | None) -> Verb:
    """Create, start, wait; then delete, unless ``--keep``. ``terminal`` is where the container's own comes from."""
    id, spec = wanted(call, streams)
    pid_file = call.text("pid_file")

    async def verb(fleet: Fleet) -> int:
        become_subreaper()
        with anyio.open_signal_receiver(*FORWARDED) as signals:
            done = await fleet.do(Create(id, spec), wait=True)
            try:
                init = os.pidfd_open(done.pid)
                try:
                    async with AsyncExitStack() as stack:
                        if terminal is not None:
                            await stack.enter_async_context(attached(terminal))
                        started = await fleet.do(Start(id), wait=True)
                        if pid_file is not None:
                            write_pid(pid_file, started)
                        return await _ended(init, signals)
                finally:
                    os.close(init)
            finally:
                if not call.flag("keep"):
                    with anyio.CancelScope(shield=True):
                        await fleet.do(Delete(id, force=True), wait=True)

    return verb


async def _ended(init: int, signals: AsyncIterator[signal.Signals]) -> int:
    """The exit status of the program, as a shell says it; until then it gets our signals."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_forward, init, signals)
        await anyio.wait_readable(init)
        tasks.cancel_scope.cancel()
    return _reaped(init)


def _reaped(init: int) -> int:
    """Of a child that has ended already, so nothing waits here."""
    try:
        end = os.waitid(os.P_PIDFD, init, os.WEXITED)
    except ChildProcessError:
        raise NexcageError("the program has ended, and somebody else was told how") from None
    if end is None:  # pragma: no cover - only with WNOHANG
        raise NexcageError("the program has not ended")
    return end.si_status if end.si_code == os.CLD_EXITED else 128 + end.si_status


async def _forward(init: int, signals: AsyncIterator[signal.Signals]) -> None:
    async for number in signals:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(init, number)
