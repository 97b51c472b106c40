"""nexcage: containers on Proxmox VE as state machines, on this machine or on many nodes over SSH.

Everything public is exported here and imported when it is first used, so that ``import nexcage`` costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexcage._core.command import Command as Command
    from nexcage._core.command import Result as Result

_HOME: dict[str, str] = {
    "nexcage._core.command": "Command Result number shown text",
    "nexcage._core.events": "Attempted Began Failed Interrupted NodeFound NodeLost Observed Problem Succeeded",
    "nexcage._core.intents": "Create Delete Intent Kill Pause Resume Start Stop",
    "nexcage._core.machine": "Checkpointed Event Machine fold",
    "nexcage._core.oci": "OciState",
    "nexcage._core.seen": "Guest Look Mark Task",
    "nexcage._core.spec": "Net Spec",
    "nexcage._core.states": "Op State",
    "nexcage.abc": "Ref",
    "nexcage.errors": "NexcageError",
}
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name in _WHERE:
        from importlib import import_module

        value = getattr(import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'nexcage' has no attribute {name!r}")
