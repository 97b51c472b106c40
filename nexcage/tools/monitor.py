"""``lxc-monitor``: what becomes of a node's containers, as it happens (pve-commands 3.3).

Only containers that run or ran say something: nothing is heard of one that PVE makes, moves or destroys. Lines are hints: that a
container has changed, not what it is now.
"""

from __future__ import annotations

import re

import msgspec

from nexcage._core.command import Command, nothing

__all__ = ["Change", "Lines", "change", "monitor"]

_LINE = re.compile(
    rb"'([1-9][0-9]{2,8})' (?:changed state to \[([A-Z]{1,16})\]|exited with status \[([0-9]{1,10})\])\r?"
)
_LONGEST = 4096  # of a line; what is longer is not from lxc-monitor


class Change(msgspec.Struct, frozen=True):
    """One line: the state that a container has entered, or the exit status of its init (0 when a signal ended it)."""

    vmid: int
    state: str = ""
    exit: int | None = None


def monitor() -> Command[None]:
    """Prints a line for each change of any container until it is ended. It starts ``lxc-monitord`` where none runs."""
    return Command(("lxc-monitor", "-n", ".*"), nothing, safe=True, weight="read")


def change(line: bytes) -> Change | None:
    """What a line says; None for one that says nothing about a container with a VMID."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    return Change(int(found[1]), (found[2] or b"").decode("ascii"), None if found[3] is None else int(found[3]))


class Lines:
    """Whole lines out of what comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) <= _LONGEST else b""
        return lines
