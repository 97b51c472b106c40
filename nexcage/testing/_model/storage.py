"""PVE storages of the model: directory, btrfs and zfspool, their volumes, and PVE's words when something is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from nexcage.testing._model.files import SIM
from nexcage.testing._model.node import Node

__all__ = ["Die", "Storage", "Volume", "allocate", "clear_snapshot", "datasets", "exists", "find", "free", "of_guest"]
__all__ += ["parse_id", "parse_name", "path_of", "save_datasets", "size_of", "storages", "take_snapshot", "volume"]

ZFS = f"{SIM}/zfs.json"
NEW_DISK = re.compile(r"([^:\s]+):([0-9]+(?:\.[0-9]+)?)")


class Die(Exception):
    """A PVE tool gives up with this text."""

    @property
    def text(self) -> str:
        """What it says, without the newline at the end."""
        return str(self.args[0])


class Storage(NamedTuple):
    """One entry of ``storage.cfg``."""

    id: str
    kind: str
    options: Mapping[str, str]

    @property
    def content(self) -> frozenset[str]:
        """What may lie on it."""
        default = "images,rootdir" if self.kind == "zfspool" else "images,rootdir,vztmpl,iso,backup,snippets"
        return frozenset(self.options.get("content", default).replace(" ", "").split(","))

    @property
    def path(self) -> str:
        """Its directory, or where its pool is mounted."""
        return self.options.get("path") or self.options.get("mountpoint") or "/" + self.options.get("pool", "")


class Volume(NamedTuple):
    """A volume id taken apart: ``local:100/vm-100-disk-0.raw``."""

    storage: Storage
    name: str
    kind: str
    """images, vztmpl, iso, backup, snippets, import"""
    owner: int | None = None
    format: str = "raw"

    @property
    def id(self) -> str:
        """As PVE writes it in configs."""
        return f"{self.storage.id}:{self.name}"


def storages(node: Node) -> dict[str, Storage]:
    """All storages of the cluster, in the file's order."""
    return _storages(node.files.read("/etc/pve/storage.cfg") or "")


@lru_cache(16)
def _storages(text: str) -> dict[str, Storage]:
    found: dict[str, Storage] = {}
    for part in re.split(r"\n(?=\S)", text.strip()):
        head, *lines = part.split("\n")
        kind, _, name = head.partition(":")
        if name:
            pairs = (line.strip().partition(" ") for line in lines if line.strip())
            found[name.strip()] = Storage(name.strip(), kind, {key: value.strip() or "1" for key, _, value in pairs})
    return found


def find(node: Node, name: str) -> Storage:
    """A storage that this node may use."""
    storage = storages(node).get(name)
    if storage is None:
        raise Die(f"storage '{name}' does not exist")
    return storage


def check(node: Node, name: str) -> Storage:
    """A storage that is enabled and available here."""
    storage = find(node, name)
    if "disable" in storage.options:
        raise Die(f"storage '{name}' is disabled")
    nodes = storage.options.get("nodes")
    if nodes is not None and node.name not in nodes.split(","):
        raise Die(f"storage '{name}' is not available on node '{node.name}'")
    if node.files.exists(f"{SIM}/offline/{name}"):
        raise Die(f"storage '{name}' is not online")
    return storage


_ID = re.compile(r"([a-z][a-z0-9_.-]*[a-z0-9]):(.+)", re.IGNORECASE | re.ASCII)


def parse_id(volid: str) -> tuple[str, str] | None:
    """Storage and volume name, or None when it is no volume id."""
    found = _ID.fullmatch(volid)
    return (found[1], found[2]) if found else None


def volume(node: Node, volid: str) -> Volume:
    """A volume id taken apart; whether the volume exists is another question."""
    parts = parse_id(volid)
    if parts is None:
        raise Die(f"unable to parse volume ID '{volid}'")
    return parse_name(find(node, parts[0]), parts[1])


_IMAGE = re.compile(r"(?:vm|base|subvol|basevol)-([0-9]+)-[^/\s]*\.(raw|qcow2|vmdk|subvol)", re.ASCII)
_DATASET = re.compile(r"(?:(?:basevol|base)-[0-9]+-\S+/)?(subvol|basevol|vm|base)-([0-9]+)-\S+", re.ASCII)
_CONTENT = (
    ("vztmpl", re.compile(r"vztmpl/[^/]+\.tar(?:\.(?:gz|xz|zst|bz2))?")),
    ("iso", re.compile(r"iso/[^/]+\.(?:iso|img)", re.IGNORECASE)),
    ("backup", re.compile(r"backup/[^/]+\.(?:tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst))?)")),
    ("snippets", re.compile(r"snippets/[^/]+")),
    ("import", re.compile(r"import/[^/]+\.(?:qcow2|raw|vmdk|ova|ovf)")),
)


def parse_name(storage: Storage, name: str) -> Volume:
    """A volume name by the rules of its storage's kind."""
    if storage.kind == "zfspool":
        found = _DATASET.fullmatch(name)
        if found is None:
            raise Die(f"unable to parse zfs volume name '{name}'")
        return Volume(storage, name, "images", int(found[2]), "subvol" if "vol" in found[1] else "raw")
    directory, slash, file = name.partition("/")
    if slash and directory.isdigit():
        found = _IMAGE.fullmatch(file)
        if found is None:
            raise Die(f"unable to parse volume filename '{file}'")
        return Volume(storage, name, "images", int(directory), found[2])
    for kind, pattern in _CONTENT:
        if pattern.fullmatch(name):
            return Volume(storage, name, kind)
    label = "directory" if storage.kind != "btrfs" else "btrfs"
    raise Die(f"unable to parse {'directory' if label else label} volume name '{name}'")


DIRECTORIES = {
    "vztmpl": "template/cache",
    "iso": "template/iso",
    "backup": "dump",
    "snippets": "snippets",
    "import": "import",
}
"""Where a directory storage has what belongs to no guest."""


def path_of(vol: Volume) -> str:
    """Where the volume lies on the node."""
    base = vol.storage.path
    if vol.storage.kind == "zfspool":
        return f"{base}/{vol.name.rpartition('/')[2]}" if vol.format == "subvol" else f"/dev/zvol{base}/{vol.name}"
    if vol.kind != "images":
        return f"{base}/{DIRECTORIES[vol.kind]}/{vol.name.partition('/')[2]}"
    name = vol.name.removesuffix(".raw") if vol.storage.kind == "btrfs" and vol.format == "raw" else vol.name
    return f"{base}/images/{name}"


def image_path(vol: Volume) -> str:
    """The file or device to make a file system on; for a btrfs volume it lies inside the subvolume."""
    path = path_of(vol)
    return f"{path}/disk.raw" if vol.storage.kind == "btrfs" and vol.format == "raw" else path


def datasets(node: Node) -> dict[str, dict[str, str]]:
    """The ZFS datasets of the node with their properties."""
    loaded: dict[str, dict[str, str]] = json.loads(node.files.read(ZFS) or "{}")
    return loaded


def save_datasets(node: Node, known: Mapping[str, Mapping[str, str]]) -> None:
    """Write them back."""
    node.files.write(ZFS, json.dumps(known))


def dataset_of(vol: Volume) -> str:
    """The ZFS name of a volume."""
    return f"{vol.storage.options['pool']}/{vol.name.rpartition('/')[2]}"


def exists(node: Node, vol: Volume) -> bool:
    """Whether the volume is there."""
    if vol.storage.kind == "zfspool":
        return dataset_of(vol) in datasets(node)
    return node.files.exists(path_of(vol))


def _allocate_dataset(node: Node, storage: Storage, vmid: int, kib: int) -> Volume:
    known = datasets(node)
    pool = storage.options["pool"]
    number = next(n for n in range(1024) if f"{pool}/subvol-{vmid}-disk-{n}" not in known)
    vol = Volume(storage, f"subvol-{vmid}-disk-{number}", "images", vmid, "subvol")
    if full(node, storage):
        raise Die(f"zfs error: cannot create '{dataset_of(vol)}': out of space")
    quota = {"refquota": str(kib * 1024)} if kib else {}
    known[dataset_of(vol)] = {"type": "filesystem", "creation": str(int(node.now())), **quota}
    save_datasets(node, known)
    node.files.write(f"{path_of(vol)}/.volume", "")
    node.effect("dataset", dataset_of(vol), "created")
    return vol


def full(node: Node, storage: Storage) -> bool:
    """Whether nothing more can be written there."""
    return node.files.exists(f"{SIM}/full/{storage.id}")


def allocate(node: Node, storage: Storage, vmid: int, kib: int) -> Volume:
    """A new volume for the container: the next free number; size 0 means without a limit."""
    if storage.kind == "zfspool":
        vol = _allocate_dataset(node, storage, vmid, kib)
    else:
        taken = {name.removesuffix(".raw") for name in node.files.names(f"{storage.path}/images/{vmid}")}
        numbers = {found[1] for name in taken if (found := re.match(r".*-disk-([0-9]+)", name))}
        number = next(n for n in range(1024) if str(n) not in numbers)
        raw = kib > 0
        name = f"vm-{vmid}-disk-{number}.raw" if raw else f"subvol-{vmid}-disk-{number}.subvol"
        vol = Volume(storage, f"{vmid}/{name}", "images", vmid, "raw" if raw else "subvol")
        node.files.write(image_path(vol) if raw else f"{path_of(vol)}/.volume", f"{kib * 1024}\n" if raw else "")
    node.effect("volume", vol.id, "created")
    return vol


def free(node: Node, vol: Volume) -> str:
    """Remove a volume and its snapshots; a line for the task log when there was nothing."""
    if vol.storage.kind == "zfspool":
        known = datasets(node)
        name = dataset_of(vol)
        if name not in known:
            return ""
        if any(entry.get("origin", "").startswith(f"{name}@") for entry in known.values()):
            raise Die(f"base volume '{vol.name}' is still in use by linked clones")
        gone = {other for other in known if other == name or other.startswith((f"{name}@", f"{name}/"))}
        save_datasets(node, {other: known[other] for other in known if other not in gone})
        node.files.remove(path_of(vol))
        node.effect("dataset", name, "removed")
        node.effect("volume", vol.id, "removed")
        return ""
    path = path_of(vol)
    if not node.files.exists(path):
        if vol.storage.kind == "btrfs":
            raise Die(f"command '/usr/bin/btrfs -q subvolume delete -- {path}' failed: exit code 1")
        return f"disk image '{path}' does not exist\n"
    directory, _, name = path.rpartition("/")
    for other in node.files.names(directory):
        if other == name or other.startswith(f"{name}@"):
            node.files.remove(f"{directory}/{other}")
    node.effect("volume", vol.id, "removed")
    return ""


def size_of(node: Node, vol: Volume) -> int | None:
    """Its size in bytes where the model knows it; 0 without a limit."""
    if vol.storage.kind == "zfspool":
        return int(datasets(node).get(dataset_of(vol), {}).get("refquota", 0))
    if vol.format == "subvol":
        return 0
    text = (node.files.read(image_path(vol)) or "").strip()
    return int(text) if text.isdigit() else None


def resize(node: Node, vol: Volume, size: int) -> None:
    """Set the size of a volume."""
    if vol.storage.kind == "zfspool":
        known = datasets(node)
        known[dataset_of(vol)]["refquota"] = str(size)
        save_datasets(node, known)
    else:
        node.files.write(image_path(vol), f"{size}\n")
    node.effect("volume", vol.id, f"resized {size}")


def of_guest(node: Node, storage: Storage, vmid: int | None = None) -> list[Volume]:
    """The volumes on a storage, of one guest or of all."""
    found: list[Volume] = []
    names: list[str] = []
    if storage.kind == "zfspool":
        head = storage.options["pool"] + "/"
        names = [name[len(head) :] for name in datasets(node) if name.startswith(head) and "@" not in name]
    else:
        base = f"{storage.path}/images"
        for guest in node.files.names(base):
            for file in node.files.names(f"{base}/{guest}"):
                plain = storage.kind == "btrfs" and not file.endswith(".subvol")
                if "@" not in file:
                    names.append(f"{guest}/{file}{'.raw' if plain else ''}")
    for name in names:
        try:
            vol = parse_name(storage, name)
        except Die:
            continue
        if vmid is None or vol.owner == vmid:
            found.append(vol)
    return sorted(found, key=lambda vol: (vol.owner or 0, vol.name))


# --- snapshots --------------------------------------------------------------------------------------------------------


def can_snapshot(vol: Volume) -> bool:
    """Directory storages cannot, neither raw images nor subvolumes."""
    return vol.storage.kind in ("btrfs", "zfspool")


def _snapshot_path(vol: Volume, name: str) -> str:
    return f"{path_of(vol)}@{name}"


def take_snapshot(node: Node, vol: Volume, name: str) -> None:
    """Keep the volume as it is now."""
    if vol.storage.kind == "zfspool":
        known = datasets(node)
        known[f"{dataset_of(vol)}@{name}"] = {"type": "snapshot", "creation": str(int(node.now()))}
        save_datasets(node, known)
    else:
        inner = "/disk.raw" if vol.format == "raw" else "/.volume"
        node.files.write(_snapshot_path(vol, name) + inner, node.files.read(path_of(vol) + inner) or "")
    node.effect("snapshot", f"{vol.id}@{name}", "created")


def clear_snapshot(node: Node, vol: Volume, name: str) -> None:
    """Forget a snapshot."""
    if vol.storage.kind == "zfspool":
        known = datasets(node)
        known.pop(f"{dataset_of(vol)}@{name}", None)
        save_datasets(node, known)
    else:
        node.files.remove(_snapshot_path(vol, name))
    node.effect("snapshot", f"{vol.id}@{name}", "removed")


def newest_snapshot(node: Node, vol: Volume) -> str | None:
    """The last ZFS snapshot of a volume."""
    head = dataset_of(vol) + "@"
    names = [name[len(head) :] for name in datasets(node) if name.startswith(head)]
    return names[-1] if names else None
