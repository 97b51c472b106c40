"""What other people do on a node: containers made, replaced and moved behind our back, tasks of theirs, and what fails for everybody.

Each function is one step, and nobody's effect: the log of effects has only what commands did.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nexcage.errors import InvalidInput
from nexcage.testing._model import storage, vms
from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Flock, Sleep, Steps, Unlock

__all__ = ["KINDS", "SOMEBODY", "WITH_GUEST", "act", "foreign", "migrate", "somebody_", "swap", "words"]

WITH_GUEST = frozenset({"busy", "ha-delay", "migrate", "rival", "swap"})
"""What is done to one container."""
KINDS = WITH_GUEST | {"clock-jump", "no-quorum", "quorum", "storage-free", "storage-full"}
SOMEBODY = "nexcage-somebody"
"""The program that is somebody else's task."""
_MARK = "#nexcage fleet="


def act(node: Node, kind: str, vmid: int, options: Mapping[str, object]) -> None:
    """``kind`` happens, with the options of a fault; ``busy`` is a process (`words`) and not for here."""
    with _nobody(node):
        match kind:
            case "rival":
                foreign(node, vmid, place=_text(options, "to"))
            case "swap":
                swap(node, vmid, mark=_text(options, "mark"), running=bool(options.get("running")))
            case "migrate":
                migrate(node, vmid, _text(options, "to"))
            case "ha-delay":
                node.files.write(f"{SIM}/ha/{vmid}", "started")
                node.files.write(f"{SIM}/ha-delay", repr(_number(options, "seconds", 20.0)))
            case "no-quorum" | "quorum":
                quorum(node, kind == "quorum")
                if kind == "no-quorum" and "seconds" in options:
                    node.later(_number(options, "seconds", 60.0), "quorum", 0, 0)
            case "storage-full" | "storage-free":
                fill(node, kind == "storage-full", _text(options, "storage"))
                if kind == "storage-full" and "seconds" in options:
                    node.later(_number(options, "seconds", 60.0), "storage-free", 0, 0)
            case "clock-jump":
                node.jump(_number(options, "seconds", 3600.0))
            case _:
                raise InvalidInput("fault", kind, f"one of {', '.join(sorted(KINDS))}")


@contextmanager
def _nobody(node: Node) -> Iterator[None]:
    outer, node.current = node.current, None
    try:
        yield
    finally:
        node.current = outer


def _text(options: Mapping[str, object], name: str) -> str:
    value = options.get(name, "")
    return value if isinstance(value, str) else ""


def _number(options: Mapping[str, object], name: str, otherwise: float) -> float:
    value = options.get(name, otherwise)
    return float(value) if isinstance(value, (int, float)) else otherwise


# --- containers -------------------------------------------------------------------------------------------------------


def foreign(node: Node, vmid: int, *, description: str = "", place: str = "") -> None:
    """A container of somebody else's, unless the VMID is taken; on the node ``place``, if given."""
    if node.guest_node(vmid) is not None:
        return
    there = node if place in ("", node.name) else peer(node, place)
    storages = storage.storages(there)
    pool = storages.get("local-zfs") or next(kind for kind in storages.values() if "rootdir" in kind.content)
    volume = storage.allocate(there, pool, vmid, 4 << 20)
    lines = [
        "arch: amd64",
        "hostname: theirs",
        "memory: 512",
        "ostype: debian",
        f"rootfs: {volume.id},size=4G",
        "swap: 512",
    ]
    there.write_config(vmid, "".join(f"{line}\n" for line in (*([description] if description else []), *lines)))
    _save(node, there)


def swap(node: Node, vmid: int, *, mark: str = "", running: bool = False) -> None:
    """Destroy the container, whatever its state, and make another one of that number (``mark="edited"``: with our mark, not quite)."""
    text = node.config(vmid)
    if text is None:
        return
    ours = next((line for line in text.split("\n") if line.startswith(_MARK)), "")
    node.end_container(vmid)
    for place in storage.storages(node).values():
        for volume in storage.of_guest(node, place, vmid) if "rootdir" in place.content else ():
            storage.free(node, volume)
    node.files.remove(f"/var/lib/lxc/{vmid}")
    node.remove_config(vmid)
    foreign(node, vmid, description=f"{ours}-2" if ours and mark == "edited" else "")
    if running:
        node.start_container(vmid)


def migrate(node: Node, vmid: int, to: str = "") -> None:
    """The container goes to another node (the next one by name) with its volumes; a running one is restarted there."""
    text, machine = node.config(vmid), vms.config(node, vmid)
    if text is None and machine is None:
        return
    others = [name for name in node.files.names("/etc/pve/nodes") if name != node.name]
    target = to or next((name for name in others if name > node.name), others[0] if others else "")
    if target not in others:
        raise InvalidInput("to", target, f"one of {', '.join(others) or 'no other node'}")
    if text is None:
        _migrate_machine(node, peer(node, target), vmid)
        return
    there, running, init = peer(node, target), node.is_running(vmid), node.files.read(f"{SIM}/init/{vmid}")
    node.end_container(vmid)
    _move_volumes(node, there, vmid)
    node.remove_config(vmid)
    there.write_config(vmid, text)
    if running:
        there.start_container(vmid, init or "systemd")
    _save(node, there)


def relocate(node: Node, vmid: int, to: str) -> None:
    """The HA manager moves it: it is stopped, and its new node starts it in a later round of its own."""
    running, init = node.is_running(vmid), node.files.read(f"{SIM}/init/{vmid}")
    wanted, delay = node.files.read(f"{SIM}/ha/{vmid}") or "started", node.files.read(f"{SIM}/ha-delay") or "10.0"
    node.end_container(vmid)
    migrate(node, vmid, to)
    there = peer(node, to)
    node.files.remove(f"{SIM}/ha/{vmid}")
    there.files.write(f"{SIM}/ha/{vmid}", wanted)
    there.files.write(f"{SIM}/ha-delay", delay)
    if running:
        there.later(float(delay) * node.pace, f"ha-start {init or 'systemd'}", vmid, 0)
    _save(node, there)


def _migrate_machine(node: Node, there: Node, vmid: int) -> None:
    """A virtual machine goes on running over there, as another process."""
    text, said = vms.config(node, vmid) or "", vms.status(node, vmid)
    vms.stop(node, vmid)
    _move_volumes(node, there, vmid)
    vms.remove_config(node, vmid)
    vms.write_config(there, vmid, text)
    if said != "stopped":
        vms.start(there, vmid, said=said)
    _save(node, there)


def _move_volumes(node: Node, there: Node, vmid: int) -> None:
    known, theirs = storage.datasets(node), storage.datasets(there)
    names = [name for name in known if f"vol-{vmid}-disk-" in name or f"/vm-{vmid}-" in name]
    theirs |= {name: known[name] for name in names}
    storage.save_datasets(there, theirs)
    storage.save_datasets(node, {name: known[name] for name in known if name not in names})
    for place in storage.storages(node).values():
        folder = f"{place.path}/images/{vmid}"
        for name in node.files.names(folder):
            inner = f"{folder}/{name}"
            for path in (inner, f"{inner}/.volume", f"{inner}/disk.raw"):
                content = node.files.read(path)
                if content is not None:
                    there.files.write(path, content)
        node.files.remove(folder)
    for name in names:
        there.files.write(f"/{name}/.volume", "")
        node.files.remove(f"/{name}")


def peer(node: Node, name: str) -> Node:
    """Another node of the cluster."""
    if name in node.peers:
        return node.peers[name]
    if not isinstance(node.files, DiskFiles):
        raise InvalidInput("to", name, f"one of {', '.join(node.peers)}")
    from nexcage.testing._model.world import disk_node

    return disk_node(os.path.dirname(os.path.dirname(os.path.dirname(node.files.root))), name, clock=node.steady)


def _save(node: Node, there: Node) -> None:
    """On disk each node commits its own files; the step of ``node`` commits its."""
    if there is not node and isinstance(there.files, DiskFiles):
        there.files.commit()


# --- for everybody ----------------------------------------------------------------------------------------------------


def quorum(node: Node, have: bool) -> None:
    """The node sees the majority of its cluster, or does not."""
    if have:
        node.files.remove(f"{SIM}/no-quorum")
    else:
        node.files.write(f"{SIM}/no-quorum", "")
    members = json.loads(node.files.read("/etc/pve/.members") or "{}")
    if "cluster" in members:
        members["cluster"]["quorate"] = int(have)
        node.files.write("/etc/pve/.members", json.dumps(members, indent=0) + "\n")


def fill(node: Node, full: bool, name: str = "") -> None:
    """Nothing more can be written to a storage (all of them), or again; ``run`` is /run, where claims are kept."""
    for one in (name,) if name else tuple(storage.storages(node)):
        if full:
            node.files.write(f"{SIM}/full/{one}", "")
        else:
            node.files.remove(f"{SIM}/full/{one}")
    if not full and not name:
        node.files.remove(f"{SIM}/full")


# --- a task of somebody else's ----------------------------------------------------------------------------------------


def words(vmid: int, options: Mapping[str, object]) -> tuple[str, ...]:
    """The task as a command: ``task`` (vzdump), ``lock`` (of the config), ``seconds``, ``dies`` (half-way, as by kill -9)."""
    task, lock = _text(options, "task") or "vzdump", _text(options, "lock") or "-"
    seconds = _number(options, "seconds", 30.0)
    return (SOMEBODY, str(vmid), task, lock, repr(seconds), "dies" if options.get("dies") else "ends")


def somebody_(ctx: Ctx) -> Steps:
    """Holds the container's flock and, if asked, its config lock, as a live task; dead, only the config lock stays."""
    number, kind, lock, seconds, end = ctx.argv[1:]
    node, vmid = ctx.node, int(number)
    path = f"/run/lock/lxc/pve-config-{vmid}.lock"
    task = node.begin_task(kind, vmid)
    held = yield Flock(path, 0.0)
    text = node.config(vmid)
    locked = lock != "-" and text is not None and not any(line.startswith("lock: ") for line in text.split("\n"))
    if locked:
        node.files.write(node.config_path(vmid), f"lock: {lock}\n{text}")
    yield Sleep(float(seconds))
    if end == "dies":
        return 137
    text = node.config(vmid)
    if locked and text is not None:
        node.files.write(node.config_path(vmid), text.replace(f"lock: {lock}\n", "", 1))
    node.end_task(task, "OK")
    if held:
        yield Unlock(path)
    return 0
