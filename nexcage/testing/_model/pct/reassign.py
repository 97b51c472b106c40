"""``pct move-volume`` to another container: the volume gets that container's name and a key in its config."""

from __future__ import annotations

import re

from nexcage.testing._model import storage
from nexcage.testing._model.pct.conf import Conf, Mount, parse_mount, print_mount
from nexcage.testing._model.pct.job import BadParameter, Job, Work
from nexcage.testing._model.storage import Die, Volume
from nexcage.testing._model.tool import Steps

__all__ = ["reassign"]


def reassign(job: Job, key: str) -> Steps:
    """Checked twice, as PVE does: before anything is begun and with both locks held."""
    target = int(job.param["target-vmid"])
    there = job.param.get("target-volume", key)
    if "storage" in job.param:
        raise Die("either set storage or target-vmid, but not both")
    if target == job.vmid:
        raise BadParameter({"target-vmid": "must be different than source VMID to reassign disk"})
    _checked(job, key, target, there)

    def moved() -> Work:
        yield from job.locked(lambda: _move(job, key, target, there), vmid=target)

    return (yield from job.worker("move_volume", lambda: job.locked(moved)))


def _checked(job: Job, key: str, target: int, there: str) -> tuple[Conf, Conf, Mount]:
    found = job.node.guest_node(target)
    if found is not None and found[1] != job.node.name:
        raise Die(
            f"Both containers need to be on the same node ({job.node.name}) but target continer is on {found[1]}.\n"
        )
    source, other = job.load(), job.load(target)
    job.check_lock(source)
    job.check_lock(other)
    for conf in (source, other):
        if conf.values.get("template") == "1":
            raise Die("Moving volumes to or from template containers is not allowed.")
    job.check_digest()
    job.check_digest("target-digest", target)
    if key not in source.values:
        raise Die(f"Volume '{key}' for container '{job.vmid}' does not exist")
    if key.startswith("unused") and not there.startswith("unused"):
        raise Die(f"Volume '{key}' is not mounted anywhere, so it can only become an unused volume of '{target}'")
    if there in other.values:
        raise Die(f"Target volume key '{there}' is already in use for container '{target}'")
    mount = parse_mount(key, source.values[key])
    if mount.kind != "volume":
        raise Die(f"Volume '{key}' is a {mount.kind} mount point and cannot be moved to another container")
    if job.node.is_running(job.vmid) and not key.startswith("unused"):
        raise Die("cannot move volumes of a running container")
    return source, other, mount


def _move(job: Job, key: str, target: int, there: str) -> Work:
    source, other, mount = _checked(job, key, target, there)
    job.say(f"moving volume '{key}' from container '{job.vmid}' to '{target}'\n")
    yield from job.took(0.1)
    renamed = _renamed(job, storage.volume(job.node, mount.volume), target)
    del source.values[key]
    job.say(f"removing volume '{key}' from container '{job.vmid}' config\n")
    job.save(source)
    options = {**mount.options, "volume": renamed.id}
    if re.fullmatch("unused[0-9]+", there):
        options = {"volume": renamed.id}
    other.values[there] = print_mount(Mount(there, renamed.id, options))
    job.save(other, target)
    job.say(f"target container '{target}' updated with '{there}'\n")


def _renamed(job: Job, old: Volume, target: int) -> Volume:
    size = storage.size_of(job.node, old) or 0
    new = storage.allocate(job.node, old.storage, target, size // 1024)
    storage.free(job.node, old)
    return new
