"""Whose journal it is (the fleet's id) and which drivers are alive.

An owner is alive while it holds the ``flock`` on ``STATE_DIR/owners/OWNER``. The kernel drops the lock when the process ends,
however it ends, so nothing is ever decided by a pid; pid and time stand inside for people.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime

from nexcage._sinks.disk import Disk, directory, made_directory, read_small, write_whole
from nexcage.errors import InvalidName, JournalError, escaped

__all__ = ["Ownership", "fleet_id", "owner_alive", "sweep_owners"]

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _word(field: str, value: str) -> str:
    if not _WORD.fullmatch(value):
        raise InvalidName(field, value, "1 to 64 of A-Z a-z 0-9 _ . - and the first one a letter or a digit")
    return value


def fleet_id(disk: Disk, state_dir: str, configured: str = "") -> str:
    """The id in ``STATE_DIR/fleet``, made when it is not there (call it under the journal's lock).

    Raises JournalError when ``configured`` is another one: the containers of that journal carry its id in their marks.
    """
    if configured:
        _word("fleet", configured)
    path = os.path.join(state_dir, "fleet")
    dir_fd = directory(state_dir, follow=True)
    try:
        found = read_small(disk, "fleet", dir_fd=dir_fd)
        if found is None:
            made = configured or secrets.token_hex(8)
            write_whole(disk, "fleet", f"{made}\n".encode(), dir_fd=dir_fd, durable=True)
            return made
    finally:
        os.close(dir_fd)
    there = found.decode("ascii", "backslashreplace").strip()
    if not _WORD.fullmatch(there):
        raise JournalError(
            f"{path} does not hold a fleet id but {escaped(there)}: put back the id that its containers carry"
        )
    if configured and configured != there:
        raise JournalError(
            f"{state_dir} belongs to fleet {there}, not {configured}: use another state_dir or drop fleet = '{configured}'"
        )
    return there


def _locked_by_someone(fd: int) -> bool:
    # Shared, so that two who ask at the same time do not take each other for the owner.
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def owner_alive(state_dir: str | os.PathLike[str], owner: str) -> bool:
    """Whether the driver that calls itself ``owner`` still runs. Raises JournalError when that cannot be found out."""
    if not _WORD.fullmatch(owner):
        return False
    path = os.path.join(os.fspath(state_dir), "owners", owner)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JournalError(f"cannot tell whether owner {owner} is alive: {error}") from None
    try:
        return _locked_by_someone(fd)
    finally:
        os.close(fd)


class Ownership:
    """This driver's own lock, held until `release` or the end of the process. Made under the journal's lock."""

    def __init__(self, disk: Disk, state_dir: str, owner: str, since: float) -> None:
        _word("owner", owner)
        self.owner: str = owner
        self._disk = disk
        folder = os.path.join(state_dir, "owners")
        made_directory(disk, folder)
        if owner_alive(state_dir, owner):
            raise JournalError(f"owner {owner} is another running driver: every driver needs its own name")
        self._dir = directory(folder)
        self._fd = -1
        try:
            self._take(f".{owner}", since)
        except BaseException:
            self._close()
            raise

    def _take(self, temporary: str, since: float) -> None:
        disk = self._disk
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(temporary, dir_fd=self._dir)
        self._fd = disk.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, dir_fd=self._dir)
        try:
            # Locked before it has its name: nobody ever sees a living owner's file without its lock.
            disk.lock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            disk.write(self._fd, f"pid {os.getpid()} since {_iso(since)}\n".encode())
            disk.rename(temporary, self.owner, dir_fd=self._dir)
        except BaseException:
            with contextlib.suppress(OSError):
                disk.unlink(temporary, dir_fd=self._dir)
            raise

    def release(self) -> None:
        """The driver ends: from here on its operations are anybody's to recover."""
        try:
            with contextlib.suppress(OSError):
                self._disk.unlink(self.owner, dir_fd=self._dir)
        finally:
            self._close()

    def _close(self) -> None:
        for fd in (self._fd, self._dir):
            with contextlib.suppress(OSError):
                os.close(fd)


def sweep_owners(disk: Disk, state_dir: str, named: Collection[str]) -> None:
    """Remove the files of dead owners that no running operation names (under the journal's lock)."""
    with contextlib.suppress(OSError):
        folder = directory(os.path.join(state_dir, "owners"))
        try:
            for owner in os.listdir(folder):
                if owner not in named and not _alive_file(owner, folder):
                    disk.unlink(owner, dir_fd=folder)
        finally:
            os.close(folder)


def _alive_file(name: str, dir_fd: int) -> bool:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        return _locked_by_someone(fd)
    finally:
        os.close(fd)


def _iso(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(at)
