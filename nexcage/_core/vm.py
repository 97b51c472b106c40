"""What only a virtual machine has."""

from __future__ import annotations

import re

import msgspec

from nexcage.errors import InvalidSpec

__all__ = ["Vm"]

_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_CPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OSTYPES = "l24 l26 other solaris w2k w2k3 w2k8 win10 win11 win7 win8 wvista wxp".split()


class Vm(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a virtual machine is made, besides what every `nexcage.Spec` says.

    ``user`` is whom cloud-init gives the SSH keys to (None: the image's own). ``agent``: the guest runs the QEMU guest agent; a
    stop asks the agent then, and waits in vain where there is none. ``cpu`` is QEMU's name of a CPU type (None: PVE's default).
    """

    user: str | None = None
    agent: bool = False
    cpu: str | None = None
    ostype: str = "l26"

    def __post_init__(self) -> None:
        if self.user is not None and not (isinstance(self.user, str) and _USER.fullmatch(self.user)):
            raise InvalidSpec("vm.user", self.user, "a user name: 1 to 32 of a-z 0-9 _ and -, the first no digit")
        if not isinstance(self.agent, bool):
            raise InvalidSpec("vm.agent", self.agent, "True or False")
        if self.cpu is not None and not (isinstance(self.cpu, str) and _CPU.fullmatch(self.cpu)):
            raise InvalidSpec("vm.cpu", self.cpu, "a CPU type such as host or x86-64-v2-AES")
        if self.ostype not in _OSTYPES:
            raise InvalidSpec("vm.ostype", self.ostype, f"one of {', '.join(_OSTYPES)}")
