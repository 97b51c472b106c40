"""The document of ``exec --process FILE``, for containers that no runtime of this machine has: what can be said to them of it."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from nexcage import InvalidInput, InvalidPath

__all__ = ["Process", "process_of"]

_LARGEST = 1 << 20


class User(msgspec.Struct, frozen=True, rename="camel"):
    """Who runs it."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()


class Process(msgspec.Struct, frozen=True, rename="camel"):
    """What is to run. The other fields are recognised by their presence."""

    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    terminal: bool = False

    def asked(self) -> dict[str, Any]:  # Any: keywords of Container.exec
        """The keywords; the document says all of them."""
        pairs = (entry.partition("=") for entry in self.env)
        return {
            "env": {name: value for name, _, value in pairs},
            "cwd": self.cwd,
            "user": f"{self.user.uid}:{self.user.gid}",
        }


def process_of(path: str) -> Process:
    """Read it; raises InvalidInput for what is none, and for what cannot be honoured."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidPath("process", path, f"a file that can be read ({why})") from None
    try:
        process = msgspec.json.decode(data, type=Process)
        said = msgspec.json.decode(data, type=dict[str, Any])  # Any: a document of somebody else's
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("process", path, f"a process document ({error})") from None
    if process.terminal:
        raise InvalidInput("process.terminal", True, "only with crun or runc on this machine; else --tty")
    refused = [key for key in _CANNOT if said.get(key)]
    if refused or process.user.additional_gids:
        field = refused[0] if refused else "user.additionalGids"
        raise InvalidInput(f"process.{field}", "given", "only with crun or runc on this machine")
    if not process.args:
        raise InvalidInput("process.args", [], "at least the program")
    return process


_CANNOT = (
    *("capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel"),
    *("oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity"),
)
