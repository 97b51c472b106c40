"""What the text of runtime-spec 1.3 asks of config.json and its schema does not say.

A rule is fatal where the text says MUST or what a value may be, or where values contradict each other; ``legal`` where only the kernel
or every runtime says no; what is merely odd is a warning. What a node or a backend cannot do is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import UNSET

from nexcage._core.bundle.config import Config, Hook, Mount, Root
from nexcage._core.bundle.flaws import Flaw, at
from nexcage._core.bundle.rules_linux import linux_flaws
from nexcage._core.bundle.rules_process import environment_flaws, process_flaws
from nexcage._core.bundle.shapes import leads_out, mapping_flaws, names_type, not_absolute
from nexcage.errors import escaped

__all__ = ["config_flaws", "version_flaws"]

_NUMBER = r"(?:0|[1-9][0-9]*)"
_WORD = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-{_WORD}(?:\.{_WORD})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_MAJOR, _MINOR = 1, 3  # of the specification that is implemented
_HOST_NAME = 64  # bytes that a kernel keeps
_TIMEOUT = 2**63 - 1
_KNOWN_TYPES = frozenset(
    """9p autofs bcachefs binder binfmt_misc bpf btrfs ceph cgroup cgroup2 cifs configfs cramfs debugfs devpts devtmpfs ecryptfs
    efivarfs erofs exfat ext2 ext3 ext4 f2fs fuse fuseblk fusectl hfs hfsplus hugetlbfs iso9660 jfs minix mqueue nfs nfs4 nfsd
    nilfs2 ntfs ntfs3 overlay proc pstore ramfs resctrl romfs rpc_pipefs securityfs selinuxfs smb3 squashfs sysfs tmpfs tracefs
    ubifs udf ufs vfat virtiofs xfs zfs""".split()
)


def config_flaws(config: Config) -> Iterator[Flaw]:
    """Everything, in the order of the specification's chapters."""
    yield from version_flaws(config.oci_version, "/ociVersion")
    yield from _root(config)
    yield from _names(config)
    mapped = any(one.type == "user" for one in config.linux.namespaces or ())
    for index, mount in enumerate(config.mounts):
        yield from _mount(mount, at("/mounts", index), mapped=mapped)
    if config.process:
        yield from process_flaws(config.process, windows=bool(config.windows))
    yield from linux_flaws(config.linux)
    yield from _hooks(config)
    if "" in config.annotations:
        yield Flaw("/annotations/", "a key must not be empty")


def version_flaws(version: str, pointer: str) -> Iterator[Flaw]:
    """Semantic versioning 2.0.0: compatible within a major version; what came before 1.0.0 was like 1.0.0 to nearly all."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        yield Flaw(pointer, f"{escaped(version)} is not a version in the form of SemVer 2.0.0")
        return
    major, minor = (int(part[:9]) for part in match.groups()[:2])
    if major == 0:
        yield Flaw(pointer, f"{version} is older than 1.0.0 and is read as {_MAJOR}.{_MINOR}", fatal=False)
    elif major != _MAJOR:
        yield Flaw(pointer, f"version {escaped(version)} is not compatible with {_MAJOR}.{_MINOR}")
    elif minor > _MINOR:
        yield Flaw(
            pointer, f"{escaped(version)} is newer than {_MAJOR}.{_MINOR}: what it adds is not known here", fatal=False
        )


def _root(config: Config) -> Iterator[Flaw]:
    root = config.root
    if isinstance(root, Root):
        if not root.path:
            yield Flaw("/root/path", "must not be empty")
        elif leads_out(root.path):
            yield Flaw("/root/path", f"{escaped(root.path)} leads out of the bundle", fatal=False)
    elif not config.windows:
        yield Flaw("/root", "is required")


def _names(config: Config) -> Iterator[Flaw]:
    for name, value in (("hostname", config.hostname), ("domainname", config.domainname)):
        if value and len(value.encode("utf-8", "replace")) > _HOST_NAME:
            yield Flaw(f"/{name}", f"is longer than {_HOST_NAME} bytes", legal=True)


def _mount(mount: Mount, pointer: str, *, mapped: bool) -> Iterator[Flaw]:
    """``mapped``: the container has a user namespace, whose mapping ``idmap`` may take."""
    if not mount.destination:
        yield Flaw(at(pointer, "destination"), "must not be empty")
    elif not mount.destination.startswith("/"):
        said = f"{escaped(mount.destination)} is not absolute; it is taken from /, which is deprecated"
        yield Flaw(at(pointer, "destination"), said, fatal=False)
    bind = mount.type == "bind" or not {"bind", "rbind"}.isdisjoint(mount.options)
    if bind and not mount.source:
        yield Flaw(at(pointer, "source"), "is required for a bind mount")
    elif bind and mount.source and leads_out(mount.source):
        yield Flaw(at(pointer, "source"), f"{escaped(mount.source)} leads out of the bundle", fatal=False)
    if not bind:
        yield from _file_system(mount, pointer)
    yield from mapping_flaws(mount.uid_mappings, mount.gid_mappings, pointer)
    if not mapped and not mount.uid_mappings:
        for index, option in enumerate(mount.options):
            if option in ("idmap", "ridmap"):
                yield Flaw(at(pointer, "options", index), f"{option} needs uidMappings or a user namespace")


def _file_system(mount: Mount, pointer: str) -> Iterator[Flaw]:
    """The empty type is left alone: crun 1.8.1 skips such a mount."""
    kind = "none" if mount.type is UNSET else mount.type
    if kind == "none" and "remount" not in mount.options:
        yield Flaw(pointer, "it is no bind mount, and without a type no kernel mounts anything", legal=True)
    elif kind not in ("", "none") and not names_type(kind):
        yield Flaw(pointer, f"{escaped(kind)} cannot be the name of a file system", legal=True)
    elif kind not in ("", "none") and kind.partition(".")[0] not in _KNOWN_TYPES:
        said = f"{escaped(kind)} is no usual file system: the node's kernel has to know it"
        yield Flaw(at(pointer, "type"), said, fatal=False)


def _hooks(config: Config) -> Iterator[Flaw]:
    kinds = (
        ("prestart", config.hooks.prestart),
        ("createRuntime", config.hooks.create_runtime),
        ("createContainer", config.hooks.create_container),
        ("startContainer", config.hooks.start_container),
        ("poststart", config.hooks.poststart),
        ("poststop", config.hooks.poststop),
    )
    for name, hooks in kinds:
        for index, hook in enumerate(hooks):
            yield from _hook(hook, at("/hooks", name, index))


def _hook(hook: Hook, pointer: str) -> Iterator[Flaw]:
    if reason := not_absolute(hook.path):
        yield Flaw(at(pointer, "path"), reason)
    if hook.timeout and hook.timeout > _TIMEOUT:
        yield Flaw(at(pointer, "timeout"), f"is more than {_TIMEOUT} seconds")
    yield from environment_flaws(hook.env, at(pointer, "env"))
