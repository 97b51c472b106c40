"""What ``crun`` and ``runc`` print, as values. Members that nobody asked for are left out; a missing one has its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

from nexcage._core.command import Result, shown

__all__ = ["Features", "Listed", "Usage", "features", "listed", "pids", "state", "usage", "version"]

T = TypeVar("T")

_Pid = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]


class Listed(msgspec.Struct, frozen=True):
    """A container as ``list`` and ``state`` show it. crun's list has no ``rootfs`` and no annotations."""

    id: str
    pid: _Pid = 0
    status: str = ""
    bundle: str = ""
    rootfs: str = ""
    created: str = ""
    owner: str = ""
    version: str = msgspec.field(default="", name="ociVersion")
    annotations: Mapping[str, str] | None = None


class Features(msgspec.Struct, frozen=True):
    """The part of ``features`` that says which versions and hooks a program knows."""

    oldest: str = msgspec.field(name="ociVersionMin")
    newest: str = msgspec.field(name="ociVersionMax")
    hooks: tuple[str, ...] = ()
    mount_options: tuple[str, ...] = msgspec.field(default=(), name="mountOptions")
    annotations: Mapping[str, str] = {}


class _Cpu(msgspec.Struct, frozen=True):
    total: int = 0


class _CpuPart(msgspec.Struct, frozen=True):
    usage: _Cpu = _Cpu()


class _Amount(msgspec.Struct, frozen=True):
    limit: int = 0
    usage: int = 0


class _Memory(msgspec.Struct, frozen=True):
    usage: _Amount = _Amount()
    swap: _Amount = _Amount()
    raw: Mapping[str, int] = {}


class _Pids(msgspec.Struct, frozen=True):
    current: int = 0


class _Data(msgspec.Struct, frozen=True):
    cpu: _CpuPart = _CpuPart()
    memory: _Memory = _Memory()
    pids: _Pids = _Pids()


class _Event(msgspec.Struct, frozen=True):
    type: str
    id: str
    data: _Data = _Data()


class Usage(msgspec.Struct, frozen=True):
    """One ``events --stats``: nanoseconds of CPU time, bytes, processes. A limit of 0 means none."""

    id: str
    cpu: int = 0
    memory: int = 0
    memory_limit: int = 0
    pids: int = 0


_LIST = msgspec.json.Decoder(list[msgspec.Raw] | None)
_ONE = msgspec.json.Decoder(Listed)
_PIDS = msgspec.json.Decoder(list[_Pid] | None)
_FEATURES = msgspec.json.Decoder(Features)
_EVENT = msgspec.json.Decoder(_Event)
_UNLIMITED = 1 << 60


def _decoded(decoder: msgspec.json.Decoder[T], data: bytes, what: str) -> T:
    """Raises ValueError for whatever is not it."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{what} cannot be read: {error}") from None


def listed(data: bytes) -> tuple[Listed, ...]:
    """``list -f json``; one container that cannot be read costs only itself. Raises ValueError for what is no list."""
    found: list[Listed] = []
    for raw in _decoded(_LIST, data, "the list of containers") or ():
        try:
            found.append(_ONE.decode(raw))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return tuple(found)


def state(data: bytes) -> Listed:
    """``state``."""
    return _decoded(_ONE, data, "the state of the container")


def pids(result: Result) -> tuple[int, ...]:
    """``ps -f json``: the host's pids, first the container's own. runc prints ``null`` for none."""
    return tuple(_decoded(_PIDS, result.stdout, "the list of processes") or ())


def features(result: Result) -> Features:
    """``features``."""
    return _decoded(_FEATURES, result.stdout, "the list of features")


def usage(result: Result) -> Usage:
    """``events --stats``."""
    event = _decoded(_EVENT, result.stdout, "the statistics")
    memory = event.data.memory
    return Usage(
        event.id,
        event.data.cpu.usage.total,
        memory.usage.usage,
        0 if memory.usage.limit >= _UNLIMITED else memory.usage.limit,
        event.data.pids.current,
    )


def version(result: Result) -> tuple[str, str]:
    """``--version``: the program's own version and that of the specification that it follows."""
    lines = shown(result.stdout).splitlines()
    words = lines[0].split() if lines else []
    spec = next((line.partition(":")[2].strip() for line in lines if line.startswith("spec:")), "")
    if len(words) < 3 or words[1] != "version":
        raise ValueError("no version in the answer")
    return words[2], spec
