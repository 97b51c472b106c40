"""Intents that keep the state of a container: what is wanted of its disks, its settings and its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import msgspec

from nexcage import names
from nexcage._core.spec import Net
from nexcage._core.states import Op
from nexcage.errors import InvalidInput

__all__ = [
    "Backup",
    "DelSnapshot",
    "Keeping",
    "MakeTemplate",
    "Migrate",
    "MoveVolume",
    "Resize",
    "Rollback",
    "Snapshot",
    "Update",
]

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DISK = re.compile(r"rootfs|mp(?:0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])")
_GROWS = re.compile(rf"{_DISK.pattern}|(?:scsi|virtio|sata|ide)[0-9]{{1,2}}")
_NET = re.compile(r"net(?:[0-9]|[12][0-9]|3[01])")
_SIZE = re.compile(r"\+?[0-9]{1,9}(?:\.[0-9]{1,3})?[KMGT]")
_DIGEST = re.compile(r"(?:[0-9a-f]{40})?")
_UNSET = re.compile(
    rf"cores|cpulimit|cpuunits|nameserver|searchdomain|startup|{_NET.pattern}|(?!rootfs){_DISK.pattern}"
)
_LIMITS = frozenset(
    "memory memory-swap memory-reservation kernel-memory kernel-memory-tcp cpu-share cpu-quota cpu-period cpu-rt-period cpu-rt-runtime "
    "cpuset-cpus cpuset-mems pids-limit blkio-weight l3-cache-schema mem-bw-schema resources".split()
)
_LONGEST = 1 << 16  # bytes of one limit: it stands in the journal
_OWN_LINE = re.compile(r"^nexcage (?:fleet|op)=", re.MULTILINE)


class _Keeping(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    id: str


class _Optional(_Keeping, frozen=True, omit_defaults=True, kw_only=True):
    op_id: str | None = None

    def __post_init__(self) -> None:
        names.container_id(self.id)
        if self.op_id is not None:
            names.op_id(self.op_id)
        self._check()

    def _check(self) -> None:
        """Raises InvalidInput for a field that cannot be right."""


class Snapshot(_Optional, frozen=True, omit_defaults=True, tag="snapshot"):
    """Keep its disks and its settings as they are now, under ``name``. A name that is taken raises AlreadyExists."""

    op: ClassVar[Op] = Op.SNAPSHOT
    name: str
    description: str = ""

    def _check(self) -> None:
        names.snapshot(self.name)
        _text("description", self.description)


class DelSnapshot(_Optional, frozen=True, omit_defaults=True, tag="delsnapshot"):
    """Forget the snapshot ``name``. One that is not there raises NotFound."""

    op: ClassVar[Op] = Op.DELSNAPSHOT
    name: str

    def _check(self) -> None:
        names.snapshot(self.name)


class Rollback(_Optional, frozen=True, omit_defaults=True, tag="rollback"):
    """Make its disks and its settings as they were at the snapshot ``name``; what was written since is lost.

    A running container is killed for it and stays stopped, unless ``start``. Never repeated by itself.
    """

    op: ClassVar[Op] = Op.ROLLBACK
    name: str
    start: bool = msgspec.field(default=False)

    def _check(self) -> None:
        names.snapshot(self.name)
        _flag("start", self.start)


class Resize(_Optional, frozen=True, omit_defaults=True, tag="resize"):
    """Let ``disk`` (``rootfs``, ``mp0``...) grow to ``size`` (``10G``) or by it (``+2G``). No disk shrinks."""

    op: ClassVar[Op] = Op.RESIZE
    disk: str
    size: str

    def _check(self) -> None:
        _like(_GROWS, "disk", self.disk, "rootfs or mp0 to mp255; of a VM scsi0, virtio0, sata0 or ide0 and so on")
        _like(_SIZE, "size", self.size, "a number with K, M, G or T, and + in front to grow by it: 10G, +512M")


class MoveVolume(_Optional, frozen=True, omit_defaults=True, tag="move-volume"):
    """Move ``disk`` of a container at rest to another storage. The old volume stays as ``unusedN`` unless ``delete``."""

    op: ClassVar[Op] = Op.MOVE_VOLUME
    disk: str
    storage: str
    delete: bool = msgspec.field(default=False)

    def _check(self) -> None:
        _like(_DISK, "disk", self.disk, "rootfs or mp0 to mp255")
        names.storage(self.storage)
        _flag("delete", self.delete)


class MakeTemplate(_Optional, frozen=True, omit_defaults=True, tag="template"):
    """Turn it into a template, for clones: it never runs again, and there is no way back."""

    op: ClassVar[Op] = Op.TEMPLATE


class Migrate(_Optional, frozen=True, omit_defaults=True, tag="migrate"):
    """Move it to ``node`` (a key of the fleet) of the same cluster. A running one is shut down within ``timeout`` seconds, moved and
    started again, if ``restart``; else it must be at rest. ``storage``: where its volumes go there (the same name as here).
    """

    op: ClassVar[Op] = Op.MIGRATE
    node: str
    restart: bool = msgspec.field(default=False)
    timeout: int = 180
    storage: str | None = None
    target: str = ""
    """The PVE name of ``node``, found out before it begins."""

    def _check(self) -> None:
        _flag("restart", self.restart)
        if not isinstance(self.node, str) or not self.node:
            raise InvalidInput("node", self.node, "the host string of a node of the fleet")
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, int) or not 1 <= self.timeout <= 86400:
            raise InvalidInput("timeout", self.timeout, "whole seconds from 1 to 86400")
        if self.storage is not None:
            names.storage(self.storage)


class Update(_Optional, frozen=True, omit_defaults=True, kw_only=True, tag="update"):
    """Change its settings; what is None stays. ``memory`` and ``swap`` in MiB; ``cpulimit`` in cores (1.5), 0 for no limit.

    ``nets`` and ``mounts`` by their key (``net0``, ``mp0``); ``unset`` names what goes back to its default or is taken away. ``tags``
    replace all but ours. ``digest``: refuse with `nexcage.Changed` when its config is another one than this (see `nexcage.Details`);
    without, the one that was seen just before. ``limits``: of containers of crun and runc whatever else these can change, by the names
    of their options and in their words (``{"pids-limit": "50"}``); ``resources`` is a document, as the specification has it.
    """

    op: ClassVar[Op] = Op.UPDATE
    memory: int | None = None
    swap: int | None = None
    cores: int | None = None
    cpulimit: float | None = None
    cpuunits: int | None = None
    hostname: str | None = None
    onboot: bool | None = None
    protection: bool | None = None
    tags: tuple[str, ...] | None = None
    description: str | None = None
    nets: Mapping[str, Net] = {}
    mounts: Mapping[str, str] = {}
    unset: tuple[str, ...] = ()
    digest: str = ""
    limits: Mapping[str, str] = {}

    def _check(self) -> None:
        for field, low, high in (
            ("memory", 16, 1 << 30),
            ("swap", 0, 1 << 30),
            ("cores", 1, 8192),
            ("cpuunits", 0, 500_000),
        ):
            _whole(field, getattr(self, field), low, high)
        limit = self.cpulimit
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit <= 8192
        ):
            raise InvalidInput("cpulimit", limit, "a number of cores from 0 to 8192")
        if self.hostname is not None:
            names.hostname(self.hostname)
        for field in ("onboot", "protection"):
            if getattr(self, field) is not None:
                _flag(field, getattr(self, field))
        if self.tags is not None:
            _several("tags", self.tags)
            msgspec.structs.force_setattr(self, "tags", tuple(names.tag(tag) for tag in self.tags))
        if self.description is not None:
            _text("description", self.description)
        _named("nets", self.nets)
        for key, net in self.nets.items():
            _like(_NET, "nets", key, "net0 to net31")
            if not isinstance(net, Net):
                raise InvalidInput("nets", net, "a nexcage.Net for each key")
        _named("mounts", self.mounts)
        for key, value in self.mounts.items():
            if key == "rootfs":
                raise InvalidInput("mounts", key, "mp0 to mp255: another root file system would break the container")
            _like(_DISK, "mounts", key, "mp0 to mp255")
            names.mount(value)
        _several("unset", self.unset)
        for key in self.unset:
            _like(_UNSET, "unset", key, "cores, cpulimit, cpuunits, nameserver, searchdomain, startup, netN or mpN")
        _like(_DIGEST, "digest", self.digest, "40 hexadecimal digits")
        _named("limits", self.limits)
        for key, value in self.limits.items():
            if key not in _LIMITS:
                raise InvalidInput("limits", key, f"one of {', '.join(sorted(_LIMITS))}")
            if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST:
                raise InvalidInput("limits", value, f"for {key} a text of at most {_LONGEST} characters")


class Backup(_Optional, frozen=True, omit_defaults=True, tag="backup"):
    """Save it as an archive on ``storage``, by ``vzdump``. ``mode``: ``snapshot`` (the least disturbance), ``suspend`` or ``stop`` (it is
    stopped meanwhile and started again). ``compress``: ``zstd``, ``gzip``, ``lzo`` or ``0``. Never repeated by itself.
    """

    op: ClassVar[Op] = Op.BACKUP
    storage: str = "local"
    mode: str = "snapshot"
    compress: str = "zstd"

    def _check(self) -> None:
        names.storage(self.storage)
        _like(re.compile("snapshot|suspend|stop"), "mode", self.mode, "snapshot, suspend or stop")
        _like(re.compile("zstd|gzip|lzo|0"), "compress", self.compress, "zstd, gzip, lzo or 0")


Keeping: TypeAlias = Backup | Snapshot | DelSnapshot | Rollback | Resize | MoveVolume | MakeTemplate | Migrate | Update


def _like(pattern: re.Pattern[str], field: str, value: object, reason: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidInput(field, value, reason)


def _flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidInput(field, value, "True or False")


def _several(field: str, value: object) -> None:
    if not isinstance(value, (tuple, list)):
        raise InvalidInput(field, value, "a tuple of texts")


def _named(field: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise InvalidInput(field, value, "a mapping by key")


def _whole(field: str, value: object, low: int, high: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidInput(field, value, f"a whole number from {low} to {high}")


def _text(field: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > 4096 or _CONTROL.search(value):
        raise InvalidInput(field, value, "text of at most 4096 characters, newline as the only control character")
    if _OWN_LINE.search(value):
        raise InvalidInput(field, value, "no line that begins like one of ours, 'nexcage fleet=' or 'nexcage op='")
