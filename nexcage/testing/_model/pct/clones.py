"""clone, template, move-volume, and that remote-migrate finds nobody."""

from __future__ import annotations

import re

from nexcage.testing._model import storage
from nexcage.testing._model.pct.conf import Conf, Mount, mounts, parse_mount, parse_net, print_mount, print_net
from nexcage.testing._model.pct.create import check_pool, check_unused
from nexcage.testing._model.pct.job import BadParameter, Job, Work
from nexcage.testing._model.pct.reassign import reassign
from nexcage.testing._model.pct.settings import new_disk, random_mac
from nexcage.testing._model.storage import Die, Volume
from nexcage.testing._model.tool import Steps

__all__ = ["clone", "move_volume", "remote_migrate", "template"]

RSYNC = """\

Number of files: 83 (reg: 12, dir: 25, link: 46)
Number of created files: 81 (reg: 12, dir: 23, link: 46)
Number of deleted files: 0
Number of regular files transferred: 12
Total file size: 1,983,265 bytes
Total transferred file size: 1,982,887 bytes
Literal data: 1,982,887 bytes
Matched data: 0 bytes
File list size: 0
File list generation time: 0.001 seconds
File list transfer time: 0.000 seconds
Total bytes sent: 1,986,064
Total bytes received: 489

sent 1,986,064 bytes  received 489 bytes  3,973,106.00 bytes/sec
total size is 1,983,265  speedup is 1.00
"""


def _require_node(job: Job, name: str) -> None:
    if name not in job.node.files.names("/etc/pve/nodes"):
        raise Die(f"no such cluster node '{name}'")


def clone(job: Job) -> Steps:
    """``pct clone``."""
    node, newid = job.node, int(job.param["newid"])
    target = job.param.get("target")
    if target is not None and target != node.name:
        _require_node(job, target)
    if "storage" in job.param:
        storage.check(node, job.param["storage"])
    job.check_quorum()
    check_pool(job)
    check_unused(node, newid)
    conf = job.load()
    job.check_lock(conf)
    full = job.flag("full") if "full" in job.param else conf.values.get("template") != "1"
    if "storage" in job.param and not full:
        raise Die("parameter 'storage' not allowed for linked clones")
    source = conf.values
    name = job.param.get("snapname")
    if name is not None:
        if name not in conf.snapshots:
            raise Die(f"snapshot '{name}' does not exist")
        source = dict(conf.snapshots[name].values)
    for mount in mounts(source):
        if mount.kind != "volume":
            raise Die(f"unable to clone mountpoint '{mount.key}' (type {mount.kind})")
        if full and node.is_running(job.vmid) and name is None:
            raise Die("Full clone of a running container is only possible from a snapshot")
        if not full and not storage.volume(node, mount.volume).name.startswith("basevol-"):
            raise Die(f"Linked clone feature for '{mount.volume}' is not available")
    if target is not None and target != node.name:
        raise Die(f"can't clone CT to node '{target}' (CT uses local storage)")

    def body() -> Work:
        job.save(Conf({"lock": "create"}), newid)
        locked = job.load()
        locked.values["lock"] = "disk"
        job.save(locked)
        yield from _copy(job, source, conf.raw, newid, full)
        after = job.load()
        after.values.pop("lock", None)
        job.save(after)

    return (yield from job.worker("vzclone", body))


def _copy(job: Job, source: dict[str, str], raw: tuple[tuple[str, str], ...], newid: int, full: bool) -> Work:
    job.say(f"creating a clone of container {job.vmid} with ID {newid}\n")
    dropped = ("lock", "parent", "snaptime", "snapstate", "template")
    new = {key: v for key, v in source.items() if key not in dropped and not key.startswith("unused")}
    for key in sorted(new):
        if re.fullmatch(r"net[0-9]+", key):
            new[key] = print_net({**parse_net(new[key]), "hwaddr": random_mac(job)})
    new |= {key: job.param[key] for key in ("hostname", "description") if job.param.get(key)}
    old_vmid = job.vmid
    for mount in mounts(source):
        if not full:
            job.say(f"create linked clone of mount point {mount.key} ({mount.volume})\n")
            new[mount.key] = print_mount(_link(job, mount, newid))
            continue
        job.say(f"create full clone of mountpoint {mount.key} ({mount.volume})\n")
        job.vmid = newid
        try:
            copied, _ = _duplicate(job, mount, job.param.get("storage"))
        finally:
            job.vmid = old_vmid
        yield from job.took(0.3)
        new[mount.key] = print_mount(copied)
    job.save(Conf(new, raw=raw), newid)


def _duplicate(job: Job, mount: Mount, where: str | None) -> tuple[Mount, Volume]:
    """A full copy of a volume on a storage; says what mke2fs and rsync say."""
    old = storage.volume(job.node, mount.volume)
    size = storage.size_of(job.node, old)
    size = mount.size or 0 if size is None else size
    copied, vol = new_disk(job, mount._replace(volume=f"{where or old.storage.id}:{size / 1024**3:g}"))
    job.say(RSYNC)
    return copied, vol


def _link(job: Job, mount: Mount, newid: int) -> Mount:
    old = storage.volume(job.node, mount.volume)
    vol = storage.allocate(job.node, old.storage, newid, (mount.size or 0) // 1024)
    known = storage.datasets(job.node)
    known[storage.dataset_of(vol)]["origin"] = f"{storage.dataset_of(old)}@__base__"
    storage.save_datasets(job.node, known)
    volid = f"{old.storage.id}:{old.name}/{vol.name}"
    return Mount(mount.key, volid, {**mount.options, "volume": volid})


def template(job: Job) -> Steps:
    """``pct template``: refused before its task begins, so with an exit status; what fails in the task exits 0."""
    job.load()

    def checked() -> Work:
        conf = job.load()
        job.check_lock(conf)
        if conf.snapshots:
            raise Die("unable to create template, because CT contains snapshots")
        if conf.values.get("template") == "1":
            raise Die("you can't convert a template to a template")
        if job.node.is_running(job.vmid):
            raise Die("you can't convert a CT to template if the CT is running")
        yield from job.worker("vztemplate", lambda: _convert(job), keeps_status=False)

    yield from job.locked(checked)
    return 0


def _convert(job: Job) -> Work:
    yield from job.took(0.1)
    conf = job.load()
    for mount in mounts(conf.values):
        if mount.kind == "volume":
            volid = _base(job, storage.volume(job.node, mount.volume))
            conf.values[mount.key] = print_mount(Mount(mount.key, volid, {**mount.options, "volume": volid}))
    conf.values["template"] = "1"
    job.save(conf)
    job.node.files.remove(f"/var/lib/lxc/{job.vmid}/config")


def _base(job: Job, vol: Volume) -> str:
    """The volume under its new name as a base of clones."""
    node = job.node
    if vol.storage.kind == "zfspool":
        known = storage.datasets(node)
        name = vol.name.replace("subvol-", "basevol-", 1)
        new = f"{vol.storage.options['pool']}/{name}"
        known[new] = known.pop(storage.dataset_of(vol))
        known[f"{new}@__base__"] = {"type": "snapshot", "creation": str(int(node.now()))}
        storage.save_datasets(node, known)
    elif vol.storage.kind == "dir" and vol.format == "raw":
        name = vol.name.replace("/vm-", "/base-", 1)
        new = storage.path_of(storage.parse_name(vol.storage, name))
        node.files.write(new, node.files.read(storage.path_of(vol)) or "")
        node.files.remove(storage.path_of(vol))
    else:
        return vol.id
    node.effect("volume", vol.id, f"renamed {vol.storage.id}:{name}")
    return f"{vol.storage.id}:{name}"


def move_volume(job: Job) -> Steps:
    """``pct move-volume`` to another storage."""
    key = job.param["volume"]
    if "target-vmid" in job.param:
        return (yield from reassign(job, key))
    if "storage" not in job.param:
        missing = "both 'storage' and 'target-vmid' missing, either needs to be set"
        raise BadParameter({"target-vmid": missing, "storage": missing})
    conf = job.load()
    job.check_lock(conf)
    if job.node.is_running(job.vmid):
        raise Die("cannot move volumes of a running container")
    if key.startswith("unused"):
        raise Die(f"cannot move volume '{key}', only configured volumes can be moved to another storage")
    if key not in conf.values:
        raise Die(f"volume '{key}' does not exist")
    mount = parse_mount(key, conf.values[key])
    old = storage.volume(job.node, mount.volume)
    place = storage.check(job.node, job.param["storage"])
    if place.id == old.storage.id:
        raise BadParameter({"storage": "you can't move to the same storage"})
    if job.flag("delete") and any(
        used.volume == old.id for part in conf.snapshots.values() for used in mounts(part.values)
    ):
        raise Die("you can't move a volume with snapshots and delete the source")
    job.check_digest()

    def body() -> Work:
        yield from job.took(0.2)
        copied, _ = _duplicate(job, mount, place.id)
        conf = job.load()
        conf.values[key] = print_mount(copied)
        if job.flag("delete"):
            job.say(storage.free(job.node, old))
        else:
            spare = next(f"unused{n}" for n in range(256) if f"unused{n}" not in conf.values)
            conf.values[spare] = old.id
        job.save(conf)

    return (yield from job.worker("move_volume", lambda: job.locked(body)))


def remote_migrate(job: Job) -> Steps:
    """``pct remote-migrate``: there is no other cluster."""
    job.load()
    yield from job.took(0.2)
    raise Die("remote: failed to connect to target endpoint")
