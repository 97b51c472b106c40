"""A container's life as drafts, and disks that misbehave on purpose."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nexcage import Create, Event, Machine, Op, Spec, Start, State, Succeeded
from nexcage._sinks.disk import Disk
from nexcage._sinks.segments import segments_in
from nexcage._sinks.store import Call, Sizes, Store

SPEC = Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst")


class Quick(Disk):
    """Does not wait for the platters: what a test checks is what is in the files."""

    def sync(self, fd: int) -> None:
        pass


class Faulty(Quick):
    """Fails where it is told to, as often as it is told to."""

    def __init__(self) -> None:
        self.skip: dict[str, int] = {}
        self.fail: dict[str, int] = {}
        self.partly = 0
        self.read_only = False
        self.entered = threading.Event()
        self.let = threading.Event()
        self.let.set()

    def _may(self, what: str, number: int = errno.EIO) -> None:
        if self.skip.get(what, 0):
            self.skip[what] -= 1
        elif self.fail.get(what, 0):
            self.fail[what] -= 1
            raise OSError(number, os.strerror(number))

    def open(self, name: str, flags: int, *, dir_fd: int | None = None) -> int:
        if self.read_only and flags & (os.O_CREAT | os.O_ACCMODE):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return super().open(name, flags, dir_fd=dir_fd)

    def write(self, fd: int, data: bytes) -> None:
        if self.fail.get("write", 0):
            os.write(fd, data[: self.partly])
        self._may("write", errno.ENOSPC)
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        self.entered.set()
        self.let.wait(20)
        self._may("sync")

    def truncate(self, fd: int, size: int) -> None:
        self._may("truncate")
        super().truncate(fd, size)


class Life:
    """Drafts of what happens to a container."""

    spec = SPEC

    def create(self, id: str, op_id: str = "") -> Callable[[Mapping[str, Machine]], Event]:
        key = op_id or f"c-{id}"
        return lambda machines: (machines.get(id) or Machine(id)).begin(
            Create(id, SPEC), op_id=key, node="pve-01", backend="lxc", owner="me"
        )

    def created(self, id: str, op_id: str = "", vmid: int = 104) -> Event:
        return Succeeded(
            id=id, op=Op.CREATE, op_id=op_id or f"c-{id}", state=State.CREATED, vmid=vmid, node="pve-01", backend="lxc"
        )

    def start(self, id: str, op_id: str = "") -> Callable[[Mapping[str, Machine]], Event]:
        return lambda machines: machines[id].begin(Start(id), op_id=op_id or f"s-{id}", owner="me")

    def started(self, id: str, op_id: str = "", pid: int = 4194400) -> Event:
        return Succeeded(id=id, op=Op.START, op_id=op_id or f"s-{id}", state=State.RUNNING, pid=pid, vmid=104)


class Desk:
    """Opens stores (the synchronous half) on one directory and appends to them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self._open: list[Store] = []

    def open(self, *, disk: Disk | None = None, **sizes: int) -> Store:
        store = Store(str(self.path), disk=disk or Quick(), clock=lambda: self.now, sizes=Sizes(**sizes))
        store.open()
        self._open.append(store)
        return store

    def append(self, store: Store, *drafts: object) -> tuple[Event, ...]:
        call = Call(drafts)  # type: ignore[arg-type]
        store.commit([call])
        if call.error is not None:
            raise call.error
        return call.events

    def files(self) -> list[Path]:
        return [self.path / name for name in segments_in(str(self.path))]

    def close(self) -> None:
        for store in self._open:
            store.close()


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def quick() -> Disk:
    return Quick()


@pytest.fixture
def faulty() -> Faulty:
    return Faulty()


@pytest.fixture
def desk(tmp_path: Path):
    made = Desk(tmp_path / "journal")
    yield made
    made.close()
