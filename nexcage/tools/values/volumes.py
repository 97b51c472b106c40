"""Volumes of a container: ``rootfs``, ``mpN`` and ``unusedN`` (pve-commands 2.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from nexcage import names
from nexcage.errors import InvalidSpec
from nexcage.tools.values._kinds import Kind, checked, flag, listed, matching, size
from nexcage.tools.values._property import Value

__all__ = ["MountPoint", "Rootfs", "Unused", "allocate"]

_NEW = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_CLIMBS = re.compile(r"/\.\.?/|/\.\.?$|^\.\./")
_RANGE = "[ug]:[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}"


def _path(field: str, value: object) -> str:
    """What PVE takes as a volume or a mount point: no way up, no comma; a blank at either end would be lost."""
    text = checked(field, value)
    if _CLIMBS.search(text) or text.strip() != text:
        raise InvalidSpec(field, value, "no /./ and no /../ in it, no blank at either end")
    return text


_PLACE = Kind(_path, _path)
_ROOTFS: Mapping[str, Kind] = {
    "volume": _PLACE,
    "size": size,
    "acl": flag,
    "idmap": matching(f"passthrough|{_RANGE}(?:;{_RANGE})*", "passthrough or u:CT:HOST:COUNT;g:CT:HOST:COUNT;..."),
    "mountoptions": listed(
        matching("discard|lazytime|noatime|nodev|noexec|nosuid", "of discard lazytime noatime nodev noexec nosuid")
    ),
    "quota": flag,
    "replicate": flag,
    "ro": flag,
    "shared": flag,
}


def allocate(storage: str, gib: float) -> str:
    """What asks for a new volume of ``gib`` GiB on ``storage``; 0 is a directory or dataset without a limit."""
    if type(gib) not in (int, float) or not 0 <= gib <= 1 << 20:
        raise InvalidSpec("size", gib, "GiB, 0 to 1048576")
    text = f"{gib:.6f}".rstrip("0").rstrip(".")
    return f"{names.storage(storage)}:{text}"


class Rootfs(Value, frozen=True, kw_only=True, omit_defaults=True):
    """The root file system. ``size`` in bytes is what PVE noted down, not a request; see :func:`allocate` for one."""

    kinds: ClassVar[Mapping[str, Kind]] = _ROOTFS
    bare: ClassVar[str] = "volume"
    label: ClassVar[str] = "rootfs"

    volume: str
    size: int | None = None
    acl: bool | None = None
    idmap: str | None = None
    mountoptions: tuple[str, ...] = ()
    quota: bool | None = None
    replicate: bool | None = None
    ro: bool | None = None
    shared: bool | None = None

    @property
    def kind(self) -> Literal["volume", "new", "device", "bind"]:
        """What ``volume`` is: one that exists, a request for a new one, a block device or a directory of the node."""
        if self.volume.startswith("/"):
            return "device" if self.volume.startswith("/dev/") else "bind"
        return "new" if _NEW.fullmatch(self.volume.partition(":")[2] or self.volume) else "volume"

    @property
    def storage(self) -> str | None:
        """The storage it is on, None for a path."""
        return None if self.volume.startswith("/") or ":" not in self.volume else self.volume.partition(":")[0]


class MountPoint(Rootfs, frozen=True, kw_only=True, omit_defaults=True):
    """``mpN``: a volume, device or directory of the node at ``mp`` in the container."""

    kinds: ClassVar[Mapping[str, Kind]] = {**_ROOTFS, "backup": flag, "keepattrs": flag, "mp": _PLACE}
    required: ClassVar[tuple[str, ...]] = ("mp",)
    label: ClassVar[str] = "mp"

    mp: str
    backup: bool | None = None
    keepattrs: bool | None = None


class Unused(Value, frozen=True, kw_only=True, omit_defaults=True):
    """``unusedN``: a volume that belongs to the container and is mounted nowhere."""

    kinds: ClassVar[Mapping[str, Kind]] = {"volume": _PLACE}
    bare: ClassVar[str] = "volume"
    label: ClassVar[str] = "unused"

    volume: str
