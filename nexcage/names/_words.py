"""Names of containers, hosts, nodes, storages, tags, snapshots, datasets and operations, by PVE's and ZFS's rules."""

from __future__ import annotations

import re

from nexcage.errors import InvalidName
from nexcage.names._checks import matched, text, whole

_CONTAINER_ID = r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,127}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"
_VMID = r"[1-9][0-9]{2,8}"
_STORAGE = r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_+.-]*"
_SNAPSHOT = r"[A-Za-z][A-Za-z0-9_-]+"
_OP_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_WORD = "1 to 128 of A-Z a-z 0-9 _ + . - and the first one a letter, a digit or _"
_DNS = "labels of 1 to 63 of A-Z a-z 0-9 - joined by dots, none beginning or ending with -, at most 255 in all"
_STORAGE_ID = "2 to 100 of A-Z a-z 0-9 . _ - beginning with a letter and ending with a letter or digit"
_DATASET_PART = r"[A-Za-z0-9_.: -]+"
_BACKEND = r"[a-z][a-z0-9-]{0,31}"
_BACKENDS = {"proxmox-lxc": "lxc", "pct": "lxc", "qemu": "vm", "proxmox-vm": "vm"}
_RESERVED_POOL = r"(?:mirror|raidz|draid|spare).*|log"


def container_id(value: object) -> str:
    """An id as runc and crun take it: 1 to 128 of ``A-Za-z0-9_+.-``, the first one a letter, a digit or ``_``."""
    return matched("container_id", value, _CONTAINER_ID, 128, _WORD)


def hostname(value: object) -> str:
    """A DNS name as PVE takes it: labels of up to 63 joined by dots, up to 255 in all, no underscore, no final dot."""
    return matched("hostname", value, _HOSTNAME, 255, _DNS)


def node(value: object) -> str:
    """The name of a PVE node: one DNS label."""
    return matched("node", value, _LABEL, 63, "1 to 63 of A-Z a-z 0-9 - and no - at either end")


def storage(value: object) -> str:
    """A storage id: 2 to 100 characters. PVE names no maximum; ours leaves room for lock files that carry it."""
    return matched("storage", value, _STORAGE, 100, _STORAGE_ID)


def tag(value: object) -> str:
    """A tag, lower-cased as PVE stores it; up to 128 characters (PVE names no maximum)."""
    # lower() only after the match: of a K that is KELVIN SIGN it would make an honest k.
    return matched("tag", value, _TAG, 128, _WORD).lower()


def backend(value: object) -> str:
    """A backend by its own name: ``pct`` and ``proxmox-lxc`` are ``lxc``, ``qemu`` and ``proxmox-vm`` are ``vm``."""
    known = matched("backend", value, _BACKEND, 32, "1 to 32 of a-z 0-9 - beginning with a letter, such as lxc or runc")
    return _BACKENDS.get(known, known)


def op_id(value: object) -> str:
    """An operation id, the idempotency key: 1 to 64 of ``A-Za-z0-9_.-``, the first one a letter or a digit."""
    return matched("op_id", value, _OP_ID, 64, "1 to 64 of A-Z a-z 0-9 _ . - and the first one a letter or digit")


def vmid(value: object) -> int:
    """A VMID, 100 to 999999999, from an ``int`` or its plain decimal digits."""
    number = whole(value)
    if number is None and issubclass(type(value), str):
        digits = text("vmid", value)
        number = int(digits) if re.fullmatch(_VMID, digits) else None
    if number is None or not 100 <= number <= 999_999_999:
        raise InvalidName("vmid", value, "a whole number from 100 to 999999999")
    return number


def snapshot(value: object) -> str:
    """A snapshot name: 2 to 40 characters, and none of the words that PVE keeps for itself.

    ``pending`` is refused in any case: a VM's config has a section of that name.
    """
    name = matched("snapshot", value, _SNAPSHOT, 40, "2 to 40 of A-Z a-z 0-9 _ - beginning with a letter")
    if name in ("current", "vzdump") or name.lower() == "pending":
        raise InvalidName("snapshot", name, "PVE keeps current, pending and vzdump for itself")
    return name


def dataset(value: object) -> str:
    """The name of a ZFS filesystem or volume as OpenZFS takes it (blanks too), without a snapshot or bookmark part."""
    name = text("dataset", value)
    if fault := _dataset_fault(name):
        raise InvalidName("dataset", name, fault)
    return name


def _dataset_fault(name: str) -> str:
    if len(name) > 255:
        return "at most 255 characters"
    parts = name.split("/")
    if len(parts) > 50:
        return "at most 50 levels"
    if any(not re.fullmatch(_DATASET_PART, part) or part in (".", "..") for part in parts):
        return "POOL[/NAME...] with names of A-Z a-z 0-9 - _ . : and blank, none of them empty, . or .."
    pool = parts[0]
    if not pool[0].isalpha() or len(pool) > 239:
        return "the pool begins with a letter and has at most 239 characters"
    return "ZFS keeps this pool name for itself" if re.fullmatch(_RESERVED_POOL, pool) else ""
