"""``RUN_DIR/ID/state.json``: the OCI view of each machine for other programs. A projection: delete it and it is made again.

It never decides anything and a failure here never changes an operation; it is logged once.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping

import msgspec

from nexcage import names
from nexcage._core.machine import Machine
from nexcage._core.oci import OciState, oci_state
from nexcage._core.states import State
from nexcage._sinks.disk import Disk, directory, made_directory, read_small, write_whole
from nexcage.errors import JournalError, escaped

__all__ = ["StateFiles", "read_state"]

_LOG = logging.getLogger("nexcage")
_FILE = "state.json"
_MOST = 4 << 20


class StateFiles:
    """The state files of one fleet. Used under the journal's lock, so an older document never replaces a newer one."""

    def __init__(self, disk: Disk, run_dir: str, fleet: str) -> None:
        """Raises JournalError when ``run_dir`` belongs to another fleet or cannot be used at all."""
        self.run_dir: str = os.path.abspath(run_dir)
        self._disk = disk
        self._fd = -1
        self._told = False
        try:
            self._claim(fleet)
        except OSError as error:
            self._tell(error)

    def _claim(self, fleet: str) -> None:
        dir_fd = self._directory()
        found = read_small(self._disk, ".fleet", dir_fd=dir_fd)
        if found is None:
            write_whole(self._disk, ".fleet", f"{fleet}\n".encode(), dir_fd=dir_fd, durable=True)
        elif (there := found.decode("ascii", "backslashreplace").strip()) != fleet:
            raise JournalError(
                f"{self.run_dir} holds the state files of fleet {escaped(there)}, not {fleet}: "
                f"use another run_dir, or remove {self.run_dir}/.fleet if that fleet is gone"
            )

    def project(self, machines: Iterable[Machine], *, compare: bool = False) -> None:
        """Bring the files of ``machines`` up to date; ``compare`` leaves those alone that are. The disk never makes it raise."""
        for machine in machines:
            try:
                self._put(machine, compare)
            except Exception as error:  # noqa: BLE001 (a projection must not cost an operation anything)
                self._tell(error)

    def rebuild(self, machines: Mapping[str, Machine], recent: Iterable[str]) -> None:
        """After opening: what is missing is made, what is left over goes, and of ``recent`` machines the document is compared."""
        try:
            there = {name for name in os.listdir(self._directory()) if not name.startswith(".")}
            doubtful = set(recent) | {
                id for id, machine in machines.items() if machine.state is not State.ABSENT and not self._filled(id)
            }
            doubtful |= {name for name in there if name in machines and machines[name].state is State.ABSENT}
            for name in there - machines.keys():
                self._remove(name)
        except OSError as error:
            self._tell(error)
            return
        self.project((machines[id] for id in sorted(doubtful) if id in machines), compare=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _directory(self) -> int:
        if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:  # somebody removed it: /run may be cleaned at any time
            self.close()
        if self._fd < 0:
            made_directory(self._disk, self.run_dir)
            self._fd = directory(self.run_dir, follow=True)
        return self._fd

    def _filled(self, id: str) -> bool:
        try:
            return os.stat(f"{id}/{_FILE}", dir_fd=self._fd, follow_symlinks=False).st_size > 0
        except OSError:
            return False

    def _put(self, machine: Machine, compare: bool) -> None:
        dir_fd = self._directory()
        if machine.state is State.ABSENT:
            self._remove(machine.id)
            return
        document = msgspec.json.encode(oci_state(machine, run_dir=self.run_dir))
        data = msgspec.json.format(document, indent=1) + b"\n"
        inner = self._inner(machine.id, dir_fd)
        try:
            if not compare or read_small(self._disk, _FILE, dir_fd=inner, most=_MOST) != data:
                write_whole(self._disk, _FILE, data, dir_fd=inner, durable=False)
        finally:
            os.close(inner)

    def _inner(self, id: str, dir_fd: int) -> int:
        try:
            return directory(id, dir_fd=dir_fd)
        except FileNotFoundError:
            self._disk.mkdir(id, dir_fd=dir_fd)
            return directory(id, dir_fd=dir_fd)

    def _remove(self, id: str) -> None:
        try:
            inner = directory(id, dir_fd=self._fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(_FILE, dir_fd=inner)
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(f".{_FILE}.new", dir_fd=inner)
        finally:
            os.close(inner)
        with contextlib.suppress(OSError):  # somebody else's file in it: their directory then
            self._disk.rmdir(id, dir_fd=self._fd)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            _LOG.warning("state files in %s are not up to date: %s", self.run_dir, error)


def read_state(run_dir: str | os.PathLike[str], id: str) -> OciState | None:
    """The document that was last projected for ``id``; None when there is none. Raises JournalError for a file that is none."""
    name = names.container_id(id)
    path = os.path.join(os.fspath(run_dir), name, _FILE)
    try:
        outer = directory(os.fspath(run_dir), follow=True)
        try:
            inner = directory(name, dir_fd=outer)
        finally:
            os.close(outer)
        try:
            data = read_small(Disk(), _FILE, dir_fd=inner, most=_MOST)
        finally:
            os.close(inner)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error}") from None
    try:
        return None if data is None else msgspec.json.decode(data, type=OciState)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JournalError(f"{path} is not a state document: {error}") from None
