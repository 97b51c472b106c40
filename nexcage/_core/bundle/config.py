"""config.json of a bundle, as runtime-spec 1.3 has it: what its schema says is in these types, what its text says in `rules`."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from nexcage._core.bundle.kinds import IDMapping, Section, Strings, Texts
from nexcage._core.bundle.linux import Linux
from nexcage._core.bundle.platforms import ZOS, FreeBSD, Solaris, VirtualMachine, Windows
from nexcage._core.bundle.process import Process

__all__ = ["Config", "Hook", "Hooks", "Mount", "Root"]


class Root(Section, frozen=True, kw_only=True):
    """``path`` is relative to the bundle unless it is absolute."""

    path: str
    readonly: bool | UnsetType = UNSET


class Mount(Section, frozen=True, kw_only=True):
    destination: str
    type: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    options: Strings = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


class Hook(Section, frozen=True, kw_only=True):
    """``args`` is the whole argv, ``args[0]`` the name; ``timeout`` is in seconds."""

    path: str
    args: Strings = ()
    env: Strings = ()
    timeout: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class Hooks(Section, frozen=True, kw_only=True):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Config(Section, frozen=True, kw_only=True):
    """The whole document. The sections of other platforms are kept as far as their presence and their types go."""

    oci_version: str
    root: Root | UnsetType = UNSET
    process: Process | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    domainname: str | UnsetType = UNSET
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    annotations: Texts = {}  # noqa: RUF012 (msgspec copies it)
    linux: Linux = field(default_factory=Linux)
    solaris: Solaris | UnsetType = UNSET
    windows: Windows | UnsetType = UNSET
    vm: VirtualMachine | UnsetType = UNSET
    zos: ZOS | UnsetType = UNSET
    freebsd: FreeBSD | UnsetType = UNSET
