"""``pct snapshot``, ``delsnapshot`` and ``rollback``."""

from __future__ import annotations

from nexcage.testing._model import storage
from nexcage.testing._model.pct.conf import Conf, mounts, section
from nexcage.testing._model.pct.job import Job, Work
from nexcage.testing._model.pct.lifecycle import start_container
from nexcage.testing._model.storage import Die, Volume
from nexcage.testing._model.tool import Steps

__all__ = ["delsnapshot", "rollback", "snapshot"]

_NOT_COPIED = frozenset(("lock", "description", "snapstate", "digest", "snaptime"))


def _volumes(job: Job, conf: Conf) -> list[Volume]:
    return [storage.volume(job.node, mount.volume) for mount in mounts(conf.values) if mount.kind == "volume"]


def snapshot(job: Job) -> Steps:
    """``pct snapshot``."""
    name = job.param["snapname"]
    if name in ("current", "vzdump"):
        raise Die(f"unable to use snapshot name '{name}' (reserved name)")

    def prepare() -> Work:
        conf = job.load()
        if conf.values.get("template") == "1":
            raise Die("you can't take a snapshot if it's a template")
        job.check_lock(conf)
        if name in conf.snapshots:
            raise Die(f"snapshot name '{name}' already used")
        kinds = {mount.kind for mount in mounts(conf.values)}
        if kinds != {"volume"} or not all(storage.can_snapshot(vol) for vol in _volumes(job, conf)):
            raise Die("snapshot feature is not available")
        kept = {key: v for key, v in conf.values.items() if key not in _NOT_COPIED and not key.startswith("unused")}
        kept |= {"snaptime": str(int(job.node.now())), "snapstate": "prepare"}
        if job.param.get("description"):
            kept["description"] = job.param["description"] + "\n"
        conf.snapshots[name] = section(kept, conf.raw)
        conf.values["lock"] = "snapshot"
        job.save(conf)
        yield from job.took(0.05)

    def commit() -> Work:
        conf = job.load()
        part = conf.snapshots[name]
        values = {key: value for key, value in part.values.items() if key != "snapstate"}
        conf.snapshots[name] = part._replace(values=values)
        conf.values["parent"] = name
        conf.values.pop("lock", None)
        job.save(conf)
        yield from ()

    def body() -> Work:
        yield from job.locked(prepare)
        for vol in _volumes(job, job.load()):
            storage.take_snapshot(job.node, vol, name)
        yield from job.took(0.1)
        yield from job.locked(commit)

    return (yield from job.worker("vzsnapshot", body))


def delsnapshot(job: Job) -> Steps:
    """``pct delsnapshot``."""
    name = job.param["snapname"]

    def begin() -> Work:
        conf = job.load()
        part = conf.snapshots.get(name)
        if part is None:
            raise Die(f"snapshot '{name}' does not exist")
        if conf.values.get("template") == "1":
            raise Die("you can't delete a snapshot if vm is a template")
        job.check_lock(conf)
        conf.snapshots[name] = part._replace(values={**part.values, "snapstate": "delete"})
        conf.values["lock"] = "snapshot-delete"
        job.save(conf)
        yield from job.took(0.05)

    def finish() -> Work:
        conf = job.load()
        parent = conf.snapshots[name].values.get("parent")
        del conf.snapshots[name]
        for other, part in list(conf.snapshots.items()):
            if part.values.get("parent") == name:
                conf.snapshots[other] = part._replace(values=_reparented(dict(part.values), parent))
        if conf.values.get("parent") == name:
            conf.values = _reparented(conf.values, parent)
        conf.values.pop("lock", None)
        job.save(conf)
        yield from ()

    def body() -> Work:
        yield from job.locked(begin)
        for vol in _volumes(job, job.load()):
            storage.clear_snapshot(job.node, vol, name)
        yield from job.took(0.1)
        yield from job.locked(finish)

    return (yield from job.worker("vzdelsnapshot", body))


def _reparented(values: dict[str, str], parent: str | None) -> dict[str, str]:
    values = {key: value for key, value in values.items() if key != "parent"}
    return values if parent is None else {**values, "parent": parent}


def rollback(job: Job) -> Steps:
    """``pct rollback``: stops a running container and leaves it stopped, unless asked to start it."""
    name = job.param["snapname"]

    def begin() -> Work:
        conf = job.load()
        if conf.values.get("template") == "1":
            raise Die("you can't rollback if vm is a template")
        part = conf.snapshots.get(name)
        if part is None:
            raise Die(f"snapshot '{name}' does not exist")
        if "snapstate" in part.values:
            raise Die(f"unable to rollback to incomplete snapshot (snapstate = {part.values['snapstate']})")
        for vol in _volumes(job, Conf(part.values)):
            if vol.storage.kind == "zfspool" and storage.newest_snapshot(job.node, vol) != name:
                raise Die(f"can't rollback, '{name}' is not most recent snapshot on '{vol.id}'")
        job.check_lock(conf)
        conf.values["lock"] = "rollback"
        job.save(conf)
        yield from job.took(0.05)

    def finish() -> Work:
        conf = job.load()
        part = conf.snapshots[name]
        old = conf.values
        values = {key: v for key, v in part.values.items() if key not in ("snaptime", "snapstate", "parent")}
        values |= {key: v for key, v in old.items() if key == "description" or key.startswith("unused")}
        conf.values = {**values, "parent": name}
        conf.raw = part.raw
        conf.pending = {}
        job.save(conf)
        yield from ()

    def body() -> Work:
        yield from job.locked(begin)
        if job.node.is_running(job.vmid):
            yield from job.took(1.2)
            job.node.end_container(job.vmid)
        for vol in _volumes(job, Conf(job.load().snapshots[name].values)):
            job.node.effect("snapshot", f"{vol.id}@{name}", "rolled back")
        yield from job.took(0.1)
        yield from job.locked(finish)
        if job.flag("start"):
            yield from _start(job)

    return (yield from job.worker("vzrollback", body))


def _start(job: Job) -> Work:
    """Its failure does not fail the rollback."""
    try:
        yield from job.locked(lambda: start_container(job))
    except Die as error:
        job.say(error.text + "\n")
