"""Worlds: the default cluster, in memory or on disk, and the one node of the recorded runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from nexcage.testing._model.files import REAL, SIM, DiskFiles, Files, MemoryFiles, SharedTree
from nexcage.testing._model.node import EFFECTS, SETTINGS, Node
from nexcage.testing._model.pve import DPKG, PACKAGES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ALPINE",
    "DEBIAN",
    "UBUNTU",
    "disk_node",
    "effects",
    "make_cluster",
    "make_disk_cluster",
    "populate",
    "restart",
]

ALPINE = "alpine-3.20-default_20240908_amd64.tar.xz"
DEBIAN = "debian-12-standard_12.7-1_amd64.tar.zst"
TEMPLATES: Mapping[str, Mapping[str, object]] = {
    ALPINE: {"ostype": "alpine", "init": "busybox"},
    DEBIAN: {"ostype": "debian", "ssh_keys": ["rsa", "ed25519", "ecdsa"]},
}
UBUNTU = "ubuntu-20.04-server-cloudimg-amd64.qcow2"
DISKS: Mapping[str, int] = {
    f"import/{UBUNTU}": 2_361_393_152,
    "template/iso/debian-12.7.0-amd64-netinst.iso": 661_651_456,
}
"""What virtual machines are made from, and its bytes."""
STORAGE_CFG = """\
dir: local
	path /var/lib/vz
	content rootdir,images,vztmpl,iso,snippets,backup,import

zfspool: local-zfs
	pool rpool/data
	sparse
	content rootdir,images
"""
_MEMINFO = "MemTotal:       65843868 kB\nMemFree:        41234567 kB\nMemAvailable:   52345678 kB\nSwapTotal:       8388604 kB\n"


def settings(*, seed: int = 0, pace: float = 1.0, **more: object) -> dict[str, object]:
    """What ``settings.json`` holds."""
    return {"seed": seed, "pace": pace, **more}


def populate(
    node: Node, *, nodes: Iterable[str], bridges: Iterable[str] = ("vmbr0",), standalone: bool = False
) -> None:
    """The node's own files: boot, memory, bridges, templates, pool, cluster membership."""
    files = node.files
    names = list(nodes)
    restart(node)
    files.write("/etc/hostname", f"{node.name}\n")
    files.write("/proc/meminfo", _MEMINFO)
    files.write(DPKG, "".join(f"Package: {name}\nVersion: {version}\n\n" for name, version in PACKAGES.items()))
    for bridge in bridges:
        files.write(f"/sys/class/net/{bridge}/mtu", "1500\n")
        files.write(f"/sys/class/net/{bridge}/operstate", "up\n")
    for path, size in DISKS.items():
        files.write(f"/var/lib/vz/{path}", json.dumps({"size": size}))
    for name, template in TEMPLATES.items():
        files.write(f"/var/lib/vz/template/cache/{name}", json.dumps(template))
    files.write(f"{SIM}/zfs.json", json.dumps({"rpool": {"type": "filesystem"}, "rpool/data": {"type": "filesystem"}}))
    text = _members(() if standalone else tuple(names))
    files.write("/etc/pve/.members", text.replace('"@"', f'"{node.name}"', 1))
    files.write(f"/etc/pve/nodes/{node.name}/lrm_status", "{}\n")


@lru_cache(maxsize=4)
def _members(names: tuple[str, ...]) -> str:
    """The text of ``.members`` with ``@`` for the node's own name; made once for all of them, as there may be thousands."""
    members: dict[str, Any] = {"nodename": "@", "version": 2}  # Any: JSON
    if names:
        members["cluster"] = {"name": "sim", "version": 1, "nodes": len(names), "quorate": 1}
        members["nodelist"] = {
            name: {"id": n, "online": 1, "ip": f"10.99.{n // 250}.{n % 250}"} for n, name in enumerate(names, start=1)
        }
    return json.dumps(members, indent=0) + "\n"


def restart(node: Node) -> None:
    """The node boots: new boot id, nothing runs."""
    files = node.files
    for vmid in node.running():
        node.end_container(vmid)
    for name in files.names("/proc"):
        if name.isdigit():
            files.remove(f"/proc/{name}")
    cgroups = (f"/sys/fs/cgroup/{name}" for name in files.names("/sys/fs/cgroup") if name not in ("lxc", "lxc.monitor"))
    for path in (*cgroups, "/run", f"{SIM}/due.json", f"{SIM}/abort"):
        files.remove(path)
    files.write(f"{SIM}/booted", repr(node.steady()))
    boot = node.uuid()
    files.write("/proc/sys/kernel/random/boot_id", f"{boot}\n")
    node.sockets_changed()
    files.stale("/proc/uptime")


def make_cluster(
    names: Iterable[str],
    *,
    clock: Callable[[], float],
    seed: int = 0,
    pace: float = 1.0,
    storage_cfg: str = STORAGE_CFG,
    **more: object,
) -> dict[str, Node]:
    """A cluster in memory: its nodes by name. The clock is seconds since 1970 and may be virtual."""
    shared = SharedTree()
    names = list(names)
    nodes = {
        name: Node(MemoryFiles(name, shared), name, clock=clock, random=Random(f"{seed}:{name}")) for name in names
    }
    for node in nodes.values():
        node.peers = nodes
    first = nodes[names[0]].files
    first.write(SETTINGS, json.dumps(settings(seed=seed, pace=pace, **more)))
    first.write("/etc/pve/storage.cfg", storage_cfg)
    for node in nodes.values():
        populate(node, nodes=names)
    return nodes


def disk_node(directory: Path | str, name: str, *, clock: Callable[[], float] = time.time) -> Node:
    """A node of a cluster on disk, with real containers where it stands on ground for them."""
    files = DiskFiles(f"{directory}/nodes/{name}/root")
    if os.path.exists(f"{files.root}{REAL}"):
        from nexcage.testing._model.real import RealNode, ground_of

        if (ground := ground_of(files.root)) is not None:
            return RealNode(files, name, clock=clock, random=Random(), ground=ground)
    return Node(files, name, clock=clock, random=Random())


def make_disk_cluster(
    directory: Path, names: Iterable[str], *, seed: int = 0, pace: float = 1.0, storage_cfg: str = STORAGE_CFG
) -> None:
    """A cluster on disk: ``DIR/cluster`` and ``DIR/nodes/NAME/root``, with pmxcfs's links in each node's ``etc/pve``."""
    from pathlib import Path

    names = list(names)
    directory = Path(directory)
    cluster = directory / "cluster"
    cluster.mkdir(parents=True, exist_ok=True)
    (cluster / "effects.jsonl").touch()
    (cluster / "settings.json").write_text(json.dumps(settings(seed=seed, pace=pace)))
    (cluster / "storage.cfg").write_text(storage_cfg)
    (cluster / ".vmlist").write_text('{\n"version": 1\n\n}\n')
    for name in names:
        (cluster / "nodes" / name / "lxc").mkdir(parents=True, exist_ok=True)
        (cluster / "nodes" / name / "qemu-server").mkdir(exist_ok=True)
        etc = directory / "nodes" / name / "root" / "etc" / "pve"
        etc.mkdir(parents=True, exist_ok=True)
        up = Path("../../../../../cluster")
        for link, target in (
            ("nodes", up / "nodes"),
            ("lxc", up / "nodes" / name / "lxc"),
            ("qemu-server", up / "nodes" / name / "qemu-server"),
            ("local", up / "nodes" / name),
            (".vmlist", up / ".vmlist"),
            ("storage.cfg", up / "storage.cfg"),
        ):
            if not (etc / link).is_symlink():
                (etc / link).symlink_to(target)
    for name in names:
        node = disk_node(directory, name)
        node.random.seed(f"{seed}:{name}")
        populate(node, nodes=names)
        for path in ("/run/lock/lxc", "/var/lib/lxc", "/sys/fs/cgroup/lxc", "/sys/fs/cgroup/lxc.monitor", "/tmp"):
            Path(f"{directory}/nodes/{name}/root{path}").mkdir(parents=True, exist_ok=True)
        assert isinstance(node.files, DiskFiles)
        node.files.commit()


def effects(files: Files) -> list[dict[str, Any]]:  # Any: JSON
    """Everything that changed something, in order: the lines of the log put together by call."""
    found: dict[int, dict[str, Any]] = {}
    for line in (files.read(EFFECTS) or "").splitlines():
        try:
            part = json.loads(line)
        except ValueError:
            continue  # the last line of a log that is being written
        entry = found.setdefault(part["seq"], {"changed": []})
        changed = entry.pop("changed") + part.pop("changed", [])
        entry.update(part)
        entry["changed"] = changed
    return list(found.values())
