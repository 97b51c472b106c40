"""What ``zfs get`` and ``zfs list`` show of the model's datasets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node

__all__ = [
    "SIZE",
    "USAGE",
    "Failed",
    "human",
    "in_bytes",
    "kind_of",
    "mountpoint_of",
    "property_of",
    "require",
    "selected",
]

Datasets: TypeAlias = Mapping[str, Mapping[str, str]]
SIZE = 480_000_000_000
USAGE = "usage:\n\tzfs command args ...\nwhere 'command' is one of the following:\n"
SIZES = ("refquota", "quota", "reservation", "refreservation", "volsize")
DEFAULTS = {
    "compression": "on",
    "atime": "on",
    "relatime": "on",
    "sync": "standard",
    "recordsize": "131072",
    "canmount": "on",
    "acltype": "off",
    "xattr": "on",
    "exec": "on",
    "setuid": "on",
    "devices": "on",
    "readonly": "off",
    "snapdir": "hidden",
    "copies": "1",
    "dedup": "off",
    "logbias": "latency",
    "primarycache": "all",
    "secondarycache": "all",
}
_UNITS = ("", "K", "M", "G", "T", "P")
_USED = 98304  # bytes of an empty one


class Failed(Exception):
    """The tool refuses with this text."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status: int = status


def human(size: int) -> str:
    """A size as it is shown without ``-p``: rounded."""
    value, unit = float(size), 0
    while value >= 1024:
        value, unit = value / 1024, unit + 1
    if not unit:
        return f"{size}B"
    return f"{value:.3g}{_UNITS[unit]}" if value < 100 else f"{value:.0f}{_UNITS[unit]}"


def in_bytes(text: str) -> int:
    """A size as it is given."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kKmMgGtT]?)[bB]?", text)
    if found is None:
        raise Failed(f"cannot set property: bad numeric value '{text}'")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def kind_of(name: str, entry: Mapping[str, str]) -> str:
    return "snapshot" if "@" in name else entry.get("type", "filesystem")


def _inherited(known: Datasets, name: str, key: str) -> tuple[str, str] | None:
    """The nearest value of a property, and who set it."""
    while name:
        if key in known.get(name, {}):
            return known[name][key], name
        name = name.rpartition("@" if "@" in name else "/")[0]
    return None


def mountpoint_of(known: Datasets, name: str) -> tuple[str, str]:
    """Where a file system is mounted (or none), and the source of that."""
    found = _inherited(known, name, "mountpoint")
    if found is None:
        return f"/{name}", "default"
    value, owner = found
    if owner == name:
        return value, "local"
    return (value + name[len(owner) :] if value.startswith("/") else value), f"inherited from {owner}"


def mounted(known: Datasets, name: str) -> bool:
    entry = known[name]
    there = mountpoint_of(known, name)[0].startswith("/") and entry.get("canmount", "on") == "on"
    return there and "unmounted" not in entry and kind_of(name, entry) == "filesystem"


def _sizes(node: Node, known: Datasets, name: str, key: str) -> int:
    used = _USED if "/" in name else _USED * max(1, len(known))
    if key == "used":
        return 0 if "@" in name else used
    if key in ("available", "avail"):
        full = node.files.exists(f"{SIM}/full/{name.split('/', maxsplit=1)[0]}")
        return 0 if full else min(SIZE - used, int(known[name].get("refquota", SIZE)) - _USED)
    return _USED


def property_of(node: Node, name: str, key: str, exact: bool) -> tuple[str, str]:
    """Value and source."""
    known = storage.datasets(node)
    entry = known[name]
    kind = kind_of(name, entry)
    if key in SIZES and key in entry:
        return (entry[key] if exact else human(int(entry[key]))), "local"
    if key in SIZES and key != "volsize" and kind == "filesystem":
        return ("0" if exact else "none"), "default"
    if key in ("used", "refer", "referenced", "available", "avail"):
        if kind == "snapshot" and key in ("available", "avail"):
            return "-", "-"
        size = _sizes(node, known, name, key)
        return (str(size) if exact else human(size)), "-"
    if key == "creation":
        when = int(entry.get("creation", 0))
        return (str(when) if exact else datetime.fromtimestamp(when, UTC).strftime("%a %b %e %H:%M %Y")), "-"
    fixed = {
        "name": name,
        "type": kind,
        "origin": entry.get("origin", "-"),
        "mounted": ("yes" if mounted(known, name) else "no") if kind == "filesystem" else "-",
        "userrefs": str(len(entry.get("holds", "").split())) if kind == "snapshot" else "-",
    }
    if key in fixed:
        return fixed[key], "-"
    if key == "mountpoint":
        return mountpoint_of(known, name) if kind == "filesystem" else ("-", "-")
    return _settable(known, name, key)


def _settable(known: Datasets, name: str, key: str) -> tuple[str, str]:
    found = _inherited(known, name, key) if ":" in key or key in DEFAULTS else None
    if found is not None:
        return found[0], "local" if found[1] == name else f"inherited from {found[1]}"
    if key in DEFAULTS:
        return DEFAULTS[key], "default"
    if ":" in key:
        return "-", "-"
    raise Failed(f"bad property list: invalid property '{key}'\n{USAGE.rstrip()}", 2)


def require(node: Node, name: str) -> None:
    if name not in storage.datasets(node):
        raise Failed(f"cannot open '{name}': dataset does not exist")


def selected(node: Node, names: list[str], flags: Mapping[str, list[str]], kinds: set[str]) -> list[str]:
    """The datasets that are asked for: by name, with those below them as far as ``-d`` or ``-r`` says."""
    known = storage.datasets(node)
    depth = int(flags["d"][0]) if flags.get("d") else (99 if "r" in flags or not names else 0)
    roots = names or [other for other in known if "/" not in other and "@" not in other]
    found: list[str] = []
    for name in sorted(known):
        if kind_of(name, known[name]) not in kinds and name not in names:
            continue
        for root in roots:
            below = name == root or re.match(re.escape(root) + "[/@]", name) is not None
            levels = name[len(root) :].count("/") + name[len(root) :].count("@")
            if below and levels <= depth:
                found.append(name)
                break
    return found
