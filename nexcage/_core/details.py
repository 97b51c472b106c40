"""What the config of one guest says beyond what every look needs: settings, snapshots, and the digest that tells versions apart."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

__all__ = ["MIB", "Details", "Snap", "mebibytes"]

MIB = 1 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DISK = re.compile(r"rootfs|mp[0-9]{1,3}|unused[0-9]{1,3}")
_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?([KMGT]?)")


class Snap(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """One snapshot of a guest. ``at`` in Unix seconds, ``parent`` the one before it. ``state`` is empty when it is whole, ``prepare``
    while it is made and ``delete`` while it goes. ``op``: the operation of ours that made it.
    """

    name: str
    at: int = 0
    parent: str = ""
    description: str = ""
    state: str = ""
    op: str = ""

    @classmethod
    def said(cls, op: str, description: str) -> str:
        """The description that a snapshot made by ``op`` carries."""
        return f"{description}\nnexcage op={op}" if description else f"nexcage op={op}"

    @classmethod
    def read(cls, name: str, values: Mapping[str, str], said: str) -> Snap:
        """From the section of the config that keeps it."""
        lines = said.rstrip("\n").split("\n")
        ours = [line.removeprefix("nexcage op=") for line in lines if line.startswith("nexcage op=")]
        text = "\n".join(line for line in lines if not line.startswith("nexcage op="))
        at = values.get("snaptime", "")
        return cls(
            name,
            int(at) if at.isascii() and at.isdigit() and len(at) < 15 else 0,
            values.get("parent", ""),
            text,
            values.get("snapstate", ""),
            ours[0] if len(ours) == 1 else "",
        )


class Details(msgspec.Struct, gc=False, frozen=True):
    """``values``: the settings as they will be after the next start, in PVE's spelling; ``pending`` those of them that wait for it.
    ``digest`` is the SHA-1 of the file, what `Update.digest` is compared with. ``parent``: the snapshot it comes from.
    """

    digest: str
    values: Mapping[str, str]
    pending: tuple[str, ...] = ()
    description: str = ""
    snapshots: Mapping[str, Snap] = {}
    beside: bool = False
    """Of what was saved: its config names files that a node had beside it, as of one that was made from a bundle."""

    @property
    def parent(self) -> str:
        return self.values.get("parent", "")

    def size(self, disk: str) -> int | None:
        """Bytes of ``rootfs`` or ``mpN``; None where there is no such disk, or it has no size (a bind mount)."""
        value = self.values.get(disk)
        words = [word.removeprefix("size=") for word in (value or "").split(",") if word.startswith("size=")]
        return mebibytes(words[0], exact=True) if words else None

    def storage(self, disk: str) -> str:
        """The storage that its volume lies on; empty for none."""
        source = self.values.get(disk, "").split(",")[0].removeprefix("volume=")
        return source.partition(":")[0] if ":" in source and not source.startswith("/") else ""

    def shares(self, vmid: int) -> bool:
        """Whether one of its disks is a linked copy of a disk of the template ``vmid``."""
        found = re.compile(rf"[:/]base(?:vol)?-{vmid}-[^,]*/")
        return any(found.search(value) for key, value in self.values.items() if _DISK.fullmatch(key))


def mebibytes(word: str, *, exact: bool = False) -> int | None:
    """Bytes of ``1.5G``, rounded up to whole MiB unless ``exact``; None for what is no size."""
    match = _SIZE.fullmatch(word)
    if match is None:
        return None
    unit = _UNITS[match[3]]
    size = int(match[1]) * unit + (int(match[2]) * unit // 10 ** len(match[2]) if match[2] else 0)
    return size if exact else -(-size // MIB) * MIB
