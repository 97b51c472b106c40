"""The values inside PVE's options, ``name=eth0,bridge=vmbr0``: typed, checked without a node, and read back without loss.

Each kind is a struct. ``str(value)`` is PVE's text in the order in which PVE writes it, ``parse(text)`` the opposite; what
it does not know it keeps in ``more`` (or refuses, with ``strict``). Nothing in a value can end it: commas, line breaks and
other control characters are refused wherever they would begin something else.
"""

from __future__ import annotations

from nexcage.tools.values._kinds import size_bytes, size_text
from nexcage.tools.values._property import Value
from nexcage.tools.values.guest import Device, Features, Startup
from nexcage.tools.values.lists import joined, nameservers, split, tags
from nexcage.tools.values.net import Net
from nexcage.tools.values.volumes import MountPoint, Rootfs, Unused, allocate

__all__ = [
    "Device",
    "Features",
    "MountPoint",
    "Net",
    "Rootfs",
    "Startup",
    "Unused",
    "Value",
    "allocate",
    "joined",
    "nameservers",
    "size_bytes",
    "size_text",
    "split",
    "tags",
]
