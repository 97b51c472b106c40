"""Every option and argument of every ``pct`` command, as PVE's schema has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from nexcage.testing._model.schema import Prop

__all__ = ["COMMANDS", "CONFIG", "DEV", "FEATURES", "MP", "NET", "ROOTFS", "UNUSED", "Command", "config_prop", "option"]

BOOL = Prop("boolean")
STRING = Prop()
VMID = Prop("integer", format="pve-vmid", minimum=100, maximum=999_999_999, optional=False)
NODE = Prop(format="pve-node")
STORAGE = Prop(format="pve-storage-id")
_MOUNT_OPTION = "(discard|lazytime|noatime|nodev|noexec|nosuid)"
_ID = "([ug]:[0-9]+:[0-9]+:[0-9]+)"

ROOTFS: Mapping[str, Prop] = {
    "volume": Prop(format="pve-lxc-mp-string", default_key=True, optional=False),
    "size": Prop(format="disk-size"),
    "acl": BOOL,
    "idmap": Prop(pattern=f"passthrough|{_ID}(;{_ID})*"),
    "mountoptions": Prop(pattern=f"{_MOUNT_OPTION}(;{_MOUNT_OPTION})*"),
    "ro": BOOL,
    "quota": BOOL,
    "replicate": BOOL,
    "shared": BOOL,
}
MP: Mapping[str, Prop] = {
    **ROOTFS,
    "backup": BOOL,
    "keepattrs": BOOL,
    "mp": Prop(format="pve-lxc-mp-string", optional=False),
}
UNUSED: Mapping[str, Prop] = {"volume": Prop(format="pve-volume-id", default_key=True, optional=False)}
DEV: Mapping[str, Prop] = {
    "path": Prop(format="pve-lxc-dev-string", default_key=True),
    "mode": Prop(pattern="0[0-7]{3}"),
    "uid": Prop("integer", minimum=0),
    "gid": Prop("integer", minimum=0),
    "deny-write": BOOL,
}
NET: Mapping[str, Prop] = {
    "type": Prop(enum=("veth",)),
    "name": Prop(pattern=r"[-_.\w\d]+", optional=False),
    "bridge": Prop(pattern=r"[-_.\w\d]+"),
    "hwaddr": Prop(format="mac-addr"),
    "mtu": Prop("integer", minimum=64, maximum=65535),
    "ip": Prop(format="pve-ipv4-config"),
    "gw": Prop(format="ipv4"),
    "ip6": Prop(format="pve-ipv6-config"),
    "gw6": Prop(format="ipv6"),
    "firewall": BOOL,
    "tag": Prop("integer", minimum=1, maximum=4094),
    "trunks": Prop(pattern=r"\d+(?:;\d+)*"),
    "rate": Prop("number"),
    "link_down": BOOL,
    "host-managed": BOOL,
}
FEATURES: Mapping[str, Prop] = {
    "mount": Prop(pattern="[a-zA-Z0-9_; ]+"),
    "nesting": BOOL,
    "keyctl": BOOL,
    "fuse": BOOL,
    "mknod": BOOL,
    "force_rw_sys": BOOL,
}
_CONTROL = r"\x00-\x08\x0a-\x1F\x7F"
CONFIG: Mapping[str, Prop] = {
    "lock": Prop(
        enum=tuple("backup create destroyed disk fstrim migrate mounted rollback snapshot snapshot-delete".split())
    ),
    "onboot": BOOL,
    "startup": Prop(format="pve-startup-order"),
    "template": BOOL,
    "arch": Prop(enum=("amd64", "i386", "arm64", "armhf", "riscv32", "riscv64")),
    "ostype": Prop(
        enum=tuple("debian devuan ubuntu centos fedora opensuse archlinux alpine gentoo nixos unmanaged".split())
    ),
    "console": BOOL,
    "tty": Prop("integer", minimum=0, maximum=6),
    "cores": Prop("integer", minimum=1, maximum=8192),
    "cpulimit": Prop("number", minimum=0, maximum=8192),
    "cpuunits": Prop("integer", minimum=0, maximum=500000),
    "memory": Prop("integer", minimum=16),
    "swap": Prop("integer", minimum=0),
    "hostname": Prop(format="dns-name", max_length=255),
    "description": Prop(max_length=8192),
    "searchdomain": Prop(format="dns-name-list"),
    "nameserver": Prop(format="lxc-ip-with-ll-iface-list"),
    "timezone": Prop(format="pve-ct-timezone"),
    "rootfs": Prop(properties=ROOTFS),
    "cmode": Prop(enum=("shell", "console", "tty")),
    "entrypoint": Prop(pattern=f"[^{_CONTROL}]+"),
    "env": Prop(pattern=rf"(?:\w+=[^{_CONTROL}]*)(?:\0\w+=[^{_CONTROL}]*)*"),
    "protection": BOOL,
    "unprivileged": BOOL,
    "features": Prop(properties=FEATURES),
    "hookscript": Prop(format="pve-volume-id"),
    "tags": Prop(format="pve-tag-list"),
    "debug": BOOL,
}
_FAMILIES: Mapping[str, tuple[int, Prop]] = {
    "net": (32, Prop(properties=NET)),
    "mp": (256, Prop(properties=MP)),
    "unused": (256, Prop(properties=UNUSED)),
    "dev": (256, Prop(properties=DEV)),
}
_INTERNAL: Mapping[str, Prop] = {
    "parent": Prop(format="pve-configid", max_length=40),
    "snaptime": Prop("integer", minimum=0),
    "snapstate": Prop(enum=("prepare", "delete")),
}
_NUMBERED = re.compile(r"(net|mp|unused|dev)(0|[1-9][0-9]{0,2})", re.ASCII)


def _family(name: str) -> Prop | None:
    found = _NUMBERED.fullmatch(name)
    if found is None or int(found[2]) >= _FAMILIES[found[1]][0]:
        return None
    return _FAMILIES[found[1]][1]


@cache
def config_prop(key: str) -> Prop | None:
    """The schema of a config file's key, or None for a key that PVE does not know."""
    return CONFIG.get(key) or _family(key) or _INTERNAL.get(key)


class Command(NamedTuple):
    """One subcommand: its arguments in order, its own options, and whether it takes all config options too."""

    arguments: tuple[tuple[str, Prop], ...] = ()
    options: Mapping[str, Prop] = {}
    config: bool = False

    def schema(self, given: Mapping[str, str]) -> dict[str, Prop]:
        """What to check a call against: everything that was given, and what must be."""
        own = {**dict(self.arguments), **self.options}
        wanted = {name: prop for name, prop in own.items() if name in given or not prop.optional}
        for name in given:
            prop = option(self, name)
            if prop is not None:
                wanted[name] = prop
        return wanted


def option(command: Command, name: str) -> Prop | None:
    """An option or argument by its exact name."""
    prop = command.options.get(name) or dict(command.arguments).get(name)
    if prop is None and command.config:
        prop = CONFIG.get(name) or _family(name)
    return prop


@cache
def option_names(command: str) -> tuple[str, ...]:
    """Every option of a command, sorted, for abbreviations."""
    entry = COMMANDS[command]
    names = {*dict(entry.arguments), *entry.options}
    if entry.config:
        names |= set(CONFIG) | {f"{kind}{n}" for kind, (most, _) in _FAMILIES.items() for n in range(most)}
    return tuple(sorted(names))


_VOLUMES = ("rootfs", *(f"mp{n}" for n in range(256)))
_ALL_VOLUMES = (*_VOLUMES, *(f"unused{n}" for n in range(256)))
_CT = (("vmid", VMID),)
_SNAP = (("vmid", VMID), ("snapname", Prop(format="pve-configid", max_length=40, optional=False)))
_TEXT = Prop(optional=False)
_DIGEST = Prop(max_length=40)
_LIMIT = Prop("number", minimum=0)
_PAIRS = Prop(format="storage-pair-list")
_OWNER = {"group": STRING, "perms": STRING, "user": STRING}
_ENV = {"keep-env": BOOL}
_EXTRA = ("extra-args", Prop("array"))
_MIGRATE = {"online": BOOL, "restart": BOOL, "timeout": Prop("integer")}
_REMOTE: Mapping[str, Prop] = {
    "host": _TEXT,
    "port": Prop("integer"),
    "apitoken": _TEXT,
    "fingerprint": Prop(pattern="([A-Fa-f0-9]{2}:){31}[A-Fa-f0-9]{2}"),
}
_CREATE: Mapping[str, Prop] = {
    "bwlimit": _LIMIT,
    "force": BOOL,
    "ha-managed": BOOL,
    "ignore-unpack-errors": BOOL,
    "password": Prop(min_length=5, interactive=True),
    "pool": Prop(format="pve-poolid"),
    "restore": BOOL,
    "ssh-public-keys": Prop(file=True),
    "start": BOOL,
    "storage": STORAGE,
    "unique": Prop("boolean", requires="restore"),
}
_TEMPLATE = (("vmid", VMID), ("ostemplate", Prop(max_length=255, optional=False)))

COMMANDS: Mapping[str, Command] = {
    "clone": Command(
        (("vmid", VMID), ("newid", VMID)),
        {
            "bwlimit": _LIMIT,
            "description": STRING,
            "full": BOOL,
            "hostname": Prop(format="dns-name"),
            "pool": Prop(format="pve-poolid"),
            "snapname": Prop(format="pve-configid", max_length=40),
            "storage": STORAGE,
            "target": NODE,
        },
    ),
    "config": Command(_CT, {"current": BOOL, "snapshot": Prop(format="pve-configid", max_length=40)}),
    "console": Command(_CT, {"escape": Prop(pattern=r"\^?[a-z]")}),
    "cpusets": Command(),
    "create": Command(_TEMPLATE, _CREATE, config=True),
    "delsnapshot": Command(_SNAP, {"force": BOOL}),
    "destroy": Command(_CT, {"destroy-unreferenced-disks": BOOL, "force": BOOL, "purge": BOOL}),
    "df": Command(_CT),
    "enter": Command(_CT, _ENV),
    "exec": Command((("vmid", VMID), _EXTRA), _ENV),
    "fsck": Command(_CT, {"device": Prop(enum=_VOLUMES), "force": BOOL}),
    "fstrim": Command(_CT, {"ignore-mountpoints": BOOL}),
    "help": Command((_EXTRA,), {"verbose": BOOL}),
    "list": Command(),
    "listsnapshot": Command(_CT),
    "migrate": Command(
        (("vmid", VMID), ("target", NODE._replace(optional=False))),
        {"bwlimit": _LIMIT, "target-storage": _PAIRS, **_MIGRATE},
    ),
    "mount": Command(_CT),
    "move-volume": Command(
        (
            ("vmid", VMID),
            ("volume", Prop(enum=_ALL_VOLUMES, optional=False)),
            ("storage", STORAGE),
            ("target-vmid", VMID._replace(optional=True)),
            ("target-volume", Prop(enum=_ALL_VOLUMES)),
        ),
        {"bwlimit": _LIMIT, "delete": BOOL, "digest": _DIGEST, "target-digest": _DIGEST},
    ),
    "pending": Command(_CT),
    "pull": Command((("vmid", VMID), ("path", _TEXT), ("destination", _TEXT)), _OWNER),
    "push": Command((("vmid", VMID), ("file", _TEXT), ("destination", _TEXT)), _OWNER),
    "reboot": Command(_CT, {"timeout": Prop("integer", minimum=0)}),
    "remote-migrate": Command(
        (
            ("vmid", VMID),
            ("target-vmid", VMID._replace(optional=True)),
            ("target-endpoint", Prop(properties=_REMOTE, optional=False)),
        ),
        {
            "bwlimit": Prop("integer", minimum=0),
            "delete": BOOL,
            "target-bridge": _TEXT,
            "target-storage": _PAIRS._replace(optional=False),
            **_MIGRATE,
        },
    ),
    "rescan": Command((), {"dryrun": BOOL, "vmid": VMID._replace(optional=True)}),
    "resize": Command(
        (
            ("vmid", VMID),
            ("disk", Prop(enum=_VOLUMES, optional=False)),
            ("size", Prop(pattern=r"\+?\d+(\.\d+)?[KMGT]?", optional=False)),
        ),
        {"digest": _DIGEST},
    ),
    "restore": Command(
        _TEMPLATE,
        {**{k: v for k, v in _CREATE.items() if k != "restore"}, "unique": BOOL},
        config=True,
    ),
    "resume": Command(_CT),
    "rollback": Command(_SNAP, {"start": BOOL}),
    "set": Command(
        _CT,
        {
            "delete": Prop(format="pve-configid-list"),
            "revert": Prop(format="pve-configid-list"),
            "digest": _DIGEST,
        },
        config=True,
    ),
    "shutdown": Command(_CT, {"forceStop": BOOL, "timeout": Prop("integer", minimum=0)}),
    "snapshot": Command(_SNAP, {"description": STRING}),
    "start": Command(_CT, {"debug": BOOL, "skiplock": BOOL}),
    "status": Command(_CT, {"verbose": BOOL}),
    "stop": Command(_CT, {"overrule-shutdown": BOOL, "skiplock": BOOL}),
    "suspend": Command(_CT),
    "template": Command(_CT),
    "unlock": Command(_CT),
    "unmount": Command(_CT),
}
ALIASES: Mapping[str, str] = {"move_volume": "move-volume"}
