"""``linux.resources`` of config.json: the limits of a cgroup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from nexcage._core.bundle.kinds import Int64, Section, Texts, Uint16, Uint32, Uint64

__all__ = [
    "BlockIO",
    "Cpu",
    "DeviceRule",
    "Hugepages",
    "InterfacePriority",
    "Memory",
    "Network",
    "Pids",
    "Rdma",
    "Resources",
    "Throttle",
    "WeightDevice",
]


class DeviceRule(Section, frozen=True, kw_only=True):
    allow: bool
    type: str | UnsetType = UNSET
    major: Int64 | UnsetType = UNSET
    minor: Int64 | UnsetType = UNSET
    access: str | UnsetType = UNSET


class Pids(Section, frozen=True, kw_only=True):
    limit: Int64


class WeightDevice(Section, frozen=True, kw_only=True):
    major: Int64
    minor: Int64
    weight: Uint16 | UnsetType = UNSET
    leaf_weight: Uint16 | UnsetType = UNSET


class Throttle(Section, frozen=True, kw_only=True):
    major: Int64
    minor: Int64
    rate: Uint64 | UnsetType = UNSET


class BlockIO(Section, frozen=True, kw_only=True):
    weight: Uint16 | UnsetType = UNSET
    leaf_weight: Uint16 | UnsetType = UNSET
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[Throttle, ...] = ()
    throttle_write_bps_device: tuple[Throttle, ...] = ()
    throttle_read_iops_device: tuple[Throttle, ...] = field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[Throttle, ...] = field(default=(), name="throttleWriteIOPSDevice")


class Cpu(Section, frozen=True, kw_only=True):
    shares: Uint64 | UnsetType = UNSET
    quota: Int64 | UnsetType = UNSET
    burst: Uint64 | UnsetType = UNSET
    period: Uint64 | UnsetType = UNSET
    realtime_runtime: Int64 | UnsetType = UNSET
    realtime_period: Uint64 | UnsetType = UNSET
    cpus: str | UnsetType = UNSET
    mems: str | UnsetType = UNSET
    idle: Int64 | UnsetType = UNSET


class Hugepages(Section, frozen=True, kw_only=True):
    page_size: Annotated[str, Meta(pattern=r"^[1-9][0-9]*[KMG]B\Z")]
    limit: Uint64


class Memory(Section, frozen=True, kw_only=True):
    """``swap`` is memory plus swap; -1 in any of them means without a limit."""

    limit: Int64 | UnsetType = UNSET
    reservation: Int64 | UnsetType = UNSET
    swap: Int64 | UnsetType = UNSET
    kernel: Int64 | UnsetType = UNSET
    kernel_tcp: Int64 | UnsetType = field(default=UNSET, name="kernelTCP")
    swappiness: Uint64 | UnsetType = UNSET
    disable_oom_killer: bool | UnsetType = field(default=UNSET, name="disableOOMKiller")
    use_hierarchy: bool | UnsetType = UNSET
    check_before_update: bool | UnsetType = UNSET


class InterfacePriority(Section, frozen=True, kw_only=True):
    name: str
    priority: Uint32


class Network(Section, frozen=True, kw_only=True):
    class_id: Uint32 | UnsetType = field(default=UNSET, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(Section, frozen=True, kw_only=True):
    hca_handles: Uint32 | UnsetType = UNSET
    hca_objects: Uint32 | UnsetType = UNSET


class Resources(Section, frozen=True, kw_only=True):
    devices: tuple[DeviceRule, ...] = ()
    memory: Memory = field(default_factory=Memory)
    cpu: Cpu = field(default_factory=Cpu)
    pids: Pids | UnsetType = UNSET
    block_io: BlockIO = field(default_factory=BlockIO, name="blockIO")
    hugepage_limits: tuple[Hugepages, ...] = ()
    network: Network = field(default_factory=Network)
    rdma: Mapping[str, Rdma] = {}
    unified: Texts = {}  # noqa: RUF012 (msgspec copies it)
