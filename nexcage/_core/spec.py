"""What a container should be: the values of a create."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from nexcage import names
from nexcage._core import settings
from nexcage._core.contents import Content
from nexcage._core.vm import Vm
from nexcage.errors import InvalidSpec

__all__ = ["UNSAID", "Net", "Spec"]

_IFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_BRIDGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}")
_OCTET = r"(?:25[0-5]|(?:2[0-4]|1[0-9]|[1-9])?[0-9])"
_V4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_V6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_NODE = re.compile(r"[!-~]{1,255}")
_SSH_KEY = re.compile(r"[\x20-\x7e]{16,16384}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BACKEND = re.compile(r"[a-z][a-z0-9-]{0,31}")
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,256}")
_SETTINGS = "features startup nameserver searchdomain timezone pool hookscript arch ostype".split()


def _refuse(field: str, value: object, reason: str) -> None:
    raise InvalidSpec(field, value, reason)


def _integer(field: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        _refuse(field, value, f"an integer from {low} to {high}")


def _number(field: str, value: object, below: float, reason: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < below:
        _refuse(field, value, reason)


def _flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        _refuse(field, value, "True or False")


def _text(field: str, value: object) -> None:
    if not isinstance(value, str):
        _refuse(field, value, "text")


def _several(struct: msgspec.Struct, field: str, kind: type) -> None:
    """A tuple of ``kind``; a list is taken as one, a bare text is not (it would be its letters)."""
    value: Any = getattr(struct, field)  # Any: whatever was given
    given: tuple[object, ...] | None = tuple(value) if type(value) in (list, tuple) else None
    if given is None or not all(isinstance(one, kind) for one in given):
        _refuse(field, value, f"a tuple of {kind.__name__}")
    msgspec.structs.force_setattr(struct, field, given)


def _full(pattern: re.Pattern[str], field: str, value: object, reason: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        _refuse(field, value, reason)


def _v6(value: object) -> bool:
    if not isinstance(value, str) or not _V6.fullmatch(value):
        return False
    from ipaddress import IPv6Address  # not free to import, and few containers need it

    try:
        IPv6Address(value)
    except ValueError:
        return False
    return True


def _cidr(field: str, value: object, low: int, high: int) -> None:
    host, slash, prefix = value.partition("/") if isinstance(value, str) else ("", "", "")
    known = _v6(host) if high == 128 else _V4.fullmatch(host)
    if not (slash and known and re.fullmatch("[0-9]{1,3}", prefix) and low <= int(prefix) <= high):
        _refuse(field, value, f"ADDRESS/PREFIX with a prefix from {low} to {high}, 'dhcp' or 'manual'")


class Net(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """One network interface (PVE's ``netN``, pve-commands 2.3; ``str`` spells it so). ``rate`` is in megabytes per second."""

    name: str = "eth0"
    bridge: str | None = "vmbr0"
    ip: str | None = "dhcp"
    gw: str | None = None
    ip6: str | None = None
    gw6: str | None = None
    hwaddr: str | None = None
    tag: int | None = None
    mtu: int | None = None
    rate: float | None = None
    firewall: bool | None = None

    def __post_init__(self) -> None:
        _full(_IFACE, "net.name", self.name, "an interface name of 1 to 15 ASCII characters [A-Za-z0-9_.-]")
        if self.bridge is not None:
            _full(_BRIDGE, "net.bridge", self.bridge, "a bridge name such as vmbr0")
        if self.ip not in (None, "dhcp", "manual"):
            _cidr("net.ip", self.ip, 8, 32)
        if self.ip6 not in (None, "dhcp", "manual", "auto"):
            _cidr("net.ip6", self.ip6, 8, 128)
        if self.gw is not None:
            _full(_V4, "net.gw", self.gw, "an IPv4 address")
        if self.gw6 is not None and not _v6(self.gw6):
            _refuse("net.gw6", self.gw6, "an IPv6 address")
        if self.hwaddr is not None:
            _full(_MAC, "net.hwaddr", self.hwaddr, "a unicast MAC address XX:XX:XX:XX:XX:XX")
        if self.tag is not None:
            _integer("net.tag", self.tag, 1, 4094)
        if self.mtu is not None:
            _integer("net.mtu", self.mtu, 64, 65535)
        if self.rate is not None:
            _number("net.rate", self.rate, 1e6, "megabytes per second, above 0")
        if self.firewall is not None:
            _flag("net.firewall", self.firewall)

    def __str__(self) -> str:
        parts = [f"name={self.name}"]
        for key in ("bridge", "firewall", "gw", "gw6", "hwaddr", "ip", "ip6", "mtu", "rate", "tag"):
            given: object = getattr(self, key)
            if given is not None:
                parts.append(f"{key}={_word(given)}")
        return ",".join(parts)

    @classmethod
    def parse(cls, value: str) -> Net:
        """From PVE's own spelling, ``name=eth0,bridge=vmbr0,ip=dhcp``; raises InvalidSpec for keys that are not known here."""
        _text("net", value)
        given: dict[str, str] = {}
        for part in value.split(","):
            key, equals, word = part.partition("=")
            if not equals or key in given:
                _refuse("net", value, "KEY=VALUE pairs joined by commas, each key once")
            if key not in cls.__struct_fields__ and key != "type":
                _refuse("net", key, f"one of {', '.join(cls.__struct_fields__)}")
            given[key] = word
        if given.pop("type", "veth") != "veth":
            _refuse("net.type", value, "veth")
        try:
            return cls(
                name=given.get("name", ""),
                bridge=given.get("bridge"),
                ip=given.get("ip"),
                gw=given.get("gw"),
                ip6=given.get("ip6"),
                gw6=given.get("gw6"),
                hwaddr=given.get("hwaddr"),
                tag=int(given["tag"]) if "tag" in given else None,
                mtu=int(given["mtu"]) if "mtu" in given else None,
                rate=float(given["rate"]) if "rate" in given else None,
                firewall={"1": True, "0": False}[given["firewall"]] if "firewall" in given else None,
            )
        except (ValueError, KeyError) as error:
            if isinstance(error, InvalidSpec):
                raise
            raise InvalidSpec("net", value, "numbers for tag, mtu and rate, 0 or 1 for firewall") from None


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


class Spec(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """A container to create. Checked when made: raises InvalidSpec or another InvalidInput that names the field.

    ``memory`` and ``swap`` in MiB (PVE's floor is 16), ``cores`` whole cores (None = all of the node), ``size`` of the root file
    system in GiB on ``storage`` (None = the configured storage, else the node's ``local``). ``hostname`` None = the container id
    where that is a valid host name. ``vm``: what only a virtual machine has. ``node`` pins it, ``backend`` names one explicitly
    (``lxc``), which also permits image references. ``pull``: download the image when the node does not have it.
    ``ssh_public_keys`` are lines of an authorized_keys file. ``description`` follows our mark in PVE's notes. ``source``, ``linked``
    and ``snapshot``: see `from_container`.

    What a config of PVE may say besides, in PVE's spelling: ``mounts`` and ``devices`` by their key (``mp0``: ``local-zfs:8,mp=/data``,
    ``dev0``: ``/dev/fuse,mode=0660``), ``features`` (``nesting=1,keyctl=1``), ``startup`` (``order=2,up=30``), ``cpulimit`` in cores (1.5;
    0 for no limit), ``cpuunits``, ``nameserver`` and ``searchdomain``, ``timezone``, ``pool``, ``hookscript``, ``arch`` and ``ostype``;
    ``protection`` lets PVE refuse to destroy it. ``content`` is set by the engine for what comes from this machine.

    A ``bundle`` (its directory on this machine) stands in for ``image``. ``allow`` are the fields (JSON pointers) that may be dropped
    where the backend cannot have them, ``keep_template`` leaves the template that its root file system became on the node's storage.
    ``oci_version`` is set by the engine from its config.json.
    ``gate``: what Proxmox VE could make from an image itself is made as from a bundle (docs/images.md).
    """

    image: str = ""
    memory: int = msgspec.field(default=512)
    swap: int = 512
    cores: int | None = None
    hostname: str | None = None
    storage: str | None = None
    size: int | None = None
    nets: tuple[Net, ...] = (Net(),)
    ssh_public_keys: tuple[str, ...] = ()
    unprivileged: bool = True
    onboot: bool = False
    tags: tuple[str, ...] = ()
    description: str = ""
    backend: str | None = None
    node: str | None = None
    bundle: str | None = None
    annotations: Mapping[str, str] = {}
    vm: Vm | None = None
    pull: bool = False
    source: str | None = None
    linked: bool = False
    snapshot: str | None = None
    mounts: Mapping[str, str] = {}
    devices: Mapping[str, str] = {}
    cpulimit: float | None = None
    cpuunits: int | None = None
    features: str | None = None
    startup: str | None = None
    nameserver: tuple[str, ...] = ()
    searchdomain: tuple[str, ...] = ()
    timezone: str | None = None
    pool: str | None = None
    hookscript: str | None = None
    arch: str | None = None
    ostype: str | None = None
    protection: bool = False
    content: Content | None = None
    allow: tuple[str, ...] = ()
    keep_template: bool = False
    oci_version: str | None = None
    gate: bool = False

    def __post_init__(self) -> None:
        if not self.image and self.bundle:
            msgspec.structs.force_setattr(self, "image", self.bundle)
        _text("image", self.image)
        if self.source is None:
            names.image(self.image)
            if self.linked or self.snapshot is not None:
                _refuse("source", self.source, "the container of which it is a copy, with linked or snapshot")
        else:
            self._check_copy(self.source)
        for field, kind in (("nets", Net), ("ssh_public_keys", str), ("tags", str), ("allow", str)):
            _several(self, field, kind)
        _flag("unprivileged", self.unprivileged)
        _flag("onboot", self.onboot)
        _flag("pull", self.pull)
        _flag("keep_template", self.keep_template)
        _flag("gate", self.gate)
        if self.oci_version is not None:
            _full(_VERSION, "oci_version", self.oci_version, "a version such as 1.3.0")
        _integer("memory", self.memory, 16, 1 << 30)
        _integer("swap", self.swap, 0, 1 << 30)
        if self.cores is not None:
            _integer("cores", self.cores, 1, 8192)
        if self.size is not None:
            _integer("size", self.size, 1, 1 << 20)
        if self.hostname is not None:
            names.hostname(self.hostname)
        if self.storage is not None:
            names.storage(self.storage)
        if len(self.nets) > 32 or len({net.name for net in self.nets}) != len(self.nets):
            _refuse("nets", [net.name for net in self.nets], "at most 32 interfaces, each name once")
        for tag in self.tags:
            names.tag(tag)
        for key in self.ssh_public_keys:
            _full(_SSH_KEY, "ssh_public_keys", key, "one line of an authorized_keys file, printable ASCII")
        if self.backend is not None:
            _full(_BACKEND, "backend", self.backend, "a backend's name, such as lxc")
        if self.node is not None:
            _full(_NODE, "node", self.node, "the host string of a node of the fleet")
        if self.bundle is not None:
            names.path(self.bundle)
        if self.vm is not None and not isinstance(self.vm, Vm):
            _refuse("vm", self.vm, "a nexcage.Vm")
        if self.content is not None and not isinstance(self.content, Content):
            _refuse("content", self.content, "a nexcage.Content")
        _text("description", self.description)
        if len(self.description) > 4096 or _CONTROL.search(self.description):
            _refuse("description", self.description, "at most 4096 characters, newline as the only control character")
        if re.search(r"^nexcage fleet=", self.description, re.MULTILINE):
            _refuse("description", self.description, "no line that begins like our own mark, 'nexcage fleet='")
        if not isinstance(self.annotations, Mapping):
            _refuse("annotations", self.annotations, "a mapping of text to text")
        for key, value in self.annotations.items():
            _annotation(key, value)
        self._check_settings()

    def _check_settings(self) -> None:
        settings.check_mounts(self.mounts)
        settings.check_devices(self.devices)
        settings.check_limits(self.cpulimit, self.cpuunits)
        _flag("protection", self.protection)
        for field in ("nameserver", "searchdomain"):
            _several(self, field, str)
        for field in _SETTINGS:
            value: object = getattr(self, field)
            if value is not None and value != ():
                settings.check(field, value)

    def _check_copy(self, source: str) -> None:
        names.container_id(source)
        _flag("linked", self.linked)
        if self.snapshot is not None:
            names.snapshot(self.snapshot)

    @classmethod
    def from_container(
        cls,
        source: str,
        *,
        linked: bool = False,
        snapshot: str | None = None,
        hostname: str | None = None,
        storage: str | None = None,
        description: str = "",
        annotations: Mapping[str, str] = {},
    ) -> Spec:
        """A copy of the container ``source`` of the same fleet, on the same node; everything else is as there. ``linked`` shares its
        disks and takes a moment, if ``source`` is a template; else they are copied, of a running one only as they were at ``snapshot``.
        """
        if linked and storage is not None:
            _refuse("storage", storage, "none: a linked copy lies where its template lies")
        return cls(
            image="",
            source=source,
            linked=linked,
            snapshot=snapshot,
            hostname=hostname,
            storage=storage,
            description=description,
            annotations=annotations,
        )


def _annotation(key: object, value: object) -> None:
    if (
        not isinstance(key, str)
        or not isinstance(value, str)
        or not key
        or re.search(r"[\x00\ud800-\udfff]", key + value)
    ):
        _refuse("annotations", key, "non-empty text keys and text values, without NUL and lone surrogates")


UNSAID: Mapping[str, object] = dict(
    zip(reversed(Spec.__struct_fields__), reversed(Spec.__struct_defaults__), strict=False)
)
"""What the fields of a Spec are when nobody says."""
