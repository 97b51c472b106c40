"""The validators: each takes one value of any type and gives the checked value or raises ``nexcage.InvalidInput``.

What reaches a command line, a config file or a path on a node has passed one of these. They are pure and look at text
with ``fullmatch`` and ASCII classes only, so a trailing newline, a look-alike letter or another script's digit never
slips through. The error's ``field`` is the validator's name, ``value`` what was given, ``reason`` what is allowed. Text
comes back as a plain ``str`` and numbers as a plain ``int``, whatever subclass came in; bytes are refused.
"""

from __future__ import annotations

from nexcage.names._image import ImageRef, image
from nexcage.names._mount import Mount, mount
from nexcage.names._paths import env, path
from nexcage.names._signals import signal
from nexcage.names._words import backend, container_id, dataset, hostname, node, op_id, snapshot, storage, tag, vmid

__all__ = [
    "ImageRef",
    "Mount",
    "backend",
    "container_id",
    "dataset",
    "env",
    "hostname",
    "image",
    "mount",
    "node",
    "op_id",
    "path",
    "signal",
    "snapshot",
    "storage",
    "tag",
    "vmid",
]
