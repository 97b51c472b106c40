"""What this machine keeps of content, by its checksum: bounded, and whole whoever looks, in this process or another."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from nexcage.errors import InvalidPath, NexcageError

__all__ = ["Kept", "Store"]

MOST = 20 << 30
"""Bytes that are kept; beyond that those go first that were not used for longest."""
_NAME = re.compile(r"sha256-[0-9a-f]{64}(\.[a-z0-9.]{1,12})")
_PART = "part-"


class Kept(msgspec.Struct, frozen=True):
    """A file in the store; ``used`` in Unix seconds."""

    name: str
    size: int
    used: float


class Store:
    """A directory of files named by their content. Files are begun under names of their own and take their places by renames."""

    def __init__(self, directory: Path, most: int = MOST) -> None:
        self.directory: Path = directory
        self._most = most

    def place(self, sha256: str, ending: str) -> Path:
        return self.directory / f"sha256-{sha256}{ending}"

    @asynccontextmanager
    async def room(self) -> AsyncGenerator[Path]:
        """An empty file that is gone afterwards, unless it was kept."""
        descriptor, path = await anyio.to_thread.run_sync(self._begin_file)
        try:
            with self._told():
                yield path
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    @asynccontextmanager
    async def scratch(self) -> AsyncGenerator[Path]:
        """An empty directory that is gone afterwards, whatever happened and however much lies in it."""
        descriptor, path = await anyio.to_thread.run_sync(self._begin_directory)
        try:
            with self._told():
                yield path
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_removed, path)
            os.close(descriptor)

    async def write(self, file: anyio.AsyncFile[bytes], data: bytes) -> None:
        """Raises InvalidPath when the disk is full."""
        try:
            await file.write(data)
        except OSError as error:
            raise self._full(error) from None

    async def keep(self, part: Path, place: Path) -> None:
        """``part`` becomes ``place``; what is too much then goes."""

        def keep() -> None:
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(place)
            self._trim(place)

        try:
            await anyio.to_thread.run_sync(keep)
        except OSError as error:
            raise self._full(error) from None

    async def summed(self, path: Path) -> tuple[str, int]:
        """Checksum and size of a file, which counts as used."""

        def read() -> tuple[str, int]:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                with suppress(OSError):
                    os.utime(file.fileno())
                return digest, os.fstat(file.fileno()).st_size

        return await anyio.to_thread.run_sync(read)

    def used(self, path: Path) -> bool:
        """Whether it is there; it counts as used then."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def listed(self) -> list[Kept]:
        """What is kept, the last used first."""
        found: list[Kept] = []
        with suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        about = entry.stat(follow_symlinks=False)
                        found.append(Kept(entry.name, about.st_size, about.st_mtime))
        return sorted(found, key=lambda kept: (-kept.used, kept.name))

    def remove(self, sha256: str) -> list[str]:
        """Forget this content; the names of the files that went."""
        gone: list[str] = []
        for kept in self.listed():
            if kept.name.startswith(f"sha256-{sha256}."):
                (self.directory / kept.name).unlink(missing_ok=True)
                gone.append(kept.name)
        return gone

    # ---- below -------------------------------------------------------------------------------------------------------------

    def _begin_file(self) -> tuple[int, Path]:
        self._made()
        try:
            descriptor, name = tempfile.mkstemp(prefix=_PART, dir=self.directory)
        except OSError as error:
            raise self._full(error) from None
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor, Path(name)

    def _begin_directory(self) -> tuple[int, Path]:
        self._made()
        try:
            path = Path(tempfile.mkdtemp(prefix=_PART, dir=self.directory))
        except OSError as error:
            raise self._full(error) from None
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor, path

    def _made(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._full(error) from None
        self._swept()

    def _swept(self) -> None:
        """What others began and left when they died goes; who is at work holds a lock on what he has begun."""
        for path in self.directory.glob(f"{_PART}*"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                if os.fstat(descriptor).st_mtime < _minute_ago(self.directory):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _removed(path)
            except OSError:
                continue
            finally:
                os.close(descriptor)

    def _trim(self, but: Path) -> None:
        room = self._most
        for kept in self.listed():
            room -= kept.size
            if room < 0 and kept.name != but.name:
                (self.directory / kept.name).unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Generator[None]:
        """A disk that is full while somebody writes what will be kept."""
        try:
            yield
        except OSError as error:
            if isinstance(error, NexcageError):  # a deadline is one too
                raise
            raise self._full(error) from None

    def _full(self, error: OSError) -> InvalidPath:
        why = "there is no room left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror)
        return InvalidPath("contents", str(self.directory), f"a directory that can be written to ({why})")


def _minute_ago(directory: Path) -> float:
    """By the clock of the file system: a lock is taken a moment after its file was made."""
    with tempfile.TemporaryFile(dir=directory) as probe:
        return os.fstat(probe.fileno()).st_mtime - 60


def _removed(path: Path) -> None:
    """By ``rm``, which goes into any depth; directories without permissions are opened up where we are not root."""
    if path.is_dir() and not path.is_symlink():
        if os.geteuid() != 0:
            subprocess.run(("chmod", "-R", "--", "u+rwX", str(path)), check=False, capture_output=True)
        subprocess.run(("rm", "-rf", "--one-file-system", "--", str(path)), check=False, capture_output=True)
    else:
        path.unlink(missing_ok=True)
