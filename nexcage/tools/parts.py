"""Which version of a part of Proxmox VE a node has, from the package manager's own file: `pveversion` says it too, for a second of CPU."""

from __future__ import annotations

import re

from nexcage._core.command import Command, Result
from nexcage.errors import InvalidInput

__all__ = ["PART", "part"]

PART = r"""sed -n "/^Package: $1\$/,/^\$/s/^Version: //p" "${NEXCAGE_NODE_ROOT-}/var/lib/dpkg/status" 2>/dev/null
echo '@nexcage end'
"""

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


def part(name: str) -> Command[str]:
    """The version of a package, ``6.1.10``; empty where it is not installed."""
    if not _NAME.fullmatch(name):
        raise InvalidInput("part", name, "the name of a package, such as pve-container")
    return Command(("sh", "-c", PART, "nexcage", name), _version, safe=True, weight="read", timeout=30.0)


def _version(result: Result) -> str:
    lines = result.stdout.decode("utf-8", "replace").splitlines()
    if lines[-1:] != ["@nexcage end"]:
        raise ValueError("it ends before its last line")
    return lines[-2].strip() if len(lines) > 1 else ""
