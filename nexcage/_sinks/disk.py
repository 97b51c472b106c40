"""What state is kept by: everything that changes a file system, in one small class, and files that are whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import os

__all__ = ["Disk", "directory", "made_directory", "read_small", "sync_directory", "write_whole"]

_FILE = os.O_CLOEXEC | os.O_NOFOLLOW


class Disk:
    """The calls that change what is on a disk, or may fail because of it; what only looks around is called directly.

    A test hands in one that fails; a simulation one whose `sync` does nothing, or one that dies
    (`nexcage.testing.CrashDisk`). Names are relative to ``dir_fd`` where there is one.
    """

    def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        """A descriptor, not inherited, of a file that is no link; one that is made here gets mode 0600 whatever the umask."""
        if not flags & os.O_CREAT:
            return os.open(name, flags | _FILE, dir_fd=dir_fd)
        try:
            fd = os.open(name, flags | _FILE | os.O_EXCL, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return os.open(name, (flags & ~os.O_CREAT) | _FILE, dir_fd=dir_fd)
        os.fchmod(fd, 0o600)
        return fd

    def read(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def write(self, fd: int, data: bytes) -> None:
        """All of ``data``, at the end of a file opened with O_APPEND."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def sync(self, fd: int) -> None:
        """Until what was written is on the disk."""
        os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def rename(self, old: str, new: str, *, dir_fd: int | None = None) -> None:
        """Both in one directory; a file that is there is replaced."""
        os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int | None = None) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int | None = None) -> None:
        """A directory of mode 0700 whatever the umask."""
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        os.chmod(name, 0o700, dir_fd=dir_fd)

    def rmdir(self, name: str, *, dir_fd: int | None = None) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def utime(self, name: str, at: float, *, dir_fd: int | None = None) -> None:
        """Its age, on the caller's clock."""
        os.utime(name, (at, at), dir_fd=dir_fd)

    def lock(self, fd: int, how: int) -> None:
        """``flock``, waiting unless told not to; the kernel gives the lock back when its holder dies."""
        fcntl.flock(fd, how)


def directory(name: str, *, dir_fd: int | None = None, follow: bool = False) -> int:
    """A descriptor of a directory; below ``dir_fd`` links are refused."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return os.open(name, flags if follow else flags | os.O_NOFOLLOW, dir_fd=dir_fd)


def made_directory(disk: Disk, path: str) -> None:
    """Make it and its parents, 0700 whatever the umask, durably; one that is there is left as it is."""
    parent = os.path.dirname(path.rstrip("/"))
    try:
        disk.mkdir(path)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not parent or parent == path:
            raise
        made_directory(disk, parent)
        with contextlib.suppress(FileExistsError):
            disk.mkdir(path)
    sync_directory(disk, parent or ".")


def sync_directory(disk: Disk, path: str) -> None:
    """Make names in it durable."""
    try:
        fd = directory(path, follow=True)
    except PermissionError:  # one may make entries in a directory that one may not read
        return
    try:
        disk.sync(fd)
    finally:
        os.close(fd)


def read_small(disk: Disk, name: str, *, dir_fd: int, most: int = 65536) -> bytes | None:
    """The first bytes of a small file; None when it is not there."""
    try:
        fd = disk.open(name, os.O_RDONLY, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        return disk.read(fd, most, 0)
    finally:
        os.close(fd)


def write_whole(disk: Disk, name: str, data: bytes, *, dir_fd: int, durable: bool) -> None:
    """The file with exactly ``data``, by a temporary file and a rename: readers find the old one or the new one, never a half."""
    temporary = f".{name.lstrip('.')}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    try:
        fd = disk.open(temporary, flags, dir_fd=dir_fd)
    except FileExistsError:  # of a process that died here
        disk.unlink(temporary, dir_fd=dir_fd)
        fd = disk.open(temporary, flags, dir_fd=dir_fd)
    try:
        try:
            disk.write(fd, data)
            if durable:
                disk.sync(fd)
        finally:
            os.close(fd)
        disk.rename(temporary, name, dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary, dir_fd=dir_fd)
        raise
    if durable:
        disk.sync(dir_fd)
