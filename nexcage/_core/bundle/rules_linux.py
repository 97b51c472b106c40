"""Rules for ``linux`` of config.json that its schema does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from msgspec import UNSET

from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.linux import (
    Device,
    IntelRdt,
    Linux,
    MemoryPolicy,
    Namespace,
    NetDevice,
    Personality,
    TimeOffset,
    TimeOffsets,
)
from nexcage._core.bundle.rules_resources import resource_flaws
from nexcage._core.bundle.rules_seccomp import seccomp_flaws
from nexcage._core.bundle.shapes import mapping_flaws, not_absolute, not_cpus
from nexcage.errors import escaped

__all__ = ["linux_flaws"]

_INTERFACE = re.compile(r"[!-.0-9;-~]{1,15}")  # no blank, no slash, no colon
_SYSCTL = re.compile(r"[!-~]+")


def linux_flaws(linux: Linux) -> Iterator[Flaw]:
    """``linux`` of a document."""
    yield from _namespaces(linux.namespaces or ())
    yield from mapping_flaws(linux.uid_mappings, linux.gid_mappings, "/linux", alone=True)
    yield from _needing_namespaces(linux)
    yield from _devices(linux.devices)
    yield from _interfaces(linux.net_devices)
    yield from resource_flaws(linux.resources)
    for name, paths in (("maskedPaths", linux.masked_paths), ("readonlyPaths", linux.readonly_paths)):
        for index, path in enumerate(paths):
            if reason := not_absolute(path):
                yield Flaw(at("/linux", name, index), reason)
    for key in linux.sysctl:
        if not _SYSCTL.fullmatch(key) or not all(key.replace("/", ".").split(".")):
            yield Flaw(at("/linux/sysctl", key), f"{escaped(key)} is not the name of a kernel parameter")
    if linux.seccomp:
        yield from seccomp_flaws(linux.seccomp)
    if linux.intel_rdt:
        yield from _rdt(linux.intel_rdt)
    if linux.memory_policy is not UNSET:
        yield from _memory_policy(linux.memory_policy)
    if linux.personality is not UNSET:
        yield from _personality(linux.personality)
    if linux.time_offsets:
        yield from _offsets(linux.time_offsets)


def _namespaces(given: tuple[Namespace, ...]) -> Iterator[Flaw]:
    seen: set[str] = set()
    for index, one in enumerate(given):
        if one.type in seen:
            yield Flaw(at("/linux/namespaces", index, "type"), f"namespace {one.type} is there already")
        seen.add(one.type)
        if one.path is not UNSET and (reason := not_absolute(one.path)):
            yield Flaw(at("/linux/namespaces", index, "path"), reason)


def _needing_namespaces(linux: Linux) -> Iterator[Flaw]:
    """What acts on a namespace that the container does not get."""
    types = {one.type for one in linux.namespaces or ()}
    for pointer, given, type_ in (
        ("/linux/uidMappings", linux.uid_mappings, "user"),
        ("/linux/timeOffsets", linux.time_offsets, "time"),
        ("/linux/netDevices", linux.net_devices, "network"),
    ):
        if given and type_ not in types:
            yield Flaw(pointer, f"there is no {type_} namespace in /linux/namespaces for it", fatal=False)


def _devices(devices: tuple[Device, ...]) -> Iterator[Flaw]:
    paths: dict[str, Device] = {}
    for index, device in enumerate(devices):
        pointer = at("/linux/devices", index)
        if reason := not_absolute(device.path):
            yield Flaw(at(pointer, "path"), reason)
        for name, number in (("major", device.major), ("minor", device.minor)):
            if device.type != "p" and number is UNSET:
                yield Flaw(at(pointer, name), f"is required for a device of type {device.type}")
            elif isinstance(number, int) and number < 0:
                yield Flaw(at(pointer, name), "is less than 0")
        other = paths.setdefault(device.path, device)
        if other is not device:
            same = (other.type, other.major, other.minor) == (device.type, device.major, device.minor)
            said = "is there already" if same else "is another device already"
            yield Flaw(at(pointer, "path"), f"{escaped(device.path)} {said}", fatal=not same)


def _interfaces(devices: Mapping[str, NetDevice]) -> Iterator[Flaw]:
    seen: set[str] = set()
    for key, device in devices.items():
        name = device.name or key
        for place, one in ((at("/linux/netDevices", key), key), (at("/linux/netDevices", key, "name"), name)):
            if not _INTERFACE.fullmatch(one) or one in (".", ".."):
                yield Flaw(place, f"{escaped(one)} is not the name of a network interface")
                break
        if name in seen:
            yield Flaw(at("/linux/netDevices", key), f"another interface is called {escaped(name)} inside already")
        seen.add(name)


def _rdt(given: IntelRdt) -> Iterator[Flaw]:
    clos = given.clos_id
    if clos and (clos in (".", "..") or "/" in clos or "\n" in clos):
        yield Flaw("/linux/intelRdt/closID", f"{escaped(clos)} is not the name of a directory")
    for index, line in enumerate(given.schemata):
        if "\n" in line:
            yield Flaw(at("/linux/intelRdt/schemata", index), "must not contain a line break")


def _memory_policy(given: MemoryPolicy) -> Iterator[Flaw]:
    if given.mode is UNSET:
        yield Flaw("/linux/memoryPolicy/mode", "is required")
    if given.nodes and (reason := not_cpus(given.nodes)):
        yield Flaw("/linux/memoryPolicy/nodes", reason)


def _personality(given: Personality) -> Iterator[Flaw]:
    if given.domain is UNSET:
        yield Flaw("/linux/personality/domain", "is required")
    if given.flags:
        yield Flaw("/linux/personality/flags/0", f"{escaped(given.flags[0])} is not a flag: the specification has none")


def _offsets(given: TimeOffsets) -> Iterator[Flaw]:
    for name, offset in (("monotonic", given.monotonic), ("boottime", given.boottime)):
        if isinstance(offset, TimeOffset) and offset.nanosecs and offset.nanosecs >= 10**9:
            yield Flaw(at("/linux/timeOffsets", name, "nanosecs"), "is not less than 1000000000", legal=True)
