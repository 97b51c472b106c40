"""``linux`` of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from nexcage._core.bundle.kinds import IDMapping, Int64, Section, Strings, Texts, Uint32
from nexcage._core.bundle.resources import Resources
from nexcage._core.bundle.seccomp import Seccomp

__all__ = [
    "Device",
    "IntelRdt",
    "Linux",
    "MemoryPolicy",
    "Namespace",
    "NamespaceType",
    "NetDevice",
    "Personality",
    "TimeOffset",
    "TimeOffsets",
]

NamespaceType: TypeAlias = Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]


class Namespace(Section, frozen=True, kw_only=True):
    type: NamespaceType
    path: str | UnsetType = UNSET


class Device(Section, frozen=True, kw_only=True):
    """``type``: ``c`` and ``u`` character, ``b`` block, ``p`` a FIFO, which has no numbers."""

    type: Literal["c", "b", "u", "p"]
    path: str
    major: Int64 | UnsetType = UNSET
    minor: Int64 | UnsetType = UNSET
    file_mode: Annotated[int, Meta(ge=0, le=0o777)] | UnsetType = UNSET
    uid: Uint32 | UnsetType = UNSET
    gid: Uint32 | UnsetType = UNSET


class NetDevice(Section, frozen=True, kw_only=True):
    """``name``: what it is called inside; left out: as outside."""

    name: str | UnsetType = UNSET


class IntelRdt(Section, frozen=True, kw_only=True):
    clos_id: str | UnsetType = field(default=UNSET, name="closID")
    schemata: Strings = ()
    l3_cache_schema: str | UnsetType = UNSET
    mem_bw_schema: Annotated[str, Meta(pattern=r"^MB:[^\n]*\Z")] | UnsetType = UNSET
    enable_monitoring: bool | UnsetType = UNSET


class MemoryPolicy(Section, frozen=True, kw_only=True):
    mode: (
        Literal[
            "MPOL_DEFAULT",
            "MPOL_BIND",
            "MPOL_INTERLEAVE",
            "MPOL_WEIGHTED_INTERLEAVE",
            "MPOL_PREFERRED",
            "MPOL_PREFERRED_MANY",
            "MPOL_LOCAL",
        ]
        | UnsetType
    ) = UNSET
    nodes: str | UnsetType = UNSET
    flags: tuple[Literal["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"], ...] = ()


class Personality(Section, frozen=True, kw_only=True):
    domain: Literal["LINUX", "LINUX32"] | UnsetType = UNSET
    flags: Strings = ()


class TimeOffset(Section, frozen=True, kw_only=True):
    secs: Int64 | UnsetType = UNSET
    nanosecs: Uint32 | UnsetType = UNSET


class TimeOffsets(Section, frozen=True, kw_only=True):
    monotonic: TimeOffset | UnsetType = UNSET
    boottime: TimeOffset | UnsetType = UNSET


class Linux(Section, frozen=True, kw_only=True):
    """A namespace type that is not listed means the runtime's own one; ``seccomp`` and the sections after it are `UNSET` if left out.

    So are ``namespaces``: an empty list asks for all of the runtime's own.
    """

    namespaces: tuple[Namespace, ...] | UnsetType = UNSET
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    net_devices: Mapping[str, NetDevice] = {}
    cgroups_path: str | UnsetType = UNSET
    resources: Resources = field(default_factory=Resources)
    rootfs_propagation: Literal["private", "shared", "slave", "unbindable"] | UnsetType = UNSET
    sysctl: Texts = {}  # noqa: RUF012 (msgspec copies it)
    masked_paths: Strings = ()
    readonly_paths: Strings = ()
    mount_label: str | UnsetType = UNSET
    seccomp: Seccomp | UnsetType = UNSET
    intel_rdt: IntelRdt | UnsetType = UNSET
    memory_policy: MemoryPolicy | UnsetType = UNSET
    personality: Personality | UnsetType = UNSET
    time_offsets: TimeOffsets | UnsetType = UNSET
