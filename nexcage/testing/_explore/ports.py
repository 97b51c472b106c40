"""The ports of a simulated program: a disk that can fail and die, links that are watched and die with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from nexcage._core.command import Command, Result
from nexcage._sinks.disk import Disk
from nexcage.testing._around import Around

if TYPE_CHECKING:
    from nexcage.abc import Transport

__all__ = ["Plug", "Sent", "Wire"]


class Quick(Disk):
    """A disk in memory: syncs cost nothing."""

    def sync(self, fd: int) -> None:
        """There is nothing to wait for."""


class Plug(Disk):
    """A program's hand on a disk: that can be full or broken for a while, and it is gone for a program that was killed."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.trouble: int = 0
        """The errno that writes end with; 0: none."""
        self.dead: bool = False
        self._kept: list[tuple[int, os.stat_result]] = []

    def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        self._may(writes=bool(flags & os.O_CREAT))
        fd = self._disk.open(name, flags, dir_fd=dir_fd)
        if flags & os.O_RDWR:  # a lock that a program holds as long as it lives
            self._kept.append((fd, os.fstat(fd)))
        return fd

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._may(writes=False)
        return self._disk.read(fd, size, offset)

    def write(self, fd: int, data: bytes) -> None:
        if self.trouble == errno.ENOSPC and not self.dead:
            self._disk.write(fd, data[: len(data) // 2])  # what still fitted
        self._may(writes=True)
        self._disk.write(fd, data)

    def sync(self, fd: int) -> None:
        self._may(writes=self.trouble == errno.EIO)
        self._disk.sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._may(writes=True)
        self._disk.truncate(fd, size)

    def rename(self, old: str, new: str, *, dir_fd: int | None = None) -> None:
        self._may(writes=True)
        self._disk.rename(old, new, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int | None = None) -> None:
        self._may(writes=self.trouble == errno.EIO)
        self._disk.unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int | None = None) -> None:
        self._may(writes=True)
        self._disk.mkdir(name, dir_fd=dir_fd)

    def rmdir(self, name: str, *, dir_fd: int | None = None) -> None:
        self._may(writes=self.trouble == errno.EIO)
        self._disk.rmdir(name, dir_fd=dir_fd)

    def utime(self, name: str, at: float, *, dir_fd: int | None = None) -> None:
        self._may(writes=True)
        self._disk.utime(name, at, dir_fd=dir_fd)

    def lock(self, fd: int, how: int) -> None:
        self._may(writes=False)
        self._disk.lock(fd, how)

    def _may(self, *, writes: bool) -> None:
        if self.dead:
            raise OSError(errno.EIO, "this program is dead")
        if self.trouble and writes:
            raise OSError(self.trouble, os.strerror(self.trouble))

    def die(self) -> None:
        """Its program is killed: nothing it still tries has an effect, and its locks are free."""
        self.dead = True
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd, was in self._kept:
            with suppress(OSError):
                now = os.fstat(fd)
                if (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino) and now.st_nlink:
                    os.dup2(null, fd, inheritable=False)  # the number stays taken until whoever has it closes it
        os.close(null)


class Sent(msgspec.Struct, kw_only=True):
    """One command that a program gave to a link, and what came back. ``exit`` None: no answer."""

    program: str
    node: str
    op_id: str
    step: int
    word: str
    safe: bool
    began: float
    ended: float = -1.0
    exit: int | None = None
    refused: bool = False


class Wire(Around):
    """A link of a program: what passes is written down, and each step must be in the journal before it passes."""

    def __init__(
        self, inner: Transport, program: str, node: str, log: list[Sent], sending: Callable[[Sent], None]
    ) -> None:
        super().__init__(inner)
        self._program = program
        self._node = node
        self._log = log
        self._sending = sending

    async def run(self, command: Command[Any]) -> Result:  # Any: of whatever type its answer is
        sent = self._sent(command)
        self._log.append(sent)
        self._sending(sent)
        try:
            result = await self._inner.run(command)
        except Exception:
            sent.refused = True
            raise
        finally:
            sent.ended = anyio.current_time()
        sent.exit = result.exit
        return result

    def _sent(self, command: Command[Any]) -> Sent:  # Any: as above
        step = command.env.get("NEXCAGE_STEP", "")
        return Sent(
            program=self._program,
            node=self._node,
            op_id=command.env.get("NEXCAGE_OP_ID", ""),
            step=int(step) if step.isdigit() else 0,
            word=" ".join(command.argv[:2]),
            safe=command.safe,
            began=anyio.current_time(),
        )
