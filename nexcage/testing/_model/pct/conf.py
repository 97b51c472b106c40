"""A container's config as ``pct`` holds it in memory: checked on reading, with PVE's warnings, and written back.

The description and the environment are ordinary keys here, as in PVE: ``description`` and ``env``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from nexcage.testing._model.pct.options import MP, NET, ROOTFS, UNUSED, config_prop
from nexcage.testing._model.schema import (
    Prop,
    Refused,
    check_format,
    format_size,
    parse_bool,
    parse_properties,
    parse_size,
    print_properties,
)
from nexcage.tools.config import Config, Section, parse

__all__ = ["Conf", "Mount", "mounts", "parse_mount", "parse_net", "print_mount", "print_net", "read", "volume_keys"]

_ENV = "lxc.environment.runtime"
_RAW_KEYS = frozenset(
    "lxc." + key
    for key in (
        "apparmor.profile apparmor.allow_incomplete apparmor.allow_nesting apparmor.raw selinux.context include arch "
        "uts.name signal.halt signal.reboot signal.stop init.cmd init.cwd init.uid init.gid init.groups pty.max "
        "console.logfile console.path tty.max devtty.dir hook.autodev autodev kmsg mount.fstab mount.entry mount.auto "
        "rootfs.mount cap.drop cap.keep seccomp.profile seccomp.notify.proxy seccomp.notify.cookie idmap hook.pre-start "
        "hook.pre-mount hook.mount hook.start hook.stop hook.post-stop hook.clone hook.destroy hook.version log.level "
        "log.file start.auto start.delay start.order group environment environment.runtime environment.hooks "
        "sysctl.fs.mqueue sysctl.kernel.msgmax sysctl.kernel.msgmnb sysctl.kernel.msgmni sysctl.kernel.sem "
        "sysctl.kernel.shmall sysctl.kernel.shmmax sysctl.kernel.shmmni sysctl.kernel.shm_rmid_forced"
    ).split()
)
_RAW_REFUSED = {
    "lxc.rootfs.path": "lxc.rootfs.path is auto generated from rootfs",
    "lxc.rootfs.options": 'lxc.rootfs.options is not supported, please use mount point options in the "rootfs" key',
}


class Conf:
    """A config that a command may change before it writes it."""

    __slots__ = ("pending", "raw", "raw_pending", "snapshots", "values")

    def __init__(
        self,
        values: Mapping[str, str] | None = None,
        pending: Mapping[str, str] | None = None,
        snapshots: Mapping[str, Section] | None = None,
        raw: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.values: dict[str, str] = dict(values or {})
        self.pending: dict[str, str] = dict(pending or {})
        self.snapshots: dict[str, Section] = dict(snapshots or {})
        self.raw: tuple[tuple[str, str], ...] = raw

    def render(self) -> str:
        """The text PVE writes."""
        used = {mount.volume for mount in mounts(self.values) if mount.kind == "volume"}
        kept = {key: v for key, v in self.values.items() if not (key.startswith("unused") and v in used)}
        main = section(kept, self.raw)
        pending = section(self.pending) if self.pending else None
        return Config(main.values, main.description, main.raw, pending, self.snapshots).render()

    @property
    def lock(self) -> str | None:
        """The config lock."""
        return self.values.get("lock")


def section(values: Mapping[str, str], raw: tuple[tuple[str, str], ...] = ()) -> Section:
    """Values with description and environment put where the file has them."""
    rest = {key: value for key, value in values.items() if key not in ("description", "env")}
    env = values.get("env")
    lines = tuple((_ENV, part) for part in env.split("\0")) if env else ()
    return Section(rest, values.get("description", ""), lines + raw)


def _values(part: Section) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """The values of a section as keys, normalised, and the raw lines that are left."""
    values: dict[str, str] = {}
    for key, value in part.values.items():
        values[key] = _checked(key, value)[0]
    if part.description:
        values["description"] = part.description
    if not part.raw:
        return values, ()
    env = [value for key, value in part.raw if key == _ENV]
    if env:
        values["env"] = "\0".join(env)
    return values, tuple(entry for entry in part.raw if entry[0] != _ENV and _raw_error(entry[0]) is None)


def read(vmid: int, text: str) -> tuple[Conf, tuple[str, ...]]:
    """A config file and what PVE warns about it."""
    values, raw, pending, snapshots, warnings = _read(vmid, text)
    return Conf(values, pending, snapshots, raw), warnings


class _Parsed(NamedTuple):
    values: Mapping[str, str]
    raw: tuple[tuple[str, str], ...]
    pending: Mapping[str, str]
    snapshots: Mapping[str, Section]
    warnings: tuple[str, ...]


@lru_cache(4096)
def _read(vmid: int, text: str) -> _Parsed:
    config = parse(text)
    values, raw = _values(config.main)
    pending = _values(config.pending)[0] if config.pending is not None else {}
    warnings = tuple(_warnings(vmid, text)) if _suspect(config) else ()
    return _Parsed(values, raw, pending, config.snapshots, warnings)


def _suspect(config: Config) -> bool:
    sections = [config.main, *config.snapshots.values()]
    if config.pending is not None:
        sections.append(config.pending)
    return bool(config.broken) or any(
        any(_checked(key, value)[1] for key, value in part.values.items())
        or any(_raw_error(key) is not None for key, _ in part.raw)
        for part in sections
    )


_LINE = re.compile(r"([a-z][a-z_]*[0-9]*):\s*(.+?)\s*", re.ASCII)
_RAW_LINE = re.compile(r"(lxc\.[a-z0-9_.-]+)(?::|\s*=)\s*(.*?)\s*", re.ASCII)
_HEADER = re.compile(r"\[(pve:pending|[a-z][a-z0-9_-]+)\]\s*", re.IGNORECASE | re.ASCII)


def _warnings(vmid: int, text: str) -> Iterator[str]:
    """What the reader says, line by line."""
    pending = False
    for line in text.split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if header := _HEADER.fullmatch(line):
            pending = header[1].lower() == "pve:pending"
        elif found := _RAW_LINE.fullmatch(line):
            error = _raw_error(found[1])
            if error is not None:
                yield f"vm {vmid} - {found[1]}: {error}\n" if error else f"vm {vmid} - unable to parse config: {line}\n"
        elif found := _LINE.fullmatch(line):
            if found[1] == "delete" and not pending:
                yield f"vm {vmid} - property 'delete' is only allowed in [pve:pending]\n"
            elif error := _checked(found[1], found[2])[1]:
                yield f"vm {vmid} - unable to parse value of '{found[1]}' - {error}"
        else:
            yield f"vm {vmid} - unable to parse config: {line}\n"


def _raw_error(key: str) -> str | None:
    """None for a raw key that LXC may have, else why not; empty when PVE just does not know it."""
    if key in _RAW_KEYS or key.startswith(("lxc.cgroup.", "lxc.cgroup2.", "lxc.prlimit.", "lxc.net.")):
        return None
    return _RAW_REFUSED.get(key, "")


@lru_cache(16384)
def _checked(key: str, value: str) -> tuple[str, str]:
    """The value as PVE keeps it, and its complaint, which ends with a newline."""
    if key in ("description", "delete", "snapstate"):
        return value, ""
    prop = config_prop(key)
    if prop is None:
        return value, f"unknown setting '{key}'\n"
    if prop.kind == "boolean":
        word = parse_bool(value)
        return (word, "") if word is not None else (value, _wrong(prop, value))
    if prop.kind == "integer":
        return (str(int(value)), "") if re.fullmatch(r"[0-9]+", value) else (value, _wrong(prop, value))
    if prop.kind == "number":
        return value, "" if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value) else _wrong(prop, value)
    try:
        check_format(prop, value, "")
    except Refused as refused:
        return value, refused.text
    return value, ""


def _wrong(prop: Prop, value: str) -> str:
    return f"type check ('{prop.kind}') failed - got '{value}'\n"


# --- mount points and networks ----------------------------------------------------------------------------------------


class Mount(NamedTuple):
    """A rootfs, mount point or unused volume."""

    key: str
    volume: str
    options: Mapping[str, str]

    @property
    def kind(self) -> str:
        """volume, device or bind"""
        if not self.volume.startswith("/"):
            return "volume"
        return "device" if self.volume.startswith("/dev/") else "bind"

    @property
    def size(self) -> int | None:
        """The size that the config says."""
        return parse_size(self.options["size"]) if "size" in self.options else None


def _schema(key: str) -> Mapping[str, Prop]:
    return ROOTFS if key == "rootfs" else UNUSED if key.startswith("unused") else MP


def parse_mount(key: str, text: str) -> Mount:
    """One entry; :class:`Refused` with PVE's words when it is none."""
    options = parse_properties(_schema(key), text)
    return Mount(key, options["volume"], options)


def print_mount(mount: Mount) -> str:
    """As PVE writes it, the size in its largest exact unit."""
    options = dict(mount.options)
    options["volume"] = mount.volume
    if mount.size is not None:
        options["size"] = format_size(mount.size)
    return print_properties(_schema(mount.key), options)


def volume_keys(values: Mapping[str, str], unused: bool = False) -> list[str]:
    """The keys that name volumes, in PVE's order."""
    kinds = ("mp", "unused") if unused else ("mp",)
    found = ["rootfs"] if "rootfs" in values else []
    for kind in kinds:
        size = len(kind)
        numbers = sorted(int(key[size:]) for key in values if key.startswith(kind) and key[size:].isdigit())
        found += [f"{kind}{number}" for number in numbers]
    return found


def mounts(values: Mapping[str, str], unused: bool = False) -> list[Mount]:
    """Every mount point that can be read."""
    found: list[Mount] = []
    for key in volume_keys(values, unused):
        try:
            found.append(parse_mount(key, values[key]))
        except Refused:
            continue
    return found


def parse_net(text: str) -> dict[str, str]:
    """A network as a dict."""
    return parse_properties(NET, text)


def print_net(net: Mapping[str, str]) -> str:
    """As PVE writes it."""
    return print_properties(NET, net)
