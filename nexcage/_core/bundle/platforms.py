"""Sections of config.json for platforms other than Linux: nexcage honours none of them, so only their presence and types matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType, field

from nexcage._core.bundle.kinds import Section, Strings, Uint8, Uint16, Uint32, Uint64

__all__ = ["ZOS", "FreeBSD", "Solaris", "VirtualMachine", "Windows"]

_Sharing: TypeAlias = Literal["disable", "new", "inherit"] | UnsetType
_Shared: TypeAlias = Literal["new", "inherit"] | UnsetType


class JailAllow(Section, frozen=True, kw_only=True):
    set_hostname: bool | UnsetType = UNSET
    raw_sockets: bool | UnsetType = UNSET
    chflags: bool | UnsetType = UNSET
    mount: Strings = ()
    quotas: bool | UnsetType = UNSET
    socket_af: bool | UnsetType = UNSET
    mlock: bool | UnsetType = UNSET
    reserved_ports: bool | UnsetType = UNSET
    suser: bool | UnsetType = UNSET


class Jail(Section, frozen=True, kw_only=True):
    parent: str | UnsetType = UNSET
    host: _Shared = UNSET
    ip4: _Sharing = UNSET
    ip4_addr: Strings = field(default=(), name="ip4Addr")
    ip6: _Sharing = UNSET
    ip6_addr: Strings = field(default=(), name="ip6Addr")
    vnet: _Shared = UNSET
    interface: str | UnsetType = UNSET
    vnet_interfaces: Strings = ()
    sysvmsg: _Sharing = UNSET
    sysvsem: _Sharing = UNSET
    sysvshm: _Sharing = UNSET
    enforce_statfs: Uint8 | UnsetType = UNSET
    allow: JailAllow | UnsetType = UNSET


class FreeBSDDevice(Section, frozen=True, kw_only=True):
    path: str | UnsetType = UNSET
    mode: Annotated[int, Meta(ge=0, le=0o777)] | UnsetType = UNSET


class FreeBSD(Section, frozen=True, kw_only=True):
    devices: tuple[FreeBSDDevice, ...] = ()
    jail: Jail | UnsetType = UNSET


class ZOSNamespace(Section, frozen=True, kw_only=True):
    type: Literal["mount", "pid", "uts", "ipc"]
    path: str | UnsetType = UNSET


class ZOS(Section, frozen=True, kw_only=True):
    namespaces: tuple[ZOSNamespace, ...] = ()


class CappedCPU(Section, frozen=True, kw_only=True):
    ncpus: str | UnsetType = UNSET


class CappedMemory(Section, frozen=True, kw_only=True):
    physical: str | UnsetType = UNSET
    swap: str | UnsetType = UNSET


class Anet(Section, frozen=True, kw_only=True):
    linkname: str | UnsetType = UNSET
    lower_link: str | UnsetType = UNSET
    allowed_address: str | UnsetType = UNSET
    configure_allowed_address: str | UnsetType = UNSET
    defrouter: str | UnsetType = UNSET
    mac_address: str | UnsetType = UNSET
    link_protection: str | UnsetType = UNSET


class Solaris(Section, frozen=True, kw_only=True):
    milestone: str | UnsetType = UNSET
    limitpriv: str | UnsetType = UNSET
    max_shm_memory: str | UnsetType = UNSET
    capped_cpu: CappedCPU | UnsetType = field(default=UNSET, name="cappedCPU")
    capped_memory: CappedMemory | UnsetType = UNSET
    anet: tuple[Anet, ...] = ()


class Hypervisor(Section, frozen=True, kw_only=True):
    path: str
    parameters: Strings = ()


class Kernel(Section, frozen=True, kw_only=True):
    path: str
    parameters: Strings = ()
    initrd: str | UnsetType = UNSET


class RootImage(Section, frozen=True, kw_only=True):
    path: str
    format: Literal["raw", "qcow2", "vdi", "vmdk", "vhd"]


class IOMem(Section, frozen=True, kw_only=True):
    first_gfn: Uint64 | UnsetType = field(default=UNSET, name="firstGFN")
    first_mfn: Uint64 = field(name="firstMFN")
    nr_mfns: Uint64 = field(name="nrMFNs")


class Hardware(Section, frozen=True, kw_only=True):
    device_tree: str | UnsetType = UNSET
    vcpus: Uint32 | UnsetType = UNSET
    memory: Uint64 | UnsetType = UNSET
    dtdevs: Strings = ()
    iomems: tuple[IOMem, ...] = ()
    irqs: tuple[Uint32, ...] = ()


class VirtualMachine(Section, frozen=True, kw_only=True):
    kernel: Kernel
    hypervisor: Hypervisor | UnsetType = UNSET
    image: RootImage | UnsetType = UNSET
    hw_config: Hardware | UnsetType = UNSET


class WindowsDevice(Section, frozen=True, kw_only=True):
    id: str
    id_type: Literal["class"]


class WindowsMemory(Section, frozen=True, kw_only=True):
    limit: Uint64 | UnsetType = UNSET


class WindowsAffinity(Section, frozen=True, kw_only=True):
    mask: Uint64 | UnsetType = UNSET
    group: Uint32 | UnsetType = UNSET


class WindowsCPU(Section, frozen=True, kw_only=True):
    count: Uint64 | UnsetType = UNSET
    shares: Uint16 | UnsetType = UNSET
    maximum: Uint16 | UnsetType = UNSET
    affinity: WindowsAffinity | UnsetType = UNSET


class WindowsStorage(Section, frozen=True, kw_only=True):
    iops: Uint64 | UnsetType = UNSET
    bps: Uint64 | UnsetType = UNSET
    sandbox_size: Uint64 | UnsetType = UNSET


class WindowsResources(Section, frozen=True, kw_only=True):
    memory: WindowsMemory | UnsetType = UNSET
    cpu: WindowsCPU | UnsetType = UNSET
    storage: WindowsStorage | UnsetType = UNSET


class WindowsNetwork(Section, frozen=True, kw_only=True):
    endpoint_list: Strings = ()
    allow_unqualified_dns_query: bool | UnsetType = field(default=UNSET, name="allowUnqualifiedDNSQuery")
    dns_search_list: Strings = field(default=(), name="DNSSearchList")
    network_shared_container_name: str | UnsetType = UNSET
    network_namespace: str | UnsetType = UNSET


class HyperV(Section, frozen=True, kw_only=True):
    utility_vm_path: str | UnsetType = field(default=UNSET, name="utilityVMPath")


class Windows(Section, frozen=True, kw_only=True):
    layer_folders: Annotated[Strings, Meta(min_length=1)]
    devices: tuple[WindowsDevice, ...] = ()
    resources: WindowsResources | UnsetType = UNSET
    network: WindowsNetwork | UnsetType = UNSET
    credential_spec: Mapping[str, Any] | UnsetType = UNSET  # Any: an object of Windows' own
    servicing: bool | UnsetType = UNSET
    ignore_flushes_during_boot: bool | UnsetType = UNSET
    hyperv: HyperV | UnsetType = UNSET
