"""Disks of virtual machines: allocating, importing, growing, and becoming a template's base."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from nexcage.testing._model import storage
from nexcage.testing._model.node import Node
from nexcage.testing._model.pct.job import Work
from nexcage.testing._model.qm.job import VmJob
from nexcage.testing._model.qm.options import DISK
from nexcage.testing._model.schema import format_size, parse_properties, parse_size, print_properties
from nexcage.testing._model.storage import Die, Storage, Volume
from nexcage.testing._model.tool import Steps

__all__ = ["KEY", "allocate", "owned", "place_of", "resize", "size_of", "template"]

KEY = re.compile(r"(?:scsi|virtio|sata|ide)[0-9]+")
_IMAGE = 2_361_393_152  # bytes of an image that does not say its size


def place_of(node: Node, name: str) -> Storage:
    """A storage that takes disks."""
    place = storage.check(node, name)
    if "images" not in place.content:
        raise Die(f"storage '{name}' does not support vm images")
    return place


def _names(node: Node, place: Storage, vmid: int) -> list[str]:
    if place.kind == "zfspool":
        head = place.options["pool"] + "/"
        return [name[len(head) :] for name in storage.datasets(node) if name.startswith(head)]
    return [f"{vmid}/{name}" for name in node.files.names(f"{place.path}/images/{vmid}")]


def allocate(node: Node, place: Storage, vmid: int, size: int, name: str = "") -> Volume:
    """A new disk: the next free number, or of this name (``cloudinit``)."""
    taken = {re.sub(r"\.(raw|qcow2)$", "", other.rpartition("/")[2]) for other in _names(node, place, vmid)}
    number = next(n for n in range(1024) if not {f"vm-{vmid}-disk-{n}", f"base-{vmid}-disk-{n}"} & taken)
    base = f"vm-{vmid}-{name or f'disk-{number}'}"
    if storage.full(node, place):
        where = f"{place.options.get('pool', place.path)}/{base}"
        raise Die(f"zfs error: cannot create '{where}': out of space")
    if place.kind == "zfspool":
        vol = Volume(place, base, "images", vmid, "raw")
        known = storage.datasets(node)
        facts = {"type": "volume", "creation": str(int(node.now())), "volsize": str(size), "refquota": str(size)}
        known[storage.dataset_of(vol)] = facts
        storage.save_datasets(node, known)
        node.effect("dataset", storage.dataset_of(vol), "created")
    else:
        ending = "qcow2" if name else "raw"
        vol = Volume(place, f"{vmid}/{base}.{ending}", "images", vmid, ending)
        node.files.write(storage.path_of(vol), f"{size}\n")
    node.effect("volume", vol.id, "created")
    return vol


def size_of(node: Node, source: str) -> int:
    """The bytes of what is imported: a volume or a file of the node."""
    if source.startswith("/"):
        text = node.files.read(source)
        if text is None:
            raise Die(f"cannot import from '{source}': No such file or directory")
        return _stated(text)
    vol = storage.volume(node, source)
    storage.check(node, vol.storage.id)
    if not storage.exists(node, vol):
        raise Die(f"cannot import from '{source}': volume does not exist")
    known = storage.size_of(node, vol) if vol.kind == "images" else None
    return known if known is not None else _stated(node.files.read(storage.path_of(vol)) or "")


def _stated(text: str) -> int:
    try:
        return int(json.loads(text)["size"])
    except (ValueError, TypeError, KeyError):
        return _IMAGE


def owned(node: Node, vmid: int, values: Mapping[str, str]) -> Iterator[Volume]:
    """The volumes of its own that a config names."""
    for key, value in sorted(values.items()):
        if not (KEY.fullmatch(key) or re.fullmatch(r"unused[0-9]+", key)):
            continue
        name = value.partition(",")[0]
        if storage.parse_id(name) is not None:
            vol = storage.volume(node, name)
            if vol.owner == vmid and vol.kind == "images":
                yield vol


# ---- commands ----------------------------------------------------------------------------------------------------------


def resize(job: VmJob) -> Steps:
    """``qm disk resize``: grows only; what fails is said, and the exit status is 0."""

    def body() -> Work:
        conf = job.load_vm()
        job.check_free(conf)
        key = job.param["disk"]
        if not KEY.fullmatch(key) or key not in conf.values:
            raise Die(f"disk '{key}' does not exist")
        given = job.param["size"]
        wanted = parse_size(given.removeprefix("+"))
        if wanted is None:
            raise Die(f"unable to parse size '{given}'")
        options = parse_properties(DISK, conf.values[key])
        vol = storage.volume(job.node, options["file"])
        now = storage.size_of(job.node, vol) or 0
        wanted += now if given.startswith("+") else 0
        if wanted < now:
            raise Die("shrinking disks is not supported")
        yield from job.took(0.4)
        if wanted == now:
            return
        storage.resize(job.node, vol, wanted)
        text = print_properties(DISK, {**options, "size": format_size(wanted)})
        job.save_vm(conf.with_values(**{key: text}))

    return (yield from job.worker("resize", lambda: job.held(body), keeps_status=False))


def template(job: VmJob) -> Steps:
    """``qm template``: its disks become bases; the exit status is 0 whatever happens."""

    def body() -> Work:
        node, conf = job.node, job.load_vm()
        job.check_free(conf)
        if conf.get("template") == "1":
            raise Die("you can't convert a template to a template")
        if job.ctx.node.files.exists(f"/run/qemu-server/{job.vmid}.pid"):
            raise Die("you can't convert a VM to template if VM is running")
        yield from job.took(0.3)
        values = dict(conf.values)
        for vol in list(owned(node, job.vmid, values)):
            if "cloudinit" not in vol.name:
                base = _based(node, vol).id
                values = {key: value.replace(vol.id, base) for key, value in values.items()}
        job.save_vm(conf._replace(values={**values, "template": "1"}))

    return (yield from job.worker("qmtemplate", lambda: job.held(body), keeps_status=False))


def _based(node: Node, vol: Volume) -> Volume:
    base = vol._replace(name=vol.name.replace("vm-", "base-", 1))
    if vol.storage.kind == "zfspool":
        known = storage.datasets(node)
        known[storage.dataset_of(base)] = known.pop(storage.dataset_of(vol))
        storage.save_datasets(node, known)
    else:
        node.files.write(storage.path_of(base), node.files.read(storage.path_of(vol)) or "")
        node.files.remove(storage.path_of(vol))
    node.effect("volume", vol.id, f"renamed {base.id}")
    return base
