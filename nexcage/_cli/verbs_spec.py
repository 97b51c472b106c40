"""``nexcage spec``: the config.json that a bundle begins with, as ``runc spec`` writes it."""

from __future__ import annotations

import json
import os
from typing import Any

from nexcage import InvalidPath, NexcageError
from nexcage._cli.parser import Call

__all__ = ["document", "spec"]

Json = dict[str, Any]  # Any: whatever JSON can say

# Nothing in the document is newer, and every runtime takes it.
_VERSION = "1.0.2"
_KEPT = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MASKED = "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug"
_READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


def spec(call: Call) -> int:
    """Write it; a file that is there is never overwritten."""
    if call.words:
        raise call.usage(f"does not take the word {call.words[0]!a}")
    bundle = call.text("bundle") or "."
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    made = document(rootless=call.flag("rootless"), uid=os.geteuid(), gid=os.getegid(), unified=unified)
    if not os.path.isdir(bundle):
        raise InvalidPath("bundle", bundle, "an existing directory")
    path = os.path.join(bundle, "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except FileExistsError:
        raise NexcageError("File config.json exists. Remove it first") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(json.dumps(made, indent="\t"))
    return 0


def document(*, rootless: bool, uid: int = 0, gid: int = 0, unified: bool = True) -> Json:
    """A starter config.json; ``rootless`` for a container of the user ``uid``; ``unified``: the machine has cgroup v2 only."""
    spaces = ["pid", *(() if rootless else ("network",)), "ipc", "uts", "mount"]
    spaces += [*(("cgroup",) if unified else ()), *(("user",) if rootless else ())]
    linux: Json = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in spaces],
        "maskedPaths": [*_MASKED.split(), "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": _READ_ONLY.split(),
    }
    if rootless:
        linux = {
            "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
            **{key: value for key, value in linux.items() if key != "resources"},
        }
    return {
        "ociVersion": _VERSION,
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": _mounts(rootless=rootless),
        "linux": linux,
    }


def _process() -> Json:
    kept = {kind: list(_KEPT) for kind in ("bounding", "effective", "permitted", "ambient")}
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": kept,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _mounts(*, rootless: bool) -> list[Json]:
    tight = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    # A user who is alone in his user namespace has no group of the terminals, and may not mount a sysfs of a foreign network.
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", pts if rootless else [*pts, "gid=5"]),
        _mount("/dev/shm", "tmpfs", "shm", [*tight, "mode=1777", "size=65536k"]),  # noqa: S108 (inside of the container)
        _mount("/dev/mqueue", "mqueue", "mqueue", tight),
        _mount("/sys", "none", "/sys", ["rbind", *tight, "ro"])
        if rootless
        else _mount("/sys", "sysfs", "sysfs", [*tight, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*tight, "relatime", "ro"]),
    ]


def _mount(destination: str, type: str, source: str, options: list[str]) -> Json:
    return {"destination": destination, "type": type, "source": source, "options": options}
