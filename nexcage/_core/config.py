"""Settings as values, and reading them from TOML documents; later documents win, unknown keys are errors with a suggestion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, cast, get_args, get_type_hints

import msgspec

from nexcage import names
from nexcage._core.hosts import Host, hosts
from nexcage._core.plugin import PluginConfig
from nexcage._core.runtimes import RUNTIMES
from nexcage.errors import InvalidInput, InvalidSpec

__all__ = [
    "BackendConfig",
    "Config",
    "ContentsConfig",
    "Defaults",
    "LeaseConfig",
    "Limits",
    "NodeConfig",
    "Route",
    "ZfsConfig",
    "layered",
    "merge",
    "read",
]

T = TypeVar("T")
_COUNTS = ("total", "per_node", "creates_per_node", "retries", "breaker_failures", "subscriber_queue")
_KINDS = ("", "template", "path", "reference", "disk")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every bound in one place. Times in seconds.

    ``total`` operations at once in the fleet, ``per_node`` on a node, ``creates_per_node`` of them creates (they are heavy).
    ``op_timeout`` bounds one operation with its retries, from its turn on, ``settle_timeout`` the wait for the wanted
    state after the commands said yes,
    ``probe_timeout`` the search for the truth after a lost answer. ``retries`` per operation; over the whole fleet at most
    ``retry_share`` of the operations plus ten. A node is left alone for ``breaker_seconds`` after
    ``breaker_failures`` failures in a row.
    """

    total: int = 200
    per_node: int = 8
    creates_per_node: int = 4
    op_timeout: float = 1800.0
    connect_timeout: float = 15.0
    settle_timeout: float = 20.0
    probe_timeout: float = 60.0
    retries: int = 4
    retry_share: float = 0.1
    retry_base: float = 0.5
    retry_most: float = 20.0
    breaker_failures: int = 3
    breaker_seconds: float = 10.0
    subscriber_queue: int = 4096

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
                raise InvalidSpec(f"limits.{field}", value, "a number from 0 to 1e9")
        for field in _COUNTS:
            if not isinstance(getattr(self, field), int):
                raise InvalidSpec(f"limits.{field}", getattr(self, field), "a whole number")
            if getattr(self, field) < 1 and field != "retries":
                raise InvalidSpec(f"limits.{field}", getattr(self, field), "at least 1")


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The login of one node where the host string alone does not say it."""

    address: str = ""
    user: str = ""
    port: int = 0
    identity_file: str = ""
    known_hosts: str = ""
    jump: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InvalidSpec("nodes.port", self.port, "a port from 1 to 65535")


class LeaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may drive the fleet when several state directories could.

    ``file``: one host; ``path`` is a file that its state directories share (default: STATE_DIR/lease, so there is nobody to share
    with). ``cluster``: drivers on several hosts; a lock directory in ``/etc/pve/priv/lock``, asked for through ``node`` (default:
    the first that answers). ``ttl``: seconds without a renewal after which another one may take it.
    """

    kind: Literal["file", "cluster"] = "file"
    path: str = ""
    node: str = ""
    ttl: float = 120.0

    def __post_init__(self) -> None:
        if self.path and (self.kind != "file" or not self.path.startswith("/")):
            raise InvalidSpec("lease.path", self.path, "an absolute path, with kind = 'file' only")
        if self.node and self.kind != "cluster":
            raise InvalidSpec("lease.node", self.node, "a node with kind = 'cluster' only")
        if not 10 <= self.ttl <= 86400:
            raise InvalidSpec("lease.ttl", self.ttl, "10 to 86400 seconds")
        if self.kind == "cluster" and self.ttl > 120:
            raise InvalidSpec(
                "lease.ttl", self.ttl, "at most 120 for kind = 'cluster': pmxcfs lets go of a lock directory then"
            )


class ZfsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dataset of its own for each new container: ``POOL/containers/ID-VMID`` (``pool = "POOL"``) or ``POOL/PATH/ID-VMID``.

    It becomes the root disk, through the directory storage ``storage`` on the parent's mountpoint, or (``mount``) a data disk at that
    path. ``required``: where the pool is missing, a create fails instead of going on without. ``on_delete``: what becomes of it.
    ``properties`` are ZFS's own.
    """

    pool: str = ""
    required: bool = False
    on_delete: Literal["destroy", "keep", "rename"] = "destroy"
    mount: str = ""
    storage: str = "nexcage-zfs"
    properties: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        for field, check in (("pool", names.dataset), ("storage", names.storage), ("mount", names.path)):
            value: str = getattr(self, field)
            try:
                if value:
                    check(value)
            except InvalidInput as error:
                raise InvalidSpec(f"zfs.{field}", value, error.reason) from None
        if self.required and not self.pool:
            raise InvalidSpec("zfs.required", self.required, "with zfs.pool only")
        if self.mount and not re.fullmatch(r"(/[A-Za-z0-9_.+-]+)+", self.mount):
            raise InvalidSpec(
                "zfs.mount", self.mount, "an absolute path inside the container, of A-Z a-z 0-9 _ . + - and /"
            )
        for key, value in self.properties.items():
            if not re.fullmatch(r"[a-z0-9:_.-]{1,255}", key) or key in _OURS or key.startswith("org.nexcage:"):
                raise InvalidSpec(
                    "zfs.properties", key, f"names of ZFS properties, without {', '.join(_OURS)} and org.nexcage:"
                )
            if not value or not value.isprintable() or len(value) > 1024:
                raise InvalidSpec(f"zfs.properties.{key}", value, "1 to 1024 printable characters")


class ContentsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Root file systems from this machine. ``cache``: GiB that are kept of them in STATE_DIR/contents. An image that takes more than
    ``image_size`` GiB unpacked, or has more than ``entries`` files, is refused.
    """

    cache: int = 20
    image_size: int = 64
    entries: int = 2_000_000

    def __post_init__(self) -> None:
        for field, most in (("cache", 1 << 20), ("image_size", 1 << 20), ("entries", 1 << 40)):
            value: int = getattr(self, field)
            if not 1 <= value <= most:
                raise InvalidSpec(f"contents.{field}", value, f"1 to {most}")


_OURS = ("mountpoint", "canmount", "refquota")


class BackendConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[backends.NAME]``, for ``crun`` and ``runc``. ``command``: an argv that stands for the program's name, where it needs a
    helper in front of it or is not on the ``PATH``; its arguments follow.
    """

    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.command:
            if not word or "\0" in word:
                raise InvalidSpec(
                    "backends.command", list(self.command), "a program and its arguments, none of them empty"
                )


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a create gets when it does not say. ``size`` of the root file system in GiB and whole ``cores``, 0 for PVE's own choice;
    ``image_storage`` is where a plain template name is looked for and images are pulled to.
    """

    backend: str = "lxc"
    storage: str = ""
    bridge: str = ""
    size: int = 0
    cores: int = 0
    image_storage: str = "local"

    def __post_init__(self) -> None:
        if not 0 <= self.size <= 1 << 20:
            raise InvalidSpec("defaults.size", self.size, "GiB from 1 to 1048576")
        if not 0 <= self.cores <= 8192:
            raise InvalidSpec("defaults.cores", self.cores, "1 to 8192 cores")
        try:
            names.storage(self.image_storage)
        except InvalidInput as error:
            raise InvalidSpec("defaults.image_storage", self.image_storage, error.reason) from None


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A routing rule: when the id (glob, or a regex between slashes), the image kind and the tags match, this
    backend and these nodes.
    """

    id: str = "*"
    image: str = ""
    tag: str = ""
    backend: str = ""
    nodes: str = "*"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of a fleet. ``vmids`` is the inclusive range for new containers. Empty directories mean
    ``/var/lib/nexcage`` and ``/run/nexcage`` for root, else those below the XDG directories. ``runner``: ``auto`` runs the
    commands of remote nodes through one runner on each, and without it where that cannot run; ``always`` also on this
    machine, and a node where it cannot run is not usable; ``off`` never. ``on_drift``: what a reconcile does about a
    container that somebody else changed: ``report`` it, ``adopt`` what it is now, or ``revert`` it. ``watch``: a program that has the
    fleet open notices such changes by itself. ``discover``: host strings of
    nodes; the first that answers names the nodes of its cluster. ``pull``: images that a node lacks are downloaded by a create.
    ``images``: alias to image, or to a table of backend to image. ``placement``: ``spread``, the default, ``count``,
    ``memory``, or the name of a plugin. ``poststart``: what such a hook of a bundle does when it fails: ``fail`` the start, which stops
    the container and removes one that never ran before, or only ``warn``.
    """

    fleet: str = ""
    state_dir: str = ""
    run_dir: str = ""
    hosts: tuple[str, ...] = ()
    discover: str = ""
    nodes: Mapping[str, NodeConfig] = {}
    known_hosts: str = ""
    ssh_config: str = ""
    trust_on_first_use: bool = False
    limits: Limits = Limits()
    vmids: tuple[int, int] = (10_000, 999_999)
    defaults: Defaults = Defaults()
    images: Mapping[str, str | Mapping[str, str]] = {}
    pull: bool = False
    routing: tuple[Route, ...] = ()
    bundle_roots: tuple[str, ...] = ("/var/lib/nexcage/bundles",)
    strict_oci: bool = False
    runner: Literal["auto", "always", "off"] = "auto"
    on_drift: Literal["report", "adopt", "revert"] = "report"
    poststart: Literal["fail", "warn"] = "fail"
    watch: bool = False
    lease: LeaseConfig = LeaseConfig()
    zfs: ZfsConfig = ZfsConfig()
    contents: ContentsConfig = ContentsConfig()
    placement: str = ""
    plugins: Mapping[str, PluginConfig] = {}
    backends: Mapping[str, BackendConfig] = {}

    def __post_init__(self) -> None:
        for name in self.backends:
            if name not in RUNTIMES:
                raise InvalidSpec(f"backends.{name}", name, f"one of {', '.join(sorted(RUNTIMES))}")
        low, high = self.vmids
        if not 100 <= low <= high <= 999_999_999:
            raise InvalidSpec("vmids", list(self.vmids), "[LOW, HIGH] within 100..999999999")
        if self.hosts and self.discover:
            raise InvalidSpec("discover", self.discover, "either hosts or discover, not both")
        if self.discover:
            try:
                hosts(self.discover)
            except InvalidInput as error:
                raise InvalidSpec("discover", self.discover, error.reason) from None
        if self.fleet and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", self.fleet):
            raise InvalidSpec("fleet", self.fleet, "1 to 64 ASCII letters, digits and _ . -")
        for index, route in enumerate(self.routing):
            if route.image not in _KINDS:
                raise InvalidSpec(f"routing[{index}].image", route.image, f"one of {', '.join(_KINDS[1:])}")
            if route.id.startswith("/"):
                try:
                    re.compile(route.id.strip("/"))
                except (re.error, OverflowError, RecursionError):
                    raise InvalidSpec(
                        f"routing[{index}].id", route.id, "a valid regular expression between slashes"
                    ) from None

    def logins(self) -> tuple[Host, ...]:
        """The hosts with everything known about their logins, in order; those named only under ``nodes`` too."""
        keys = hosts(self.hosts) if self.hosts else tuple(self.nodes)
        return tuple(self.login(key) for key in keys)

    def login(self, key: str) -> Host:
        """The login of one host string; raises InvalidName."""
        host = Host.parse(key)
        known = self.nodes.get(key, NodeConfig())
        return Host(
            key,
            address=known.address or host.address,
            user=known.user or host.user,
            port=known.port or host.port,
            identity_file=known.identity_file,
            known_hosts=known.known_hosts or self.known_hosts,
            jump=known.jump,
        )


def merge(*documents: Mapping[str, Any]) -> dict[str, Any]:  # Any: TOML values
    """One document out of several: tables are merged key by key, everything else is replaced by the later one."""
    merged: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            before = merged.get(key)
            if isinstance(before, dict) and isinstance(value, Mapping):
                merged[key] = merge(before, value)  # pyright: ignore[reportUnknownArgumentType]
            else:
                merged[key] = value
    return merged


def layered(*documents: Mapping[str, Any]) -> dict[str, Any]:  # Any: TOML values
    """The same for whole files, where ``hosts`` and ``discover`` are two ways to say one thing: the later one stands."""
    merged: dict[str, Any] = {}
    for document in documents:
        for one, other in (("hosts", "discover"), ("discover", "hosts")):
            if document.get(one) and not document.get(other):
                merged.pop(other, None)
        merged = merge(merged, document)
    return merged


def read(document: Mapping[str, Any]) -> Config:  # Any: TOML values
    """The settings of a document. Raises InvalidSpec with the dotted key, what is allowed, and the closest known key."""
    _known_keys(document, Config, "")
    for key in document.get("nodes", {}) if isinstance(document.get("nodes"), dict) else ():
        Host.parse(key)
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        if isinstance(cause, InvalidSpec):
            raise cause from None
        message, _, where = str(error).partition(" - at `")
        dotted = _dotted(where.strip("`$."), document)
        raise InvalidSpec(
            dotted or "config", _value(re.split(r"[.\[]", dotted), document), _allowed(dotted) or message
        ) from None
    for alias, target in config.images.items():
        names.image(alias)
        for one in [target] if isinstance(target, str) else target.values():
            names.image(one)
    return config


def _dotted(where: str, document: Mapping[str, Any]) -> str:  # Any: TOML values
    """A path of msgspec with the name of the entry where it only says ``[...]``."""
    table, found, rest = where.partition("[...]")
    if not found:
        return where
    kinds: dict[str, Any] = {
        "nodes": NodeConfig,
        "plugins": PluginConfig,
        "backends": BackendConfig,
    }  # Any: a type or a union
    kind = kinds.get(table, str | dict[str, str])
    for name, value in document[table].items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return f"{table}.{name}{rest}"
    return where


def _value(keys: Sequence[str], there: object) -> object:
    """What these keys lead to, as far as they do."""
    if not keys or not isinstance(there, Mapping):
        return there
    table = cast("Mapping[str, object]", there)
    return _value(keys[1:], table[keys[0]]) if keys[0] in table else table


def _allowed(dotted: str) -> str:
    """The words that a setting takes, where those are counted."""
    table, _, key = dotted.rpartition(".")
    kind = _INNER.get(table) if table else Config
    words = get_args(get_type_hints(kind).get(key)) if kind is not None else ()
    return f"one of {', '.join(words)}" if words and all(isinstance(word, str) for word in words) else ""


_INNER: dict[str, type[msgspec.Struct]] = {
    "limits": Limits,
    "defaults": Defaults,
    "lease": LeaseConfig,
    "zfs": ZfsConfig,
    "contents": ContentsConfig,
    "nodes.*": NodeConfig,
    "plugins.*": PluginConfig,
    "backends.*": BackendConfig,
    "routing.*": Route,
}


def _known_keys(table: Mapping[str, Any], kind: type[msgspec.Struct], prefix: str) -> None:
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if key not in kind.__struct_fields__:
            close = get_close_matches(str(key), kind.__struct_fields__, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"one of {', '.join(kind.__struct_fields__)}"
            raise InvalidSpec(dotted, key, f"no such setting: {hint}")
        if prefix:
            continue
        if key in _INNER and isinstance(value, dict):
            _known_keys(cast("Mapping[str, object]", value), _INNER[key], f"{dotted}.")
        if f"{key}.*" in _INNER:
            for name, inner in _entries(cast("object", value)):
                if isinstance(inner, Mapping):
                    _known_keys(cast("Mapping[str, object]", inner), _INNER[f"{key}.*"], f"{dotted}.{name}.")


def _entries(value: object) -> list[tuple[object, object]]:
    if isinstance(value, Mapping):
        return list(cast("Mapping[object, object]", value).items())
    return list(enumerate(cast("list[object]", value))) if isinstance(value, list) else []
