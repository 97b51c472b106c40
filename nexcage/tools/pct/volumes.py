"""Volumes: their size, place and use. ``resize`` exits 0 though its late part failed: what it says counts."""

from __future__ import annotations

import re

import msgspec

from nexcage import names
from nexcage._core.command import Command
from nexcage.errors import InvalidInput, InvalidSpec
from nexcage.tools.pct.call import change, flags, number, read, volume_key
from nexcage.tools.pct.snapshots import limit
from nexcage.tools.values import size_text

__all__ = [
    "Usage",
    "df",
    "fsck",
    "fstrim",
    "migrate",
    "mount",
    "move_volume",
    "parse_usage",
    "rescan",
    "resize",
    "unmount",
]

_HEADER = re.compile(r"MP +Volume +Size +Used +Avail +Use% Path")
_ENTRY = re.compile(r"(\S.*?) +(\S+) +(\S+) +(\S+) +([0-9]+(?:\.[0-9]+)?) +", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{40}", re.ASCII)


class Usage(msgspec.Struct, frozen=True):
    """One line of ``df``; sizes as printed (``1.9G``), ``percent`` used."""

    key: str
    volume: str
    size: str
    used: str
    available: str
    percent: float
    path: str


def checked_digest(digest: str) -> str:
    """The SHA-1 of a config file's bytes in hexadecimal, as ``--digest`` takes it."""
    if type(digest) is not str or not _DIGEST.fullmatch(digest):
        raise InvalidSpec("digest", digest, "the SHA-1 of the config file, 40 hexadecimal digits")
    return digest


def resize(vmid: int, key: str, size: int, *, digest: str = "") -> Command[None]:
    """Grow a volume to ``size`` bytes; never relative, so that it can be repeated. AlreadyExists when it has that size."""
    if type(size) is not int or size < 1:
        raise InvalidSpec("size", size, "a number of bytes from 1")
    options = ("--digest", checked_digest(digest)) if digest else ()
    return change("resize", number(vmid), volume_key(key), *options, size_text(size), timeout=600.0, silent=True)


def move_volume(
    vmid: int,
    key: str,
    *,
    storage: str = "",
    target_vmid: int | None = None,
    target_key: str = "",
    delete: bool = False,
    bwlimit: int | None = None,
    digest: str = "",
) -> Command[None]:
    """Move a volume of a stopped container to another storage, or give it to another container.

    Without ``delete`` the old one stays as ``unusedN``.
    """
    if bool(storage) == (target_vmid is not None):
        raise InvalidInput("storage", storage, "either a storage or another container")
    words = [number(vmid), volume_key(key, unused=True)]
    words += [names.storage(storage)] if storage else []
    words += ["--target-vmid", number(target_vmid)] if target_vmid is not None else []
    words += ["--target-volume", volume_key(target_key, unused=True)] if target_key else []
    words += flags(delete=delete)
    words += ["--bwlimit", limit(bwlimit)] if bwlimit is not None else []
    words += ["--digest", checked_digest(digest)] if digest else []
    return change("move-volume", *words, timeout=6 * 3600.0)


def df(vmid: int) -> Command[tuple[Usage, ...]]:
    """How full the volumes are. A stopped container is mounted for it, so this waits for its lock."""
    return read(parse_usage, "df", number(vmid), timeout=120.0)


def parse_usage(text: str) -> tuple[Usage, ...]:
    """What ``df`` prints; its columns are as wide as what is in them. Raises ValueError on anything else."""
    header, *lines = text.splitlines() or [""]
    if not _HEADER.fullmatch(header):
        raise ValueError(f"not the header of df: {header[:80]!r}")
    volume, path = header.index("Volume"), header.index("Path")
    found: list[Usage] = []
    for line in lines:
        match = _ENTRY.fullmatch(line[volume:path])
        if match is None:
            raise ValueError(f"not a line of df: {line[:80]!r}")
        name, size, used, free, percent = match.groups()
        found.append(Usage(line[:volume].strip(), name, size, used, free, float(percent), line[path:]))
    return tuple(found)


def mount(vmid: int) -> Command[None]:
    """Mount its file systems on the node below ``/var/lib/lxc/VMID/rootfs``; sets the lock ``mounted``."""
    return change("mount", number(vmid), timeout=120.0)


def unmount(vmid: int) -> Command[None]:
    """Undo :func:`mount`."""
    return change("unmount", number(vmid), timeout=120.0)


def fsck(vmid: int, key: str = "rootfs", *, force: bool = False) -> Command[None]:
    """Check the file system of a stopped container's raw volume."""
    return change("fsck", number(vmid), "--device", volume_key(key), *flags(force=force), timeout=3600.0)


def fstrim(vmid: int, *, ignore_mountpoints: bool = False) -> Command[None]:
    """Give unused blocks back to the storage."""
    return change("fstrim", number(vmid), *flags(ignore_mountpoints=ignore_mountpoints), timeout=3600.0)


def rescan(vmid: int | None = None, *, dryrun: bool = False) -> Command[None]:
    """Find volumes that no config names and sizes that changed; of one container or of all of the node."""
    words = () if vmid is None else ("--vmid", number(vmid))
    return change("rescan", *words, *flags(dryrun=dryrun), timeout=600.0)


def migrate(
    vmid: int,
    target: str,
    *,
    restart: bool = False,
    timeout: int | None = None,
    storage: str = "",
    bwlimit: int | None = None,
) -> Command[None]:
    """Move it to another node of its cluster; a running one needs ``restart``, which stops it for as long as it takes.

    ``storage`` is where its volumes go there, ``timeout`` the seconds it gets to halt.
    """
    words = [number(vmid), names.node(target), *flags(restart=restart)]
    if timeout is not None:
        if not restart or type(timeout) is not int or not 1 <= timeout <= 86400:
            raise InvalidSpec("timeout", timeout, "whole seconds from 1 to 86400, with restart")
        words += ["--timeout", str(timeout)]
    words += ["--target-storage", names.storage(storage)] if storage else []
    words += ["--bwlimit", limit(bwlimit)] if bwlimit is not None else []
    return change("migrate", *words, timeout=12 * 3600.0)
