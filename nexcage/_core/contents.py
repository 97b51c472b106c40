"""What a container is made from when it comes from the driver's machine: names by checksum, so that a journal can hold them."""

from __future__ import annotations

import re

import msgspec

from nexcage.errors import InvalidSpec

__all__ = ["Content", "gibibytes"]

_GIB = 1 << 30
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """A root file system and its config.json, as the node's cache has them. The engine sets it before a create begins.

    ``rootfs`` is the digest of a plain tar archive (``/var/lib/nexcage-oci/cache/sha256-HEX.tar`` on the node), ``config`` that of a
    config.json (``sha256-HEX.json`` there) whose ``root.path`` is ``rootfs``. ``size`` in bytes, unpacked. On Proxmox VE ``rootfs`` is the
    digest of the oci-archive that the container is made from, and there is no ``config``.
    """

    rootfs: str
    config: str = ""
    size: int = 0

    def __post_init__(self) -> None:
        for field, value in (("content.rootfs", self.rootfs), ("content.config", self.config)):
            if not _DIGEST.fullmatch(value) and (value or field == "content.rootfs"):
                raise InvalidSpec(field, value, "sha256: and 64 lower-case hex digits")


def gibibytes(size: int) -> int:
    """The disk for content of ``size`` bytes: room for it, a fifth more, and half a GiB."""
    return max(1, -(-(size * 6 // 5 + _GIB // 2) // _GIB))
