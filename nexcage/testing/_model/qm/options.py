"""The options and arguments of the ``qm`` commands that are simulated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from nexcage.testing._model.schema import Prop

__all__ = [
    "COMMANDS",
    "DISK",
    "IPCONFIG",
    "NET",
    "Command",
    "config_prop",
    "listing",
    "option",
    "option_names",
    "short",
]

BOOL, STRING = Prop("boolean"), Prop()
VMID = Prop("integer", format="pve-vmid", minimum=100, maximum=999_999_999, optional=False)

NET: Mapping[str, Prop] = {
    "model": Prop(default_key=True, enum=("e1000", "e1000e", "rtl8139", "virtio", "vmxnet3")),
    **dict.fromkeys(("e1000", "e1000e", "rtl8139", "virtio", "vmxnet3"), Prop(format="mac-addr")),
    "macaddr": Prop(format="mac-addr"),
    "bridge": Prop(pattern=r"[-_.\w\d]+"),
    "firewall": BOOL,
    "link_down": BOOL,
    "mtu": Prop("integer", minimum=1, maximum=65520),
    "queues": Prop("integer", minimum=0, maximum=64),
    "rate": Prop("number", minimum=0),
    "tag": Prop("integer", minimum=1, maximum=4094),
    "trunks": Prop(pattern=r"\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*"),
}
IPCONFIG: Mapping[str, Prop] = {
    "ip": Prop(format="pve-ipv4-config"),
    "gw": Prop(format="ipv4"),
    "ip6": Prop(format="pve-ipv6-config"),
    "gw6": Prop(format="ipv6"),
}
DISK: Mapping[str, Prop] = {
    "file": Prop(default_key=True, optional=False),
    "import-from": STRING,
    "media": Prop(enum=("cdrom", "disk")),
    "size": Prop(format="disk-size"),
    "format": Prop(enum=("raw", "qcow2", "vmdk")),
    **dict.fromkeys(("backup", "iothread", "readonly", "replicate", "ssd"), BOOL),
    "cache": Prop(enum=("none", "writethrough", "writeback", "unsafe", "directsync")),
    "discard": Prop(enum=("ignore", "on")),
}
_OSTYPES = tuple("other wxp w2k w2k3 w2k8 wvista win7 win8 win10 win11 l24 l26 solaris".split())

CONFIG: Mapping[str, Prop] = {
    "agent": STRING,
    "balloon": Prop("integer", minimum=0),
    "bios": Prop(enum=("seabios", "ovmf")),
    "boot": STRING,
    "ciuser": STRING,
    "citype": Prop(enum=("configdrive2", "nocloud", "opennebula")),
    "cores": Prop("integer", minimum=1),
    "cpu": STRING,
    "cpulimit": Prop("number", minimum=0, maximum=128),
    "cpuunits": Prop("integer", minimum=1, maximum=262144),
    "description": Prop(max_length=8192),
    "hookscript": Prop(format="pve-volume-id"),
    "lock": Prop(
        enum=tuple("backup clone create migrate rollback snapshot snapshot-delete suspending suspended".split())
    ),
    "machine": STRING,
    "memory": Prop("integer", minimum=16),
    "name": Prop(format="dns-name"),
    "nameserver": STRING,
    "onboot": BOOL,
    "ostype": Prop(enum=_OSTYPES),
    "protection": BOOL,
    "scsihw": Prop(enum=("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")),
    "searchdomain": STRING,
    "sockets": Prop("integer", minimum=1),
    "sshkeys": STRING,
    "startup": Prop(format="pve-startup-order"),
    "tags": Prop(format="pve-tag-list"),
    "vga": STRING,
}
_NUMBERED = (
    (re.compile(r"net([0-9]+)"), 32, Prop(properties=NET)),
    (re.compile(r"ipconfig([0-9]+)"), 32, Prop(properties=IPCONFIG)),
    (re.compile(r"serial([0-9]+)"), 4, Prop(pattern=r"/dev/.+|socket")),
    (re.compile(r"scsi([0-9]+)"), 31, Prop(properties=DISK)),
    (re.compile(r"virtio([0-9]+)"), 16, Prop(properties=DISK)),
    (re.compile(r"sata([0-9]+)"), 6, Prop(properties=DISK)),
    (re.compile(r"ide([0-9]+)"), 4, Prop(properties=DISK)),
)


class Command(NamedTuple):
    """One command: its arguments in order and its own options; ``config``: it takes every key of a config too; ``extra``: what follows
    the arguments is a command of its own.
    """

    arguments: tuple[str, ...] = ("vmid",)
    options: Mapping[str, Prop] = {}
    config: bool = False
    extra: bool = False


def _flags(*names: str, **more: Prop) -> Mapping[str, Prop]:
    return {**dict.fromkeys(names, BOOL), **more}


SNAPNAME = Prop(format="pve-configid", max_length=40, optional=False)
_TIMEOUT = Prop("integer", minimum=0)
COMMANDS: Mapping[str, Command] = {
    "config": Command(options=_flags("current", snapshot=STRING)),
    "create": Command(
        options=_flags(
            "force", "start", "unique", storage=Prop(format="pve-storage-id"), pool=STRING, bwlimit=_TIMEOUT
        ),
        config=True,
    ),
    "delsnapshot": Command(("vmid", "snapname"), _flags("force")),
    "destroy": Command(options=_flags("destroy-unreferenced-disks", "purge", "skiplock")),
    "disk resize": Command(("vmid", "disk", "size"), _flags("skiplock", digest=STRING)),
    "guest exec": Command(options=_flags("synchronous", "pass-stdin", timeout=_TIMEOUT), extra=True),
    "list": Command((), _flags("full")),
    "listsnapshot": Command(),
    "monitor": Command(),
    "reboot": Command(options={"timeout": _TIMEOUT}),
    "reset": Command(options=_flags("skiplock")),
    "resume": Command(options=_flags("nocheck", "skiplock")),
    "rollback": Command(("vmid", "snapname"), _flags("start")),
    "set": Command(options=_flags("force", "skiplock", delete=STRING, digest=STRING), config=True),
    "shutdown": Command(options=_flags("forceStop", "keepActive", "skiplock", timeout=_TIMEOUT)),
    "snapshot": Command(("vmid", "snapname"), _flags("vmstate", description=STRING)),
    "start": Command(options=_flags("skiplock", timeout=_TIMEOUT)),
    "status": Command(options=_flags("verbose")),
    "stop": Command(options=_flags("keepActive", "overrule-shutdown", "skiplock", timeout=_TIMEOUT)),
    "suspend": Command(options=_flags("skiplock", "todisk")),
    "template": Command(options={"disk": STRING}),
    "unlock": Command(),
}
_ARGUMENTS: Mapping[str, Prop] = {"vmid": VMID, "snapname": SNAPNAME, "disk": STRING, "size": STRING}


@cache
def config_prop(name: str) -> Prop | None:
    """The schema of a config key."""
    for pattern, count, prop in _NUMBERED:
        found = pattern.fullmatch(name)
        if found is not None:
            return prop if int(found[1]) < count else None
    return CONFIG.get(name)


def option(entry: Command, name: str) -> Prop | None:
    """The schema of one option or argument of a command."""
    if name in entry.arguments:
        return _ARGUMENTS[name]
    own = entry.options.get(name)
    return own if own is not None or not entry.config else config_prop(name)


def option_names(entry: Command) -> tuple[str, ...]:
    """The names that an abbreviation may mean."""
    return (*entry.options, *(CONFIG if entry.config else ()))


def short(command: str) -> str:
    """One command's usage in one line, without the word USAGE."""
    entry = COMMANDS[command]
    words = "".join(f" <{name}>" for name in entry.arguments)
    return f"qm {command}{words}{' [OPTIONS]' if entry.options or entry.config else ''}"


def listing(error: str) -> str:
    """What a wrong or missing command name prints."""
    return f"ERROR: {error}\nUSAGE: qm <COMMAND> [ARGS] [OPTIONS]\n\n" + "".join(
        f"       {short(name)}\n" for name in COMMANDS
    )
