"""Disks that die and disks that fail, over a real directory: for `open_fleet(disk=...)` in simulations.

A :class:`CrashDisk` dies at a chosen moment and then shows its directory as a machine may find it afterwards. A
:class:`FaultyDisk` is full or broken at moments that a seed chooses, and leaves torn ends behind. Both are for one program; what
they know of the directory is right as long as nobody else changes it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Literal, TypeAlias

from nexcage._sinks.disk import Disk

__all__ = ["AFTER", "DISK_FAULTS", "After", "Crash", "CrashDisk", "Fate", "FaultyDisk"]

After: TypeAlias = Literal["kept", "lost", "torn"]
"""What is left of what was not synced: all of it (the program was killed), nothing, or pieces (the power failed)."""

AFTER: tuple[After, ...] = ("kept", "lost", "torn")


class Crash(BaseException):
    """The program has died. Not an Exception: nothing of it may catch this and go on."""


class Fate:
    """When a program dies. Whatever of it could have an effect passes a point before; after its death none can be passed."""

    def __init__(self, at: int | None = None) -> None:
        self.at: int | None = at
        self.points: list[str] = []
        """What was about to happen at each point so far."""
        self.dead: bool = False
        self.at_death: list[Callable[[], None]] = []

    def point(self, what: str) -> None:
        """Raises Crash when this is the point to die at, or the program is dead."""
        if self.dead:
            raise Crash(f"dead already: {what}")
        self.points.append(what)
        if len(self.points) - 1 == self.at:
            self.die()
            raise Crash(f"died before point {self.at}: {what}")

    def doomed(self, what: str) -> bool:
        """The same without dying: when this is the point to die at, the caller does it, by `die`, at a moment of its own."""
        if self.dead or len(self.points) != self.at:
            return False
        self.points.append(what)
        return True

    def die(self) -> None:
        """From now on nothing of it has an effect, and what the kernel held for it is free."""
        self.dead = True
        for end in self.at_death:
            end()


class _File:
    """A file's content as the platters have it."""

    __slots__ = ("durable",)

    def __init__(self, durable: bytes = b"") -> None:
        self.durable: bytes = durable


class _Directory:
    """A directory's entries as the platters have them."""

    __slots__ = ("durable",)

    def __init__(self) -> None:
        self.durable: dict[str, _File | _Directory] = {}


class CrashDisk(Disk):
    """Everything below ``root`` as it would be after the power failed: data counts when its file was synced, names when their
    directory was. What is there when it is made counts as durable.
    """

    def __init__(self, root: str | os.PathLike[str], fate: Fate | None = None) -> None:
        self.root: str = os.path.realpath(root)
        self.fate: Fate = fate or Fate()
        self._known: dict[tuple[int, int], _File | _Directory] = {}
        self._locked: dict[int, tuple[int, int]] = {}
        self.fate.at_death.append(self._unlock)
        self._take_in(self.root)

    def _take_in(self, path: str) -> _File | _Directory:
        """What is there, as durable as it looks."""
        stat = os.lstat(path)
        made: _File | _Directory
        if os.path.isdir(path) and not os.path.islink(path):
            made = _Directory()
            made.durable = {name: self._take_in(os.path.join(path, name)) for name in os.listdir(path)}
        else:
            made = _File(_content(path))
        self._known[stat.st_dev, stat.st_ino] = made
        return made

    # What a program does

    def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        if not flags & (os.O_CREAT | os.O_TRUNC) or (not flags & os.O_EXCL and _there(name, dir_fd)):
            self._alive(f"open {name}")
            return super().open(name, flags, dir_fd=dir_fd)
        self.fate.point(f"create {self._short(name)}")
        fd = super().open(name, flags, dir_fd=dir_fd)
        self._new(os.fstat(fd), _File())
        return fd

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._alive("read")
        return super().read(fd, size, offset)

    def write(self, fd: int, data: bytes) -> None:
        self.fate.point(f"write {self._short(_path(fd))}")
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        """Costs no waiting; that it was asked for is what counts."""
        self.fate.point(f"sync {self._short(_path(fd))}")
        stat = os.fstat(fd)
        known = self._known.get((stat.st_dev, stat.st_ino))
        path = f"/proc/self/fd/{fd}"
        if isinstance(known, _Directory):
            known.durable = {entry.name: self._object(entry) for entry in os.scandir(path)}
        elif known is not None:
            known.durable = _content(path)

    def truncate(self, fd: int, size: int) -> None:
        self.fate.point(f"truncate {self._short(_path(fd))}")
        super().truncate(fd, size)

    def rename(self, old: str, new: str, *, dir_fd: int | None = None) -> None:
        self.fate.point(f"rename {self._short(new)}")
        super().rename(old, new, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int | None = None) -> None:
        self.fate.point(f"unlink {self._short(name)}")
        super().unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int | None = None) -> None:
        self.fate.point(f"mkdir {self._short(name)}")
        super().mkdir(name, dir_fd=dir_fd)
        self._new(os.stat(name, dir_fd=dir_fd), _Directory())

    def rmdir(self, name: str, *, dir_fd: int | None = None) -> None:
        self.fate.point(f"rmdir {self._short(name)}")
        super().rmdir(name, dir_fd=dir_fd)

    def utime(self, name: str, at: float, *, dir_fd: int | None = None) -> None:
        self._alive(f"utime {name}")
        super().utime(name, at, dir_fd=dir_fd)

    def lock(self, fd: int, how: int) -> None:
        self._alive("lock")
        super().lock(fd, how)
        stat = os.fstat(fd)
        self._locked[fd] = (stat.st_dev, stat.st_ino)

    def _short(self, name: str) -> str:
        return os.path.relpath(name, self.root) if name.startswith(self.root) else name

    def _alive(self, what: str) -> None:
        """Not a point: nothing on the disk changes."""
        if self.fate.dead:
            raise Crash(f"dead already: {what}")

    def _new(self, stat: os.stat_result, made: _File | _Directory) -> None:
        self._known[stat.st_dev, stat.st_ino] = made  # the number may have been that of a file that is gone

    def _object(self, entry: os.DirEntry[str]) -> _File | _Directory:
        stat = entry.stat(follow_symlinks=False)
        known = self._known.get((stat.st_dev, stat.st_ino))
        return self._take_in(entry.path) if known is None else known

    def _unlock(self) -> None:
        """The kernel closes a dead program's files; here their numbers stay taken until whoever has them closes them."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd, was in self._locked.items():
            with suppress(OSError):
                now = os.fstat(fd)
                if (now.st_dev, now.st_ino) == was:
                    os.dup2(null, fd, inheritable=False)
        os.close(null)

    # What is found afterwards

    def present(self, after: After, random: Random | None = None) -> None:
        """Make the directory what it is after the death; ``random`` tears. Its program must be dead."""
        if not self.fate.dead:
            raise ValueError("the program is alive: kill it first")
        if after == "lost":
            stat = os.stat(self.root)
            root = self._known[stat.st_dev, stat.st_ino]
            assert isinstance(root, _Directory)
            _restore(self.root, root)
        elif after == "torn":
            for path in _files(self.root):
                stat = os.lstat(path)
                known = self._known.get((stat.st_dev, stat.st_ino))
                if isinstance(known, _File):
                    _tear(path, known.durable, random or Random(0))


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _path(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def _there(name: str, dir_fd: int | None) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _files(root: str) -> Iterator[str]:
    for folder, _, names in sorted(os.walk(root)):
        yield from (os.path.join(folder, name) for name in sorted(names))


def _restore(path: str, directory: _Directory) -> None:
    for entry in list(os.scandir(path)):
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
        elif not isinstance(directory.durable.get(entry.name), _Directory):
            shutil.rmtree(entry.path)
    for name, known in sorted(directory.durable.items()):
        inner = os.path.join(path, name)
        if isinstance(known, _Directory):
            if not os.path.isdir(inner):
                os.mkdir(inner, 0o700)
                os.chmod(inner, 0o700)
            _restore(inner, known)
        else:
            _replace(inner, known.durable)


def _replace(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _tear(path: str, durable: bytes, random: Random) -> None:
    """Some of what was not synced has arrived: a piece from its beginning, or only its length (the rest reads as NULs)."""
    now = _content(path)
    if now == durable:
        return
    if durable.startswith(now):  # cut, and the cut may not have arrived
        _replace(path, random.choice((now, durable)))
        return
    kept = durable if now.startswith(durable) else b""
    new = now[len(kept) :]
    arrived = new[: random.randrange(len(new) + 1)]
    _replace(path, kept + (arrived if random.random() < 0.5 else arrived.ljust(len(new), b"\0")))


DISK_FAULTS: tuple[str, ...] = ("full", "broken-write", "broken-sync", "read-only")
"""What can go wrong on a `FaultyDisk`: ENOSPC after a piece was written, EIO from a write or a sync, EROFS for a new file."""

_ERRNO = {"full": errno.ENOSPC, "broken-write": errno.EIO, "broken-sync": errno.EIO, "read-only": errno.EROFS}
_WHERE = {"full": "write", "broken-write": "write", "broken-sync": "sync", "read-only": "create"}


class FaultyDisk(Disk):
    """Fails with probability ``rate`` at each write, sync or creation, as ``random`` rolls; or when it is told to."""

    def __init__(self, random: Random, *, rate: float = 0.0, kinds: tuple[str, ...] = DISK_FAULTS) -> None:
        self.rate: float = rate
        self.hits: list[str] = []
        """The faults that have happened."""
        self._random = random
        self._kinds = kinds
        self._told: dict[str, int] = {}
        self._last: tuple[str, bytes] | None = None

    def fault(self, kind: str, times: int = 1) -> None:
        """Fail so, the next ``times`` times that it can."""
        if kind not in _WHERE:
            raise ValueError(f"no such disk fault: {kind!r} (one of {', '.join(DISK_FAULTS)})")
        self._told[kind] = self._told.get(kind, 0) + times

    def _happens(self, where: str) -> str | None:
        kinds = [kind for kind in DISK_FAULTS if _WHERE[kind] == where]
        for kind in kinds:
            if self._told.get(kind, 0) > 0:
                self._told[kind] -= 1
                return kind
        able = [kind for kind in kinds if kind in self._kinds]
        return self._random.choice(able) if able and self.rate and self._random.random() < self.rate else None

    def _refuse(self, kind: str) -> None:
        self.hits.append(kind)
        raise OSError(_ERRNO[kind], os.strerror(_ERRNO[kind]))

    def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT and not _there(name, dir_fd) and (kind := self._happens("create")):
            self._refuse(kind)
        return super().open(name, flags, dir_fd=dir_fd)

    def write(self, fd: int, data: bytes) -> None:
        if kind := self._happens("write"):
            os.write(fd, data[: self._random.randrange(len(data) + 1)])
            self._refuse(kind)
        super().write(fd, data)
        self._last = (_path(fd), data)

    def sync(self, fd: int) -> None:
        if kind := self._happens("sync"):
            self._refuse(kind)

    def tear(self, kind: Literal["torn", "nul"]) -> bool:
        """Leave behind the file that was written last what a death in the next such write leaves: a piece of it, or NULs.

        For a program that is dead. False when nothing was written, or the file is gone.
        """
        if self._last is None:
            return False
        path, data = self._last
        piece = data[: self._random.randrange(1, max(2, len(data)))]
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        with os.fdopen(fd, "ab") as file:
            file.write(piece if kind == "torn" else bytes(len(piece)))
        self.hits.append(kind)
        return True
