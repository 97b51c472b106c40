"""The disk of a host whose power may fail: what was not synced is lost then, or there in pieces."""

from __future__ import annotations

from pathlib import Path
from random import Random

from nexcage._sinks.disk import Disk
from nexcage.testing.disk import After, CrashDisk

__all__ = ["Powered"]


class Powered(Disk):
    """One disk for all programs of a host."""

    def __init__(self, home: Path, seed: int) -> None:
        self._home = home
        self._random = Random(f"nexcage explore power {seed} {home.name}")
        self._now = CrashDisk(home)

    def fail(self, after: After) -> None:
        """The power fails, and comes again. No program of the host may be alive."""
        self._now.fate.die()
        self._now.present(after, self._random)
        self._now = CrashDisk(self._home)

    def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        return self._now.open(name, flags, dir_fd=dir_fd)

    def write(self, fd: int, data: bytes) -> None:
        self._now.write(fd, data)

    def sync(self, fd: int) -> None:
        self._now.sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._now.truncate(fd, size)

    def rename(self, old: str, new: str, *, dir_fd: int | None = None) -> None:
        self._now.rename(old, new, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int | None = None) -> None:
        self._now.unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int | None = None) -> None:
        self._now.mkdir(name, dir_fd=dir_fd)

    def rmdir(self, name: str, *, dir_fd: int | None = None) -> None:
        self._now.rmdir(name, dir_fd=dir_fd)
