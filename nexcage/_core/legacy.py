"""The configuration of NexCage (``config.json``) and of its own predecessor (``proxmox-lxcri.json``) as settings of ours.

Nothing is lost silently: what has no counterpart is named with the reason. Patterns are read as they were meant, not as that
program's matcher read them: ``^vm-`` is a beginning, ``db$`` an end, ``.*`` everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from nexcage import names
from nexcage.errors import InvalidInput, InvalidSpec

__all__ = ["ConvertedConfig", "Dropped", "convert", "pattern"]

_API = "nexcage runs commands on the nodes and does not use the HTTP API"
_LOGGING = "an option of the command line (--log-level, --log-file), not a setting"
_PER_CONTAINER = "is said for each container"
_REASONS: Mapping[str, str] = {
    "proxmox.hosts": f"{_API}; hosts = [...] lists nodes to reach over SSH",
    "proxmox.node": "nodes are named by hosts, and by --node for one container",
    "proxmox.port": _API,
    "proxmox.token": _API,
    "proxmox.verify_ssl": _API,
    "proxmox.node_cache_duration": _API,
    "proxmox.legacy_api": _API,
    "proxmox.pct_path": "PVE's tools are found on PATH",
    "proxmox.timeout": "limits has the deadlines: op_timeout, connect_timeout, probe_timeout",
    "proxmox.ostype": "PVE finds it out from the template",
    "proxmox.unprivileged": f"{_PER_CONTAINER}: --privileged, Spec.unprivileged; unprivileged is the default",
    "runtime_type": "NexCage did not use it either; defaults.backend says it",
    "log_level": _LOGGING,
    "log_file": _LOGGING,
    "cache_dir": "there is no cache",
    "temp_dir": "there are no temporary files",
    "runtime.log_level": _LOGGING,
    "runtime.log_path": _LOGGING,
    "runtime.log_format": "an option of the OCI dialect, --log-format",
    "runtime.systemd_cgroup": "on PVE the node's systemd has the cgroups anyway",
    "runtime.terminal": "containers run in the background",
    "network.ip": f"{_PER_CONTAINER}: --net name=eth0,bridge=...,ip=...",
    "network.gateway": f"{_PER_CONTAINER}: --net name=eth0,bridge=...,ip=...,gw=...",
    "network.dns_servers": "containers take the node's",
    "networking.vlan_aware": f"{_PER_CONTAINER}: --net ...,tag=N",
    "networking.mtu": f"{_PER_CONTAINER}: --net ...,mtu=N",
    "resources.memory": f"{_PER_CONTAINER}: --memory",
    "resources.disk": f"{_PER_CONTAINER}: --size; its unit was never said",
    "resources.network_bandwidth": f"{_PER_CONTAINER}: --net ...,rate=N",
    "storage.image_path": "images lie on PVE's storages; defaults.image_storage names one",
    "zfs.auto_detect": "the pool is named",
    "zfs.snapshot_retention": "there is no retention of snapshots",
    "container_config.default_container_type": "NexCage did not use it either; defaults.backend says it",
}
_KNOWN = ("lxc", "pct", "proxmox-lxc", "vm", "qemu", "proxmox-vm", "crun", "runc")
_BACKENDS = {**{name: names.backend(name) for name in _KNOWN}, "proxmox": "vm"}


class Dropped(msgspec.Struct, frozen=True):
    """A key of the old file that has no counterpart, or whose value could not be taken."""

    key: str
    reason: str


class ConvertedConfig(msgspec.Struct, frozen=True):
    """``config`` is a document that TOML can say and that is read as a `Config`."""

    config: Mapping[str, Any]  # Any: TOML values
    dropped: tuple[Dropped, ...] = ()


def convert(document: object) -> ConvertedConfig:
    """The settings that an old configuration means. Raises InvalidSpec when it is not one at all."""
    if not isinstance(document, Mapping):
        raise InvalidSpec("config", type(document).__name__, "a JSON object, as NexCage's config.json is")
    old = _Old(_table(cast("object", document)))
    new: dict[str, Any] = {}  # Any: TOML values
    _directories(old, new)
    _defaults(old, new)
    _zfs(old, new)
    _routing(old, new)
    return ConvertedConfig({key: value for key, value in new.items() if value}, tuple(old.rest()))


class _Old:
    """The old document; what was taken, and what could not be."""

    def __init__(self, document: Mapping[str, object]) -> None:
        self._document = document
        self._taken: set[str] = set()
        self._refused: list[Dropped] = []

    def take(self, *dotted: str) -> object:
        """The first of these keys that is there and not null; all of them count as seen."""
        values = [self._find(key) for key in dotted]
        self._taken.update(dotted)
        return next((value for value in values if value is not None), None)

    def text(self, *dotted: str) -> str:
        value = self.take(*dotted)
        if value is not None and not isinstance(value, str):
            self.refuse(dotted[0], f"{value!r} is not text")
        return value if isinstance(value, str) else ""

    def refuse(self, key: str, reason: str) -> None:
        self._refused.append(Dropped(key, reason))

    def rest(self) -> Iterator[Dropped]:
        """What was refused, and every key that nobody took."""
        yield from self._refused
        for key in _leaves(self._document, ""):
            if not any(key == taken or key.startswith(f"{taken}.") for taken in self._taken):
                known = next((why for old, why in _REASONS.items() if key == old or key.startswith(f"{old}.")), "")
                security = "isolation is PVE's own" if key.startswith("security.") else ""
                yield Dropped(key, known or security or "no such setting")

    def _find(self, dotted: str) -> object:
        there: object = self._document
        for part in dotted.split("."):
            there = _table(there).get(part)
        return there


def _leaves(table: Mapping[str, object], prefix: str) -> Iterator[str]:
    for key, value in table.items():
        if _table(value):
            yield from _leaves(_table(value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _directories(old: _Old, new: dict[str, Any]) -> None:  # Any: TOML values
    new["state_dir"] = old.text("data_dir", "runtime.root_path")
    new["run_dir"] = old.text("runtime.root")
    for key in ("state_dir", "run_dir"):
        if new[key] and not new[key].startswith("/"):
            old.refuse("data_dir" if key == "state_dir" else "runtime.root", f"{new[key]!r} is not an absolute path")
            new[key] = ""


def _defaults(old: _Old, new: dict[str, Any]) -> None:  # Any: TOML values
    found: dict[str, Any] = {"bridge": old.text("network.bridge", "networking.bridge")}  # Any: likewise
    storage = old.text("proxmox.storage")
    try:
        found["storage"] = names.storage(storage) if storage else ""
    except InvalidInput as error:
        old.refuse("proxmox.storage", error.reason)
    for key, name in (("proxmox.rootfs_size_gb", "size"), ("resources.cpu", "cores")):
        number = old.take(key)
        if isinstance(number, (int, float)) and 1 <= number <= 8192 and number == int(number):
            found[name] = int(number)
        elif number is not None:
            old.refuse(key, f"{number!r} is not a whole number from 1 on")
    runtime = old.text("container_config.default_runtime", "default_runtime")
    if runtime:
        found["backend"] = _backend(old, "container_config.default_runtime", runtime)
    new["defaults"] = {key: value for key, value in found.items() if value and (key, value) != ("backend", "lxc")}


def _zfs(old: _Old, new: dict[str, Any]) -> None:  # Any: TOML values
    enabled, dataset = old.take("zfs.enabled"), old.text("zfs.base_dataset", "storage.zfs_dataset")
    compression, deduplication = old.take("zfs.compression"), old.take("zfs.deduplication")
    if not dataset or enabled is False:
        for key in ("zfs.enabled", "zfs.base_dataset") if dataset or enabled else ():
            old.refuse(key, "zfs.enabled and zfs.base_dataset together name the pool")
        return
    try:
        pool = names.dataset(dataset)
    except InvalidInput as error:
        old.refuse("zfs.base_dataset", error.reason)
        return
    properties: dict[str, str] = {}
    if isinstance(compression, (str, bool)):
        properties["compression"] = compression if isinstance(compression, str) else ("on" if compression else "off")
    if deduplication is True:
        properties["dedup"] = "on"
    new["zfs"] = {"pool": pool, **({"properties": properties} if properties else {})}


def _routing(old: _Old, new: dict[str, Any]) -> None:  # Any: TOML values
    where = "container_config.routing" if old.take("container_config.routing") else "runtime.routing"
    rules = old.take(where)
    if where == "container_config.routing" and old.take("runtime.routing"):
        old.refuse("runtime.routing", "container_config.routing takes its place")
    found: list[dict[str, str]] = []
    for index, rule in enumerate(_rows(rules)):
        found += _rule(old, f"{where}[{index}]", rule)
    for index, glob in enumerate(_rows(old.take("container_config.crun_name_patterns"))):
        key = f"container_config.crun_name_patterns[{index}]"
        found += _rule(old, key, {"pattern": glob, "runtime": "crun"})
    new["routing"] = found


def _table(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _rows(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _rule(old: _Old, key: str, rule: object) -> list[dict[str, str]]:
    given = _table(rule)
    text, runtime = given.get("pattern"), given.get("runtime")
    if not isinstance(text, str) or not isinstance(runtime, str):
        old.refuse(key, "not an object with the texts pattern and runtime")
        return []
    for other in set(given) - {"pattern", "runtime"}:
        old.refuse(f"{key}.{other}", "no such setting")
    backend = _backend(old, f"{key}.runtime", runtime)
    try:
        return [{"id": pattern(text), "backend": backend}] if backend else []
    except InvalidInput as error:
        old.refuse(f"{key}.pattern", error.reason)
        return []


def _backend(old: _Old, key: str, runtime: str) -> str:
    if runtime not in _BACKENDS:
        old.refuse(key, f"{runtime!r} is no runtime: {', '.join(sorted(_BACKENDS))}")
    return _BACKENDS.get(runtime, "")


def pattern(text: str) -> str:
    """The id of a `Route` that an old pattern was meant to be: a glob, or a regular expression between slashes."""
    if text in (".*", "*", "^.*$", "^.*", ".*$", "^", "$", ""):
        return "*"
    if not re.search(r"[\^$|()\[\]\\+{}]|\.\*", text):
        return text
    anchored = text.startswith("^") or text.endswith("$")
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise InvalidSpec("pattern", text, "neither a glob nor a valid regular expression") from None
    if "/" in text:
        raise InvalidSpec("pattern", text, "without '/', which no id has")
    return f"/{text}/" if anchored else f"/^(?:{text})$/"
