"""The model of PVE nodes and the pretend tools that work on it. ``TOOLS`` finds a tool by its program name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from nexcage.testing._model.tool import Tool

if TYPE_CHECKING:
    from nexcage.testing._model.node import Node

__all__ = ["ON_DISK", "TOOLS", "find_tool"]

_WHERE: dict[str, str] = {
    "pct": "pct:run",
    "qm": "qm:run",
    **{
        name: f"lxc:{name.replace('-', '_')}"
        for name in "lxc-info lxc-ls lxc-freeze lxc-unfreeze lxc-stop lxc-start lxc-destroy".split()
    },
    "lxc-attach": "attach:lxc_attach",
    "lxc-monitor": "monitor:lxc_monitor",
    **{name: f"zfs:{name}" for name in ("zfs", "zpool")},
    "crun": "oci:crun",
    "runc": "oci:runc",
    "pveversion": "pve:pveversion",
    "vzdump": "vzdump:vzdump",
    **{name: f"{name}:{name}" for name in "pvesm pveam pvesh".split()},
    **{name: f"host:{name}" for name in "kill df ip".split()},
    **{name: f"host:{name}_" for name in "true false echo cat sleep id uname hostname date which".split()},
    "nexcage-somebody": "others:somebody_",
    "sh": "shell:sh",
    "env": "shell:env",
}
ON_DISK = tuple(name for name in _WHERE if not _WHERE[name].startswith("shell:") and not _WHERE[name].endswith("_"))
"""The programs that a simulated node on disk puts on PATH; the others are the machine's own there."""


class _Tools(Mapping[str, Tool]):
    """Imports a tool when it is first looked up: each call of an executable pays only for its own."""

    def __init__(self) -> None:
        self._taught: dict[str, Tool] = {}

    def __getitem__(self, name: str) -> Tool:
        found = self._taught.get(name)
        if found is None:
            module, _, attribute = _WHERE[name].partition(":")
            found = self._taught[name] = cast("Tool", getattr(import_module(f"{__name__}.{module}"), attribute))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_WHERE)

    def __len__(self) -> int:
        return len(_WHERE)


TOOLS: Mapping[str, Tool] = _Tools()


def find_tool(node: Node, name: str) -> Tool | None:
    """A program on a node's PATH: what it was taught, else one of :data:`TOOLS`."""
    program = name.rpartition("/")[2]
    taught = node.taught.get(program)
    return taught if taught is not None else (TOOLS[program] if program in _WHERE else None)
