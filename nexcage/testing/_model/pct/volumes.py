"""resize, rescan, fsck, fstrim, mount, unmount, push, pull."""

from __future__ import annotations

import re
from functools import partial

from nexcage.testing._model import storage
from nexcage.testing._model.pct.conf import Conf, Mount, mounts, parse_mount, print_mount
from nexcage.testing._model.pct.job import Body, Job, Work
from nexcage.testing._model.schema import format_size, parse_size
from nexcage.testing._model.storage import Die, Volume
from nexcage.testing._model.tool import Steps

__all__ = ["fsck", "fstrim", "mount", "pull", "push", "rescan", "resize", "unmount"]


def resize(job: Job) -> Steps:
    """``pct resize``: what goes wrong inside the task is reported with exit status 0."""
    yield from job.locked(lambda: _resize(job, job.param["disk"]))
    return 0


def _resize(job: Job, disk: str) -> Work:
    conf = job.load()
    job.check_lock(conf)
    job.check_digest()
    found = parse_mount(disk, conf.values.get(disk, ""))
    if found.kind != "volume":
        raise Die(f"unable to resize mountpoint '{disk}' (type {found.kind})")
    vol = storage.volume(job.node, found.volume)
    if vol.owner != job.vmid:
        raise Die(f"can't resize mount point owned by another container ({vol.owner})")
    old = storage.size_of(job.node, vol)
    old = found.size or 0 if old is None else old
    text = job.param["size"]
    size = parse_size(text.removeprefix("+")) or 0
    if text.startswith("+"):
        size += old
    if size < old:
        raise Die("unable to shrink disk size")
    if size == old:
        raise Die("disk is already at specified size")

    def body() -> Work:
        yield from job.took(0.2)
        if vol.storage.kind != "zfspool" and vol.format == "subvol":
            raise Die("can't resize this image format")
        _grow(job, vol, size)
        conf = job.load()
        options = {**found.options, "size": str(size)}
        conf.values[disk] = print_mount(Mount(disk, found.volume, options))
        job.save(conf)

    yield from job.worker("resize", body, keeps_status=False)


def _grow(job: Job, vol: Volume, size: int) -> None:
    before = (storage.size_of(job.node, vol) or size) // 4096
    storage.resize(job.node, vol, size)
    if vol.storage.kind == "zfspool":
        return
    path, blocks = storage.image_path(vol), size // 4096
    job.say("Image resized.\ne2fsck 1.47.2 (1-Jan-2025)\n")
    names = "Checking inodes, blocks, and sizes|Checking directory structure|Checking directory connectivity"
    for n, name in enumerate(
        f"{names}|Checking reference counts|Checking group summary information".split("|"), start=1
    ):
        job.say(f"Pass {n}: {name}\n")
    job.say(f"{path}: 93/{before // 4} files (0.0% non-contiguous), 17778/{before} blocks\n")
    job.say("resize2fs 1.47.2 (1-Jan-2025)\n")
    job.say(f"Resizing the filesystem on {path} to {blocks} (4k) blocks.\n")
    job.say(f"The filesystem on {path} is now {blocks} (4k) blocks long.\n\n")


def rescan(job: Job) -> Steps:
    """``pct rescan``: finds volumes nobody names, and sizes that changed."""
    dry = job.flag("dryrun")
    if dry:
        job.say("NOTE: running in dry-run mode, won't write changes out!\n")
    job.say("rescan volumes...\n")
    yield from job.took(0.1)
    for vmid in [job.vmid] if "vmid" in job.param else job.node.containers():
        yield from job.locked(partial(_rescan_one, job, vmid, dry), vmid=vmid)
    return 0


def _rescan_one(job: Job, vmid: int, dry: bool) -> Work:
    conf = job.load(vmid)
    job.check_lock(conf)
    if _rescan(job, conf, vmid) and not dry:
        job.save(conf, vmid)
    yield from ()


def _rescan(job: Job, conf: Conf, vmid: int) -> bool:
    changed = False
    node = job.node
    parts = [conf.values, conf.pending, *(part.values for part in conf.snapshots.values())]
    known = {mount.volume for values in parts for mount in mounts(values, unused=True)}
    for place in storage.storages(node).values():
        for vol in storage.of_guest(node, place, vmid) if "rootdir" in place.content else ():
            if vol.id not in known:
                key = next(f"unused{n}" for n in range(256) if f"unused{n}" not in conf.values)
                job.say(f"CT {vmid}: add unreferenced volume '{vol.id}' as '{key}' to config.\n")
                conf.values[key] = vol.id
                changed = True
    for found in mounts(conf.values):
        if found.kind == "volume" and storage.parse_id(found.volume) is not None:
            size = storage.size_of(node, storage.volume(node, found.volume))
            if size and size != found.size:
                job.say(f"CT {vmid}: updated volume size of '{found.volume}' in config.\n")
                conf.values[found.key] = print_mount(
                    found._replace(options={**found.options, "size": format_size(size)})
                )
                changed = True
    return changed


def fsck(job: Job) -> Steps:
    """``pct fsck``."""
    yield from job.locked(lambda: _fsck(job, job.param.get("device", "rootfs")))
    return 0


def _fsck(job: Job, device: str) -> Work:
    conf = job.load()
    if device not in conf.values:
        raise Die(f"cannot run command on non-existing mount point {device}")
    found = parse_mount(device, conf.values[device])
    if job.node.is_running(job.vmid):
        raise Die("cannot run fsck when container is running")
    if found.kind == "bind":
        raise Die(f"path '{found.volume}' does not point to a block device")
    vol = storage.volume(job.node, found.volume)
    if vol.format != "raw":
        raise Die(f"unable to run fsck for '{vol.id}' (format == {vol.format})")
    yield from job.took(10.0)
    blocks = (storage.size_of(job.node, vol) or 1024**3) // 4096
    job.say("fsck from util-linux 2.41.5\n")
    job.say(f"{storage.image_path(vol)}: clean, 93/{blocks // 4} files, 13539/{blocks} blocks\n")


def fstrim(job: Job) -> Steps:
    """``pct fstrim``."""

    def body() -> Work:
        conf = job.load()
        job.check_lock(conf)
        yield from job.took(0.3)
        for found in mounts(conf.values):
            if found.kind == "volume" and found.options.get("ro") != "1":
                path = found.options.get("mp", "/")
                job.say(f"/var/lib/lxc/{job.vmid}/rootfs{path}: 900 MiB (943718400 bytes) trimmed\n")

    yield from job.locked(body)
    return 0


def mount(job: Job) -> Steps:
    """``pct mount``."""

    def body() -> Work:
        conf = job.load()
        job.check_lock(conf)
        yield from job.took(0.1)
        conf.values["lock"] = "mounted"
        job.save(conf)
        job.say(f"mounted CT {job.vmid} in '/var/lib/lxc/{job.vmid}/rootfs'\n")

    yield from job.locked(body)
    return 0


def unmount(job: Job) -> Steps:
    """``pct unmount``."""

    def body() -> Work:
        conf = job.load()
        if conf.lock is None:
            raise Die("no lock found trying to remove 'mounted'  lock")
        if conf.lock != "mounted":
            raise Die(f"found lock '{conf.lock}' trying to remove 'mounted' lock")
        yield from job.took(0.05)
        del conf.values["lock"]
        job.save(conf)

    yield from job.locked(body)
    return 0


# --- files in and out -------------------------------------------------------------------------------------------------

_KNOWN = re.compile(r"/etc/(hostname|hosts|passwd|group|resolv\.conf|os-release|fstab)")
_USERS = frozenset(("root", "www-data", "daemon", "nobody", "bin", "sys"))


def _owner(job: Job) -> None:
    for option, kind in (("user", "uid"), ("group", "gid")):
        name = job.param.get(option)
        if name is not None and not name.isdigit() and name not in _USERS:
            raise Die(f"failed to get {kind} for: {name}")
    perms = job.param.get("perms")
    if perms is not None:
        octal = perms if perms.startswith("0") else f"0{perms}"
        if not re.fullmatch(r"0[xX][0-9a-fA-F]+|0[0-7]*", octal):
            raise Die(f"invalid mode: '{octal}'")


def push(job: Job) -> Steps:
    """``pct push``: what fails inside the task is reported with exit status 0."""

    def body() -> Work:
        yield from job.took(0.1)
        path = job.param["file"]
        text = job.node.files.read(path)
        if text is None and not _KNOWN.fullmatch(path):
            raise Die(f"failed to open {path} for reading")
        _owner(job)

    return (yield from _copied(job, "push_file", body, "can only push files to a running CT"))


def _copied(job: Job, kind: str, body: Body, stopped: str) -> Steps:
    """The lock is held until the task has ended, so that is where it is looked whether the container runs."""

    def held() -> Work:
        if not job.node.is_running(job.vmid):
            raise Die(stopped)
        yield from job.worker(kind, body, keeps_status=False)

    yield from job.locked(held)
    return 0


def pull(job: Job) -> Steps:
    """``pct pull``, likewise."""
    stopped = "can only pull files from a running VM at /usr/share/perl5/PVE/CLI/pct.pm line 664."

    def body() -> Work:
        yield from job.took(0.1)
        _owner(job)
        path = job.param["path"]
        if not _KNOWN.fullmatch(path):
            raise Die(f"failed to open {path}: No such file or directory")

    return (yield from _copied(job, "pull_file", body, stopped))
