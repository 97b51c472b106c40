"""The rest of ``linux`` in config.json on LXC: namespaces, id maps, sysctl, hidden paths, clocks."""

from __future__ import annotations

import re

from msgspec import UNSET, UnsetType

from nexcage._core.bundle import Linux, Namespace, Personality, TimeOffset
from nexcage._core.bundle.flaws import at
from nexcage._core.bundle_plan.draft import Draft
from nexcage._core.bundle_plan.model import IdMap
from nexcage._core.bundle_plan.mounts import inside
from nexcage._core.bundle_plan.words import entry_word, single

__all__ = ["DEFAULT_MAP", "map_identity", "map_isolation"]

DEFAULT_MAP = (IdMap("u", 0, 100000, 65536), IdMap("g", 0, 100000, 65536))
"""What PVE gives an unprivileged container."""
_ALWAYS_NEW = frozenset(("mount", "pid", "network", "uts", "ipc", "cgroup"))
_JOINED = "PVE cannot put a container into an existing namespace"
_SYSCTL = re.compile(r"[a-z0-9_-]+(?:/[A-Za-z0-9_.:@-]+)+")
_IPC = frozenset(f"kernel/{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split())
_SECOND = 10**9  # nanoseconds
_PROC_MIXED = frozenset(("proc/sys", "proc/sysrq-trigger"))


def map_identity(draft: Draft, linux: Linux) -> None:
    """Sets what a user namespace and its maps make of the container; before everything that has ids."""
    maps = [("u", "uidMappings", linux.uid_mappings), ("g", "gidMappings", linux.gid_mappings)]
    kinds = {one.type for one in linux.namespaces or ()}
    draft.unprivileged = "user" in kinds or any(mapping for _, _, mapping in maps)
    if not draft.unprivileged:
        draft.option("unprivileged", "0")
        draft.warnings.append(
            "no user namespace is listed: the container is privileged (unprivileged: 0), and root in it is root of the node"
        )
        return
    draft.option("unprivileged", "1")
    draft.idmap = DEFAULT_MAP
    for kind, name, mapping in maps:
        for index, one in enumerate(mapping):
            _mapping(draft, f"/linux/{name}/{index}", IdMap(kind, one.container_id, one.host_id, one.size))


def _mapping(draft: Draft, pointer: str, one: IdMap) -> None:
    """``pct create`` unpacks for PVE's own map, before anybody can write ``lxc.idmap``: files would belong to nobody in another."""
    text = f"unprivileged: 1, lxc.idmap {one.kind} 0 100000 65536"
    if one in DEFAULT_MAP:
        draft.apply(pointer, text)
    elif one.host - one.container == DEFAULT_MAP[0].host and one.container + one.size <= DEFAULT_MAP[0].size:
        draft.near(pointer, text, "PVE maps 65536 ids in one piece")
    else:
        draft.refuse(pointer, "pct create unpacks root file systems for PVE's own map, 0 100000 65536, only")


def map_isolation(draft: Draft, linux: Linux) -> None:
    _namespaces(draft, linux)
    _cgroup(draft, linux)
    if linux.rootfs_propagation is not UNSET:
        _propagation(draft, linux.rootfs_propagation)
    for name, value in linux.sysctl.items():
        _sysctl(draft, at("/linux/sysctl", name), name, value)
    for index, path in enumerate(linux.masked_paths):
        _masked(draft, f"/linux/maskedPaths/{index}", path)
    for index, path in enumerate(linux.readonly_paths):
        _readonly(draft, f"/linux/readonlyPaths/{index}", path)
    if linux.mount_label:
        draft.refuse("/linux/mountLabel", "PVE's kernel confines by AppArmor; there is no SELinux policy")
    elif linux.mount_label is not UNSET:
        draft.apply("/linux/mountLabel", "nothing: the label is empty")
    if linux.intel_rdt is not UNSET:
        draft.refuse("/linux/intelRdt", "PVE and LXC do not place containers in resctrl groups")
    if linux.memory_policy is not UNSET:
        draft.refuse("/linux/memoryPolicy", "LXC sets no NUMA memory policy")
    if linux.personality is not UNSET:
        _personality(draft, linux.personality)
    if linux.time_offsets is not UNSET:
        _time(draft, "monotonic", linux.time_offsets.monotonic)
        _time(draft, "boottime", linux.time_offsets.boottime)
        if linux.time_offsets.monotonic is UNSET and linux.time_offsets.boottime is UNSET:
            draft.apply("/linux/timeOffsets", "nothing: no offset is given")


def _namespaces(draft: Draft, linux: Linux) -> None:
    if linux.namespaces is UNSET:
        draft.warnings.append("no namespaces are listed: PVE makes new ones of every kind but user and time")
        return
    kinds = {one.type for one in linux.namespaces}
    missing = sorted(_ALWAYS_NEW - kinds - {"cgroup"})
    if missing:
        said = f"{', '.join(missing)}: left out means the node's own, and PVE always makes a new one"
        joined = [f"{one.type}: {_JOINED}" for one in linux.namespaces if one.path]
        draft.refuse("/linux/namespaces", "; ".join((said, *joined)))
    else:
        for index, one in enumerate(linux.namespaces):
            _namespace(draft, f"/linux/namespaces/{index}", one, linux)
    if "cgroup" not in kinds:
        draft.warnings.append("no cgroup namespace is listed: PVE makes one all the same")


def _namespace(draft: Draft, pointer: str, one: Namespace, linux: Linux) -> None:
    if one.path:
        draft.refuse(pointer, f"{one.type}: {_JOINED}")
    elif one.type == "user":
        draft.apply(pointer, "unprivileged: 1")
    elif one.type != "time":
        draft.apply(pointer, f"PVE always makes a new {one.type} namespace")
    elif linux.time_offsets is not UNSET:
        draft.apply(pointer, "LXC makes one for lxc.time.offset")
    else:
        draft.near(pointer, "nothing", "LXC makes one only with offsets; without them it shows the same clocks")


def _cgroup(draft: Draft, linux: Linux) -> None:
    path = linux.cgroups_path
    if path is UNSET:
        return
    if path.startswith("/"):
        draft.refuse("/linux/cgroupsPath", "PVE fixes the cgroup of a container: lxc/VMID")
    elif path:
        draft.near("/linux/cgroupsPath", "lxc/VMID", "a relative path is the runtime's to place, and PVE fixes it")
    else:
        draft.apply("/linux/cgroupsPath", "nothing: the path is empty")


def _propagation(draft: Draft, kind: str) -> None:
    if kind in ("private", "slave"):
        how = "LXC keeps mounts of the container away from the node; later ones of the node do not arrive either"
        draft.near("/linux/rootfsPropagation", "LXC's own mount namespace", how)
    else:
        draft.refuse("/linux/rootfsPropagation", f"PVE does not let the root file system be {kind}")


def _sysctl(draft: Draft, pointer: str, name: str, value: str) -> None:
    path = _path(name)
    if path is None:
        draft.refuse(pointer, "it is not the name of a kernel parameter")
    elif not value or not single(value):
        draft.refuse(pointer, "the value cannot be written as one line")
    elif path in _IPC or path == "kernel/domainname" or path.startswith(("fs/mqueue/", "net/")):
        draft.parameter(pointer, path, value)
    else:
        draft.refuse(pointer, "it belongs to the whole node, not to a namespace of the container")


def _path(name: str) -> str | None:
    """Below /proc/sys: dots separate, unless a slash comes first (``net/ipv4/conf/eth0.5/forwarding``), as sysctl(8) reads them."""
    slash, dot = name.find("/"), name.find(".")
    path = name if slash >= 0 and (dot < 0 or slash < dot) else name.translate(str.maketrans("./", "/."))
    return path if _SYSCTL.fullmatch(path) and not {".", ".."} & set(path.split("/")) else None


def _masked(draft: Draft, pointer: str, path: str) -> None:
    """A file is hidden by /dev/null, a directory by an empty tmpfs; which it is shows when it is tried: the wrong one fails alone."""
    target = inside(path)
    word = entry_word(target) if target else None
    if word is None:
        draft.refuse(pointer, "the path cannot be written to a mount entry")
        return
    draft.line("lxc.mount.entry", f"/dev/null {word} none bind,optional 0 0")
    draft.line("lxc.mount.entry", f"tmpfs {word} tmpfs ro,optional 0 0")
    draft.near(
        pointer, f"lxc.mount.entry over {word}: /dev/null or an empty tmpfs", "LXC goes on when it cannot be mounted"
    )


def _readonly(draft: Draft, pointer: str, path: str) -> None:
    target = inside(path)
    word = entry_word(target) if target else None
    if target in _PROC_MIXED:
        draft.apply(pointer, "lxc.mount.auto = proc:mixed, read-only there")
    elif word is None:
        draft.refuse(pointer, "the path cannot be written to a mount entry")
    else:
        text = draft.line("lxc.mount.entry", f"{word} {word} none bind,ro,relative,optional 0 0")
        draft.near(pointer, text, "LXC goes on when it cannot be mounted")


def _personality(draft: Draft, one: Personality) -> None:
    if one.domain == "LINUX32":
        draft.set_line("/linux/personality/domain", "lxc.arch", "linux32", "PVE's own `arch` stays what it is")
    elif one.domain is not UNSET:
        draft.apply("/linux/personality/domain", "the default")
    elif not one.flags:
        draft.apply("/linux/personality", "nothing: no domain is given")
    for index in range(len(one.flags)):
        draft.refuse(f"/linux/personality/flags/{index}", "the specification defines no flags")


def _time(draft: Draft, clock: str, offset: TimeOffset | UnsetType) -> None:
    if not isinstance(offset, TimeOffset):
        return
    key = "lxc.time.offset.boot" if clock == "boottime" else "lxc.time.offset.monotonic"
    given = (("secs", offset.secs, "s"), ("nanosecs", offset.nanosecs, "ns"))
    for name, value, unit in given:
        if value is not UNSET and name == "nanosecs" and value >= _SECOND:
            draft.refuse(f"/linux/timeOffsets/{clock}/{name}", "it is a second or more")
        elif value is not UNSET:
            draft.set_line(f"/linux/timeOffsets/{clock}/{name}", key, f"{value}{unit}")
    if offset.secs is UNSET and offset.nanosecs is UNSET:
        draft.apply(f"/linux/timeOffsets/{clock}", "nothing: no offset is given")
