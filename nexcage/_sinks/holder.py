"""A state directory as a holder of leases: its id, the highest epoch it has had, and whether any process of it is alive.

``STATE_DIR/holder`` has the id, made at random once. Every process that has asked for the lease holds a shared ``flock`` on it,
so whoever gets it exclusively knows that none is left. ``STATE_DIR/epoch`` has the epoch, so that it never falls though the lease
itself be lost. A copy of a state directory is the same holder: copy the journal, not these two.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress

from nexcage._sinks.disk import Disk, directory, made_directory, read_small, sync_directory, write_whole

__all__ = ["Holder", "begin_anew", "holder_gone"]

_ID = re.compile(rb"[0-9a-f]{16}\n")
_SIZE = 17


class Holder:
    """This process's part in it. Nothing here waits: what is locked by others is to be tried again."""

    def __init__(self, disk: Disk, state_dir: str) -> None:
        self.path: str = os.path.join(os.path.abspath(state_dir), "holder")
        self.id: str = ""
        self._disk = disk
        self._fd = self._turn = -1

    def join(self) -> bool:
        """Become one of its processes; False while somebody else is looking whether there are any."""
        if self._fd >= 0:
            return True
        made_directory(self._disk, os.path.dirname(self.path))
        fd = self._disk.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            if _locked(self._disk, fd, fcntl.LOCK_SH) and self._identified(fd):
                self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        return self._fd >= 0

    def _identified(self, fd: int) -> bool:
        data = self._disk.read(fd, _SIZE + 1, 0)
        if not _ID.fullmatch(data):
            # New, or its maker died here. Nobody can have a lease under it, for nobody else has it locked.
            if not _locked(self._disk, fd, fcntl.LOCK_EX) or self._disk.read(fd, _SIZE + 1, 0) != data:
                return False
            data = f"{secrets.token_hex(8)}\n".encode()
            self._disk.truncate(fd, 0)
            self._disk.write(fd, data)
            self._disk.sync(fd)
            sync_directory(self._disk, os.path.dirname(self.path))
            if not _locked(self._disk, fd, fcntl.LOCK_SH):
                return False
        self.id = data.decode("ascii").strip()
        return True

    def highest(self) -> int:
        """The highest epoch that it has had, 0 for none."""
        folder = directory(os.path.dirname(self.path), follow=True)
        try:
            data = read_small(self._disk, "epoch", dir_fd=folder) or b""
        finally:
            os.close(folder)
        word = data.strip()
        return int(word) if word.isdigit() and len(word) <= 18 else 0

    def keep(self, epoch: int) -> None:
        """Remember it, durably, before it is used for the first time."""
        if epoch <= self.highest():
            return
        folder = directory(os.path.dirname(self.path), follow=True)
        try:
            write_whole(self._disk, "epoch", f"{epoch}\n".encode(), dir_fd=folder, durable=True)
        finally:
            os.close(folder)

    def take_turn(self) -> bool:
        """Be the one of its processes that asks for a lease elsewhere; False while another one does."""
        fd = self._disk.open(f"{self.path}.turn", os.O_RDWR | os.O_CREAT)
        if _locked(self._disk, fd, fcntl.LOCK_EX):
            self._turn = fd
            return True
        os.close(fd)
        return False

    def end_turn(self) -> None:
        """Let the others."""
        if self._turn >= 0:
            os.close(self._turn)
            self._turn = -1

    def last(self) -> bool:
        """Whether no other process of it is alive; then none can join either, until `leave`."""
        return self._fd >= 0 and _locked(self._disk, self._fd, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Be none of its processes any more."""
        self.end_turn()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def begin_anew(disk: Disk, state_dir: str) -> None:
    """Its journal was lost and counts from the beginning, below what nodes have seen: the next epoch is above all that it has had.

    Nothing while another process of it lives: then this is a journal that has not begun at all.
    """
    holder = Holder(disk, state_dir)
    if not holder.highest():
        return
    try:
        if holder.join() and holder.last():
            holder.keep(holder.highest() + 1)
    finally:
        holder.leave()


def holder_gone(disk: Disk, path: str, id: str) -> bool:
    """Whether ``path`` is the file of holder ``id`` and none of its processes is alive. False when that cannot be told."""
    with suppress(OSError):
        fd = disk.open(path, os.O_RDONLY)
        try:
            return disk.read(fd, _SIZE + 1, 0) == f"{id}\n".encode() and _locked(disk, fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)
    return False


def _locked(disk: Disk, fd: int, how: int) -> bool:
    try:
        disk.lock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
