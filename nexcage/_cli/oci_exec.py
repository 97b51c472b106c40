"""``exec`` for an OCI engine in a container that a runtime of this machine has: that runtime does it, with the caller's own streams.

It is a child of this process, which writes down beside the container's life that it began and how it ended. Whatever it inherits is
the caller's; signals go through to it. What it leaves behind (``--detach``) is nobody's child here, so an engine's monitor is its parent.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

import nexcage
from nexcage import IllegalTransition
from nexcage._cli.oci_run import FORWARDED
from nexcage._cli.parser import Call

if TYPE_CHECKING:
    from nexcage import Fleet

__all__ = ["as_child", "recorded", "told"]

_LARGEST = 1 << 20
_FROM_THE_TERMINAL = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""What a terminal sends to everyone in front of it, so the runtime has it already."""


async def recorded(fleet: Fleet, call: Call, id: str, argv: Sequence[str]) -> int | None:
    """Run the runtime; its exit status. None when the journal says that nothing can run inside now: the runtime itself says why."""
    said = told(call)
    try:
        async with fleet.insider.noted(id, **said) as ending:
            ending.exit = await as_child(argv)
            return ending.exit
    except IllegalTransition:
        return None


def told(call: Call) -> dict[str, Any]:  # Any: keywords of Insider.noted
    """What is to run, as the journal keeps it."""
    tty, path = call.flag("tty"), call.text("process")
    if path is not None:
        return _of_document(path) | {"tty": tty}
    env = [entry.partition("=")[0] for entry in call.many("env")]
    argv = [os.fsencode(word) for word in call.words[1:]]
    return {
        "argv": argv or ["?"],
        "env": env,
        "cwd": call.text("cwd") or "",
        "user": call.text("user") or "",
        "tty": tty,
    }


def _of_document(path: str) -> dict[str, Any]:  # Any: as above
    """What can be told of it: the runtime is the one that judges it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = msgspec.json.decode(file.read(_LARGEST), type=dict[str, Any])  # Any: somebody else's document
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        found = {}
    argv, env, cwd = _texts(found.get("args")), _texts(found.get("env")), found.get("cwd")
    return {
        "argv": argv or [path],
        "env": [entry.partition("=")[0] for entry in env],
        "cwd": cwd if isinstance(cwd, str) else "",
    }


def _texts(value: object) -> list[str]:
    try:
        return msgspec.convert(value, list[str])
    except msgspec.ValidationError:
        return []


async def as_child(argv: Sequence[str]) -> int:
    """Run it with all that this process has inherited; the exit status, as a shell says it."""
    program = shutil.which(argv[0])
    if program is None:
        raise nexcage.NexcageError(f"{argv[0]}: not found")
    with anyio.open_signal_receiver(*FORWARDED) as signals:
        child = subprocess.Popen(argv, executable=program, close_fds=False)  # noqa: ASYNC220 (a fork; nothing else runs here)
        end = os.pidfd_open(child.pid)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_forward, child, signals)
                await anyio.wait_readable(end)
                tasks.cancel_scope.cancel()
        finally:
            os.close(end)
            status = child.wait()  # at its end already, but where we were cancelled
    return status if status >= 0 else 128 - status


async def _forward(child: subprocess.Popen[bytes], signals: AsyncIterator[signal.Signals]) -> None:
    async for number in signals:
        if number in _FROM_THE_TERMINAL and _in_front():
            continue
        with suppress(ProcessLookupError):
            child.send_signal(number)


def _in_front() -> bool:
    """Whether this process and the runtime are what the terminal talks to."""
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    return False
