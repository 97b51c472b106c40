"""From what an image says of itself to a bundle's config.json (oci.md 4.3): pure, with the root file system's users as values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import cast

import msgspec

from nexcage import names
from nexcage._core.bundle import (
    Capabilities,
    Config,
    Cpu,
    DeviceRule,
    IDMapping,
    Linux,
    Memory,
    Mount,
    Namespace,
    Process,
    Resources,
    Root,
    User,
)
from nexcage._core.bundle.image import ImageConfig, ImageSettings
from nexcage._core.spec import UNSAID, Spec
from nexcage.errors import InvalidImage, InvalidName

__all__ = ["document", "encoded", "mapped", "told", "user"]

_VERSION = "1.0.2"  # nothing newer is used, and old runtimes know it
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
)
_MASKED = "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi".split()
_READONLY = "bus fs irq sys sysrq-trigger".split()
_NOT = ("nosuid", "noexec", "nodev")
_MOUNTS = (
    Mount(destination="/proc", type="proc", source="proc"),
    Mount(
        destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=65536k")
    ),
    Mount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    Mount(destination="/dev/shm", type="tmpfs", source="shm", options=(*_NOT, "mode=1777", "size=65536k")),  # noqa: S108
    Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=_NOT),
    Mount(destination="/sys", type="sysfs", source="sysfs", options=(*_NOT, "ro")),
    Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*_NOT, "relatime", "ro")),
)
_MIB = 1 << 20
_PERIOD = 100_000
_ID_MOST = 2**32 - 2


def document(id: str, image: ImageConfig, spec: Spec, who: User) -> Config:
    """The config.json of container ``id``: the image's program as ``who``, within the limits of ``spec``. Raises InvalidImage where there
    is no program.
    """
    said = image.config or ImageSettings()
    args = (*(said.entrypoint or ()), *(said.cmd or ()))
    if not args or not args[0]:
        raise InvalidImage("its config", "it has neither Entrypoint nor Cmd: there is nothing to run")
    own = _CAPABILITIES if who.uid == 0 else ()
    process = Process(
        args=args,
        cwd="/" + (said.working_dir or "").lstrip("/"),
        env=_env(said.env or ()),
        user=who,
        capabilities=Capabilities(bounding=_CAPABILITIES, permitted=own, effective=own),
        terminal=False,
    )
    return Config(
        oci_version=_VERSION,
        root=Root(path="rootfs"),
        process=process,
        hostname=_hostname(id, spec),
        mounts=_MOUNTS,
        annotations={**told(image), **spec.annotations},
        linux=Linux(
            namespaces=tuple(Namespace(type=kind) for kind in ("pid", "network", "ipc", "uts", "mount")),
            resources=_resources(spec),
            masked_paths=(*(f"/proc/{name}" for name in _MASKED), "/sys/firmware"),
            readonly_paths=tuple(f"/proc/{name}" for name in _READONLY),
        ),
    )


def mapped(config: Config) -> Config:
    """The same in a user namespace, with the ids that Proxmox VE gives unprivileged containers."""
    ids = (IDMapping(container_id=0, host_id=100_000, size=65_536),)
    linux = msgspec.structs.replace(
        config.linux,
        namespaces=(*(config.linux.namespaces or ()), Namespace(type="user")),
        uid_mappings=ids,
        gid_mappings=ids,
    )
    return msgspec.structs.replace(config, linux=linux)


def encoded(config: Config) -> bytes:
    """The document as runtimes read it: without sections that say nothing, which some take for a wish."""
    return msgspec.json.format(msgspec.json.encode(_said(msgspec.to_builtins(config))), indent=2)


def _said(value: object) -> object:
    if not isinstance(value, dict):
        return value
    said = {key: _said(inner) for key, inner in cast("dict[str, object]", value).items()}
    return {key: inner for key, inner in said.items() if inner != {}}


def _env(given: tuple[str, ...]) -> tuple[str, ...]:
    """Verbatim; only what a program cannot do without is added."""
    return given if any(entry.startswith("PATH=") for entry in given) else (_PATH, *given)


def _hostname(id: str, spec: Spec) -> str | msgspec.UnsetType:
    if spec.hostname:
        return spec.hostname
    try:
        return names.hostname(id)
    except InvalidName:
        return msgspec.UNSET


def _resources(spec: Spec) -> Resources:
    cpu = Cpu()
    cores = spec.cpulimit or spec.cores
    if cores:
        cpu = Cpu(quota=max(1000, round(cores * _PERIOD)), period=_PERIOD)
    if spec.cpuunits:
        # PVE's number is a weight of cgroup v2: the shares that runtimes turn into it.
        cpu = msgspec.structs.replace(cpu, shares=2 + (spec.cpuunits - 1) * 262_142 // 9_999)
    memory = Memory(limit=spec.memory * _MIB)
    if spec.swap != UNSAID["swap"]:
        memory = Memory(limit=spec.memory * _MIB, swap=(spec.memory + spec.swap) * _MIB)  # kernels may not count swap
    return Resources(devices=(DeviceRule(allow=False, access="rwm"),), memory=memory, cpu=cpu)


# ---- annotations -----------------------------------------------------------------------------------------------------------


def told(image: ImageConfig) -> Mapping[str, str]:
    """What an image tells of itself; its labels win."""
    said = image.config or ImageSettings()
    ours = {
        "os": image.os,
        "architecture": image.architecture,
        "variant": image.variant or "",
        "author": image.author or "",
        "created": image.created or "",
        "stopSignal": _signal(said.stop_signal or ""),
        "exposedPorts": ",".join(sorted(said.exposed_ports or ())),
    }
    found = {f"org.opencontainers.image.{key}": value for key, value in ours.items() if value}
    return {**found, **(said.labels or {})}


def _signal(given: str) -> str:
    """What is no signal is nobody's stop signal."""
    try:
        names.signal(given)
    except InvalidName:
        return ""
    return given


# ---- users -----------------------------------------------------------------------------------------------------------------


def user(given: str, passwd: bytes = b"", group: bytes = b"") -> User:
    """``USER``, ``UID``, ``USER:GROUP`` and their mixtures. Raises InvalidImage for a name that the root file system does not know.

    Only a user alone has supplementary groups: those that name it.
    """
    who, colon, of = given.partition(":")
    entry = _known(who, passwd) if who else None
    if who.isdecimal() and who.isascii():
        uid = _id(who, given)
    elif who:
        if entry is None:
            raise InvalidImage("its config", f"user {who!a} is not in the image's /etc/passwd")
        uid = _id(entry[2], given)
    else:
        uid = 0
        entry = _known("0", passwd)
    if colon and of:
        return User(uid=uid, gid=_group(of, group, given))
    gid = _id(entry[3], given) if entry else 0
    more = _member_of(entry[0], group, given) if entry else ()
    return User(uid=uid, gid=gid, additional_gids=tuple(sorted(set(more) - {gid})))


def _known(who: str, passwd: bytes) -> list[str] | None:
    """The line of a name, or else of a number: a name made of digits is a name."""
    lines = [fields for fields in _lines(passwd) if len(fields) >= 4]
    named = next((fields for fields in lines if fields[0] == who and not who.isdecimal()), None)
    return named or next(
        (fields for fields in lines if who.isdecimal() and fields[2] == who.lstrip("0").rjust(1, "0")), None
    )


def _group(given: str, group: bytes, whole: str) -> int:
    if given.isdecimal() and given.isascii():
        return _id(given, whole)
    for fields in _lines(group):
        if fields[0] == given and len(fields) >= 3:
            return _id(fields[2], whole)
    raise InvalidImage("its config", f"group {given!a} is not in the image's /etc/group")


def _member_of(name: str, group: bytes, whole: str) -> Iterator[int]:
    for fields in _lines(group):
        if len(fields) >= 4 and name in fields[3].split(","):
            yield _id(fields[2], whole)


def _lines(text: bytes) -> Iterator[list[str]]:
    for line in text.decode("utf-8", "replace").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip().split(":")


def _id(text: str, given: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _ID_MOST:
        raise InvalidImage("its config", f"user {given!a} is no id from 0 to {_ID_MOST}")
    return int(text)
