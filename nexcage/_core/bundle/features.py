"""What a runtime says that it can do (``runc features``). ``None`` is not known, ``()`` and False are known to be missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nexcage._core.bundle.decode import Decoded, decoded
from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.kinds import Section, Strings
from nexcage._core.bundle.rules import version_flaws
from nexcage.errors import escaped

__all__ = [
    "CgroupFeatures",
    "Enabled",
    "Features",
    "LinuxFeatures",
    "MemoryPolicyFeatures",
    "MountExtensions",
    "RdtFeatures",
    "SeccompFeatures",
    "decode_features",
]

_CAPABILITY = re.compile(r"CAP_[A-Z_]+")


class Enabled(Section, frozen=True, kw_only=True):
    enabled: bool | None = None


class CgroupFeatures(Section, frozen=True, kw_only=True):
    v1: bool | None = None
    v2: bool | None = None
    systemd: bool | None = None
    systemd_user: bool | None = None
    rdma: bool | None = None


class SeccompFeatures(Section, frozen=True, kw_only=True):
    enabled: bool | None = None
    actions: Strings | None = None
    operators: Strings | None = None
    archs: Strings | None = None
    known_flags: Strings | None = None
    supported_flags: Strings | None = None


class RdtFeatures(Section, frozen=True, kw_only=True):
    enabled: bool | None = None
    schemata: bool | None = None
    monitoring: bool | None = None


class MemoryPolicyFeatures(Section, frozen=True, kw_only=True):
    modes: Strings | None = None
    flags: Strings | None = None


class MountExtensions(Section, frozen=True, kw_only=True):
    idmap: Enabled | None = None


class LinuxFeatures(Section, frozen=True, kw_only=True):
    namespaces: Strings | None = None
    capabilities: Strings | None = None
    cgroup: CgroupFeatures | None = None
    seccomp: SeccompFeatures | None = None
    apparmor: Enabled | None = None
    selinux: Enabled | None = None
    intel_rdt: RdtFeatures | None = None
    memory_policy: MemoryPolicyFeatures | None = None
    mount_extensions: MountExtensions | None = None
    net_devices: Enabled | None = None


class Features(Section, frozen=True, kw_only=True):
    """Lists hold the words of the runtime, which may be newer than this library."""

    oci_version_min: str
    oci_version_max: str
    hooks: Strings | None = None
    mount_options: Strings | None = None
    annotations: Mapping[str, str] | None = None
    potentially_unsafe_config_annotations: Strings | None = None
    linux: LinuxFeatures | None = None


def decode_features(data: bytes | str) -> Decoded[Features]:
    """A features document. Raises InvalidBundle."""
    return decoded("features", data, Features, _flaws)


def _flaws(features: Features) -> Iterator[Flaw]:
    for name, version in (("ociVersionMin", features.oci_version_min), ("ociVersionMax", features.oci_version_max)):
        yield from version_flaws(version, at("", name))
    if features.annotations and "" in features.annotations:
        yield Flaw("/annotations/", "a key must not be empty")
    known = features.linux.capabilities if features.linux else None
    for index, name in enumerate(known or ()):
        if not _CAPABILITY.fullmatch(name):
            yield Flaw(at("/linux/capabilities", index), f"{escaped(name)} is not the name of a capability")
