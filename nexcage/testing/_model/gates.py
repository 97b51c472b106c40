"""Containers that wait at the gate before their program. The tools as programs import it, so it imports no `nexcage.tools`."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.node import Node

__all__ = ["let_pass", "pass_gates", "stand", "waits"]

_ENTRY = re.compile(r"^lxc\.mount\.entry: (/\S+/inside) \.nexcage none bind", re.MULTILINE)


def _gate(node: Node, vmid: int) -> str:
    found = _ENTRY.search((node.config(vmid) or "").split("\n[")[0])
    return found[1] if found else ""


def waits(node: Node, vmid: int) -> bool:
    """Whether it is at its gate."""
    return node.is_running(vmid) and node.files.read(f"{SIM}/gate/{vmid}") == str(node.init_pid(vmid))


def stand(node: Node, vmid: int, pid: int) -> None:
    """It has just been started: one that has an init of the library waits, unless it was started before."""
    gate = _gate(node, vmid)
    if not gate or node.files.exists(f"{gate}/open"):
        return
    node.files.write(f"{SIM}/gate/{vmid}", str(pid))
    node.files.write(f"/proc/{pid}/comm", "nexcage-gate\n")
    if isinstance(node.files, DiskFiles):  # as scripts see it; what else the process has is written with the step
        root = node.files.root
        os.makedirs(f"{root}/proc/{pid}", exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(f"{root}{gate}/init", f"{root}/proc/{pid}/exe")


def pass_gates(node: Node) -> None:
    """Those that were let through run their program."""
    for name in node.files.names(f"{SIM}/gate"):
        gate = _gate(node, int(name))
        if not gate or node.files.exists(f"{gate}/open") or not waits(node, int(name)):
            let_pass(node, int(name))


def let_pass(node: Node, vmid: int) -> None:
    """It runs its program now, if the process that waited is still its init."""
    pid = node.files.read(f"{SIM}/gate/{vmid}")
    node.files.remove(f"{SIM}/gate/{vmid}")
    if pid is None or str(node.init_pid(vmid)) != pid:
        return
    node.files.write(f"/proc/{pid}/comm", "init\n")
    if isinstance(node.files, DiskFiles):
        with suppress(FileNotFoundError):
            os.unlink(f"{node.files.root}/proc/{pid}/exe")
    node.effect("process", str(vmid), f"passed {pid}")
