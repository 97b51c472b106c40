"""``qm create``: checks, then a worker that allocates, imports and writes; what fails is taken back."""

from __future__ import annotations

import re
from urllib.parse import quote

from nexcage.testing._model import storage, vms
from nexcage.testing._model.pct.create import check_unused
from nexcage.testing._model.pct.job import BadParameter, Work
from nexcage.testing._model.qm.disks import KEY, allocate, place_of, size_of
from nexcage.testing._model.qm.job import VmJob
from nexcage.testing._model.qm.life import power_up
from nexcage.testing._model.qm.options import DISK, config_prop
from nexcage.testing._model.schema import format_size, parse_properties, print_properties
from nexcage.testing._model.storage import Die, Volume
from nexcage.testing._model.tool import Interrupted, Steps
from nexcage.tools.config import Config

__all__ = ["create", "settings"]

_KEY = re.compile(r"(?:\S+ +)?(ssh-[a-z0-9]+|ecdsa-sha2-\S+|sk-\S+) +[A-Za-z0-9+/]+={0,3}( .*)?")


def create(job: VmJob) -> Steps:
    """``qm create``."""
    job.check_quorum()
    check_unused(job.node, job.vmid)
    if not all(_KEY.fullmatch(line.strip()) for line in job.param.get("sshkeys", "").splitlines() if line.strip()):
        raise Die("SSH public key validation error")
    disks = {key: value for key, value in job.param.items() if KEY.fullmatch(key)}
    for value in disks.values():
        new = _new(value)
        if new is not None:
            try:
                place_of(job.node, new[0])
            except Die as error:
                raise BadParameter({"storage": error.text}) from None

    def worker() -> Work:
        yield from job.held(lambda: _create(job, disks))
        if job.flag("start"):
            yield from job.held(lambda: power_up(job))

    return (yield from job.worker("qmcreate", worker))


def _new(value: str) -> tuple[str, str] | None:
    """Storage and what is to be made there: a number of GiB, or ``cloudinit``."""
    found = re.fullmatch(r"([^:\s]+):([0-9]+(?:\.[0-9]+)?|cloudinit)", value.partition(",")[0])
    return None if found is None else (found[1], found[2])


def _create(job: VmJob, disks: dict[str, str]) -> Work:
    node = job.node
    try:
        check_unused(node, job.vmid)
    except Die as error:
        raise Die(f"unable to create VM {job.vmid} - {error.text}") from None
    job.save_vm(Config({"lock": "create"}))
    made: list[Volume] = []
    try:
        yield from _build(job, disks, made)
    except (Die, Interrupted) as error:
        for vol in made:
            job.say(storage.free(node, vol))
        vms.remove_config(node, job.vmid)
        text = error.text if isinstance(error, Die) else "received interrupt"
        raise Die(f"unable to create VM {job.vmid} - {text}") from None


def _build(job: VmJob, disks: dict[str, str], made: list[Volume]) -> Work:
    node = job.node
    values = settings(job)
    for key in sorted(disks):
        options, new = parse_properties(DISK, disks[key]), _new(disks[key])
        if new is None:
            _check_there(job, options["file"])
            values[key] = print_properties(DISK, options)
            continue
        source = options.pop("import-from", "")
        if new[1] == "cloudinit":
            size, options["media"] = 4 << 20, "cdrom"
        else:
            size = size_of(node, source) if source else int(float(new[1]) * 1024**3)
        vol = allocate(node, place_of(node, new[0]), job.vmid, size, "cloudinit" if new[1] == "cloudinit" else "")
        made.append(vol)
        yield from job.took(1.5 if source else 0.1)
        if source:
            job.say(f"transferred {size / 1024**3:.1f} GiB of {size / 1024**3:.1f} GiB (100.00%)\n")
        options["file"] = vol.id
        if new[1] != "cloudinit":
            options["size"] = format_size(size)
        values[key] = print_properties(DISK, options)
        job.say(f"{key}: successfully created disk '{values[key]}'\n")
    yield from job.took(0.2)
    description = job.param.get("description", "")
    job.save_vm(Config(values, description))


def _check_there(job: VmJob, file: str) -> None:
    """What a drive names must be there; ``none`` and ``cdrom`` are no files."""
    if file in ("none", "cdrom"):
        return
    if file.startswith("/"):
        if not job.node.files.exists(file):
            raise Die(f"volume '{file}' does not exist")
    elif not storage.exists(job.node, storage.volume(job.node, file)):
        raise Die(f"volume '{file}' does not exist")


def settings(job: VmJob) -> dict[str, str]:
    """Every option that is a config key and no disk, in the form it is written."""
    values: dict[str, str] = {}
    for key, value in job.param.items():
        if config_prop(key) is None or KEY.fullmatch(key) or key == "description":
            continue
        if re.fullmatch(r"net[0-9]+", key):
            values[key] = _with_mac(job, value)
        elif key == "sshkeys":
            values[key] = quote(value, safe="")
        elif key == "tags":
            values[key] = ";".join(sorted({tag.lower() for tag in re.split(r"[,; ]+", value) if tag}))
        else:
            values[key] = value
    if job.command == "create":
        values.setdefault("memory", "512")
        values["smbios1"] = f"uuid={job.node.uuid()}"
        values["vmgenid"] = job.node.uuid()
        values["meta"] = f"creation-qemu=10.1.2,ctime={int(job.node.now())}"
    return values


def _with_mac(job: VmJob, value: str) -> str:
    first, comma, rest = value.partition(",")
    if "=" not in first:
        digits = job.node.random.getrandbits(24)
        first += f"=BC:24:11:{digits >> 16:02X}:{digits >> 8 & 255:02X}:{digits & 255:02X}"
    return first + comma + rest
