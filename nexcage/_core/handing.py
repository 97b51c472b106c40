"""Whether Proxmox VE makes a container from an image itself, given as an oci-archive, or nexcage does as it does of bundles.

PVE reads images since pve-container 6.0.15 (9.1). It keeps the program as one text, which LXC splits again, and names and values in
lines of a config file: what cannot be written there without becoming something else is not for it (pve-commands 6.4, oci.md 3.2, 4.1).
"""

from __future__ import annotations

import re

from nexcage._core.bundle.image import ImageConfig, ImageSettings
from nexcage._core.spec import Spec
from nexcage.errors import InvalidName
from nexcage.names import signal

__all__ = ["reads_images", "wish", "wrong_for_pve"]

_SINCE = (6, 0, 15)
_WORD = re.compile(r"[ -&(-~]+")  # printable, without the quote that PVE puts around a word
_ENTRY = re.compile(r"[A-Za-z0-9_]+=(?:[\t -~]*[!-~])?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
_DIRECTORY = re.compile(r"/(?:[ -~]*[!-~])?")
_MAPPED = 65_535  # the highest id of an unprivileged container


def reads_images(version: str) -> bool:
    """Whether a node with this pve-container does."""
    found = re.match(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?", version)
    return found is not None and tuple(int(part or 0) for part in found.groups()) >= _SINCE


def wish(spec: Spec, *, strict_oci: bool) -> str:
    """What was asked for that only a container made as from a bundle has; empty when nothing."""
    if spec.gate:
        return "a gate was asked for"
    if spec.allow:
        return "properties may be dropped"
    return "strict OCI wants a process in what is created" if strict_oci else ""


def wrong_for_pve(image: ImageConfig) -> str:
    """What of it Proxmox VE would not keep exactly; empty when it keeps all."""
    said = image.config or ImageSettings()
    args = (*(said.entrypoint or ()), *(said.cmd or ()))
    if not args:
        return "it has no program"
    if args[0].startswith("/sbin/init") and args != ("/sbin/init",):
        return "its /sbin/init has arguments"
    if not all(map(_WORD.fullmatch, args)):
        return "an argument is empty, or has a quote or what is not printable"
    if not all(map(_ENTRY.fullmatch, said.env or ())):
        return "its environment has what a line cannot"
    if said.user and (not _USER.fullmatch(said.user) or any(map(_beyond, said.user.split(":")))):
        return "its user is none that Proxmox VE reads"
    if not all(map(_directory, (said.working_dir or "/", *(said.volumes or ())))):
        return "a directory of it is not absolute, or what a line cannot have"
    return "" if _is_signal(said.stop_signal) else "its stop signal is none"


def _beyond(id: str) -> bool:
    return id.isdecimal() and int(id) > _MAPPED


def _directory(path: str) -> bool:
    return _DIRECTORY.fullmatch(path) is not None and ".." not in path.split("/")


def _is_signal(name: str | None) -> bool:
    """As LXC writes it too: ``SIGQUIT``, ``SIGRTMIN+3`` or a number."""
    try:
        return not name or (signal(name) > 0 and name.startswith(("SIG", *"123456789")))
    except InvalidName:
        return False
