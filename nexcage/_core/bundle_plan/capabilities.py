"""``process.capabilities`` on LXC. LXC knows one bounding set (``lxc.cap.keep``); the init shim makes all five sets exact."""

from __future__ import annotations

from msgspec import UNSET

from nexcage._core.bundle import Process
from nexcage._core.bundle_plan.draft import Draft

__all__ = ["KNOWN", "map_capabilities"]

KNOWN: tuple[str, ...] = tuple(
    """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()
)
"""In the kernel's order: the place is the number."""
_BIT = {f"CAP_{name}": number for number, name in enumerate(KNOWN)}
_BASE = "/process/capabilities"
_SHIM = ("CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID")  # what the shim needs itself; it drops them with the rest


def map_capabilities(draft: Draft, process: Process) -> tuple[int, int, int, int, int] | None:
    """Writes the widest set for LXC and answers the exact ones for the shim.

    LXC refuses ``keep`` beside ``drop``, and its own configuration has ``drop`` lines: so they are emptied first.
    """
    given = process.capabilities
    if given is UNSET:
        draft.warnings.append("no capabilities are given: the container has those that LXC gives by default")
        return None
    sets = (given.bounding, given.permitted, given.effective, given.inheritable, given.ambient)
    held = {name for names in sets for name in names if name in _BIT} | set(_SHIM)
    draft.line("lxc.cap.drop", "")
    draft.line("lxc.cap.keep", " ".join(sorted(name.removeprefix("CAP_").lower() for name in held)))
    if not any(sets):
        draft.apply(_BASE, "init shim: all sets empty")
    for name, names in zip(("bounding", "permitted", "effective", "inheritable", "ambient"), sets, strict=True):
        _told(draft, name, names)
    bounding, permitted, effective, inheritable, ambient = map(_mask, sets)
    return bounding, permitted, effective, inheritable, ambient


def _mask(names: tuple[str, ...]) -> int:
    return sum(1 << bit for bit in {_BIT[name] for name in names if name in _BIT})


def _told(draft: Draft, name: str, names: tuple[str, ...]) -> None:
    """One that does not exist cannot be granted: the specification wants a warning for that, not an error."""
    unknown = [index for index, one in enumerate(names) if one not in _BIT]
    for index in unknown:
        draft.warnings.append(f"capability {names[index]!a} is not known: it is not granted")
        draft.near(f"{_BASE}/{name}/{index}", "nothing", "it is not known, so it is not granted")
    text = f"lxc.cap.keep and init shim: the {name} set"
    if names and not unknown:
        draft.apply(f"{_BASE}/{name}", text)
    elif unknown:
        for index in (index for index in range(len(names)) if index not in unknown):
            draft.apply(f"{_BASE}/{name}/{index}", text)
