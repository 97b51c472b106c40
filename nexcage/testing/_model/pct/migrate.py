"""``pct migrate``: volumes are copied to the other node, then the config moves, which is what makes it the owner."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from nexcage.errors import InvalidInput
from nexcage.testing._model import storage
from nexcage.testing._model.files import DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.others import peer as peer_of
from nexcage.testing._model.pct.conf import Conf, mounts
from nexcage.testing._model.pct.job import BadParameter, Job, Work
from nexcage.testing._model.pct.lifecycle import halt, managed, request, start_container, volumes_of
from nexcage.testing._model.storage import Die, Volume
from nexcage.testing._model.tool import Steps

__all__ = ["migrate"]


def migrate(job: Job) -> Steps:
    """Checks first; what fails in the task ends with ``migration aborted`` and leaves the container where it was."""
    target = job.param["target"]
    if target == job.node.name:
        raise BadParameter({"target": "target is local node."})
    job.check_quorum()
    if target not in job.node.files.names("/etc/pve/nodes"):
        raise Die(f"no such cluster node '{target}'")
    job.load()
    running = job.node.is_running(job.vmid)
    if running and not job.flag("online") and not job.flag("restart"):
        raise Die("can't migrate running container without --online or --restart")
    if managed(job):
        return (yield from request(job, "hamigrate", "migration", f"ha-migrate {target}", f" to node {target}"))

    def body() -> Work:
        _log(job, f"starting migration of CT {job.vmid} to node '{target}' ({_address(job, target)})")
        begun = job.node.now()
        try:
            yield from _move(job, _reached(job, target))
        except Die as error:
            _log(job, f"ERROR: {error.text}")
            _log(job, f"aborting phase 1 - cleanup resources\n{_stamp(job)} start final cleanup")
            _log(job, f"ERROR: migration aborted (duration {_duration(job, begun)}): {error.text}")
            raise Die("migration aborted") from None
        _log(job, f"migration finished successfully (duration {_duration(job, begun)})")

    return (yield from job.worker("vzmigrate", lambda: job.locked(body)))


def _reached(job: Job, target: str) -> Node:
    try:
        return peer_of(job.node, target)
    except InvalidInput:
        raise Die(f"can't reach node '{target}'") from None


def _commit(peer: Node) -> None:
    """On disk each node writes its own files out; nobody else does it for this one."""
    if isinstance(peer.files, DiskFiles):
        peer.files.commit()


def _address(job: Job, target: str) -> str:
    peer = job.node.peers.get(target)
    return f"10.99.0.{sorted(job.node.peers).index(target) + 1}" if peer is not None else "127.0.1.1"


def _stamp(job: Job) -> str:
    return datetime.fromtimestamp(job.node.now(), UTC).strftime("%Y-%m-%d %H:%M:%S")


def _log(job: Job, text: str) -> None:
    job.say(f"{_stamp(job)} {text}\n")


def _duration(job: Job, begun: float) -> str:
    seconds = int(job.node.now() - begun)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _move(job: Job, peer: Node) -> Work:
    node = job.node
    conf = job.load()
    job.check_lock(conf)
    running = node.is_running(job.vmid)
    if running and not job.flag("restart"):
        raise Die("lxc live migration is currently not implemented")
    volumes = list(_local_volumes(job, conf, peer))
    conf.values["lock"] = "migrate"
    job.save(conf)
    try:
        if running:
            _log(job, f"shutdown CT {job.vmid}")
            yield from halt(job, float(job.param.get("timeout", "180")), kill=True)
        for vol in volumes:
            _log(job, f"found local volume '{vol.id}' (in current VM config)")
            yield from job.took(0.4)
            _copy(node, peer, vol)
            _commit(peer)
            _log(job, f"volume '{vol.id}' is '{vol.id}' on the target")
    finally:
        conf = job.load()
        conf.values.pop("lock", None)
        job.save(conf)
    text = node.config(job.vmid) or ""
    node.remove_config(job.vmid)
    peer.write_config(job.vmid, text)
    _commit(peer)
    node.files.remove(f"/var/lib/lxc/{job.vmid}")
    _log(job, "start final cleanup")
    for vol in volumes:
        storage.free(node, vol)
    if running:
        _log(job, "start container on target node")
        yield from _start_there(job, peer)


def _local_volumes(job: Job, conf: Conf, peer: Node) -> Iterator[Volume]:
    """What has to be copied; what cannot be copied is an error."""
    for mount in mounts(conf.values):
        if mount.kind != "volume" and mount.options.get("shared") != "1":
            raise Die(f"cannot migrate local {mount.kind} mount point '{mount.key}'")
    for vol in volumes_of(job, conf).values():
        if "shared" in vol.storage.options:
            continue
        if "/" in vol.name and vol.storage.kind == "zfspool":
            _log(job, f"ERROR: can't migrate local volume '{vol.id}': clone of '{vol.name.partition('/')[0]}'")
            raise Die("can't migrate CT - check log")
        if not storage.exists(job.node, vol):
            raise Die(f"volume '{vol.id}' does not exist")
        storage.check(peer, vol.storage.id)
        yield vol


def _copy(node: Node, peer: Node, vol: Volume) -> None:
    """The volume with its snapshots, under the same name."""
    if vol.storage.kind == "zfspool":
        name = storage.dataset_of(vol)
        known, there = storage.datasets(node), storage.datasets(peer)
        there.update({key: entry for key, entry in known.items() if key == name or key.startswith(f"{name}@")})
        storage.save_datasets(peer, there)
    path = storage.path_of(vol)
    directory, _, name = path.rpartition("/")
    for other in node.files.names(directory):
        if other == name or other.startswith(f"{name}@"):
            _copy_tree(node, peer, f"{directory}/{other}")
    peer.effect("volume", vol.id, "created")


def _copy_tree(node: Node, peer: Node, path: str) -> None:
    text = node.files.read(path)
    if text is not None:
        peer.files.write(path, text)
        return
    for name in node.files.names(path):
        _copy_tree(node, peer, f"{path}/{name}")


def _start_there(job: Job, peer: Node) -> Work:
    """PVE runs ``pct start`` on the other node."""
    here, job.node = job.node, peer
    try:
        yield from start_container(job)
    finally:
        job.node = here
        _commit(peer)
