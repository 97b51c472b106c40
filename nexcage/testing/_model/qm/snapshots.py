"""``qm snapshot``, ``delsnapshot``, ``rollback`` and ``listsnapshot``; without the memory of the machine."""

from __future__ import annotations

from collections.abc import Mapping

from nexcage.testing._model import storage, vms
from nexcage.testing._model.pct.job import Work
from nexcage.testing._model.qm.disks import owned
from nexcage.testing._model.qm.job import VmJob
from nexcage.testing._model.qm.life import power_up
from nexcage.testing._model.storage import Die, Volume
from nexcage.testing._model.tool import Steps
from nexcage.tools.config import Section

__all__ = ["delsnapshot", "listsnapshot", "rollback", "snapshot"]

_NOT_COPIED = frozenset(("lock", "snapstate", "snaptime", "parent"))


def _disks(job: VmJob, values: Mapping[str, str]) -> list[Volume]:
    """What a snapshot keeps: its disks, not what lies in its CD drives."""
    plain = {key: value for key, value in values.items() if "media=cdrom" not in value and not key.startswith("unused")}
    return list(owned(job.node, job.vmid, plain))


def snapshot(job: VmJob) -> Steps:
    """``qm snapshot``."""
    name = job.param["snapname"]
    if name in ("current", "pending"):
        raise Die(f"unable to use snapshot name '{name}' (reserved name)")

    def prepare() -> Work:
        conf = job.load_vm()
        if conf.get("template") == "1":
            raise Die("you can't take a snapshot if it's a template")
        job.check_free(conf)
        if name in conf.snapshots:
            raise Die(f"snapshot name '{name}' already used")
        if not all(storage.can_snapshot(vol) or vol.format == "qcow2" for vol in _disks(job, conf.values)):
            raise Die("snapshot feature is not available")
        kept = {key: value for key, value in conf.values.items() if key not in _NOT_COPIED}
        kept |= {"snaptime": str(int(job.node.now())), "snapstate": "prepare"}
        kept |= {"parent": parent} if (parent := conf.get("parent")) else {}
        said = f"{job.param['description']}\n" if job.param.get("description") else ""
        snapshots = {**conf.snapshots, name: Section(kept, said)}
        job.save_vm(conf._replace(values={**conf.values, "lock": "snapshot"}, snapshots=snapshots))
        yield from job.took(0.05)

    def commit() -> Work:
        conf = job.load_vm()
        part = conf.snapshots[name]
        whole = part._replace(values={key: value for key, value in part.values.items() if key != "snapstate"})
        values = {key: value for key, value in conf.values.items() if key != "lock"}
        job.save_vm(conf._replace(values={**values, "parent": name}, snapshots={**conf.snapshots, name: whole}))
        yield from ()

    def body() -> Work:
        yield from job.held(prepare)
        for vol in _disks(job, job.load_vm().values):
            storage.take_snapshot(job.node, vol, name)
        yield from job.took(0.1)
        yield from job.held(commit)

    return (yield from job.worker("qmsnapshot", body))


def delsnapshot(job: VmJob) -> Steps:
    """``qm delsnapshot``."""
    name = job.param["snapname"]

    def begin() -> Work:
        conf = job.load_vm()
        part = conf.snapshots.get(name)
        if part is None:
            raise Die(f"snapshot '{name}' does not exist")
        job.check_free(conf)
        gone = part._replace(values={**part.values, "snapstate": "delete"})
        snapshots = {**conf.snapshots, name: gone}
        job.save_vm(conf._replace(values={**conf.values, "lock": "snapshot-delete"}, snapshots=snapshots))
        yield from job.took(0.05)

    def finish() -> Work:
        conf = job.load_vm()
        parent = conf.snapshots[name].values.get("parent")
        left = {
            other: part._replace(values=_moved_up(part.values, name, parent))
            for other, part in conf.snapshots.items()
            if other != name
        }
        values = {key: value for key, value in conf.values.items() if key != "lock"}
        job.save_vm(conf._replace(values=_moved_up(values, name, parent), snapshots=left))
        yield from ()

    def body() -> Work:
        yield from job.held(begin)
        for vol in _disks(job, job.load_vm().values):
            storage.clear_snapshot(job.node, vol, name)
        yield from job.took(0.1)
        yield from job.held(finish)

    return (yield from job.worker("qmdelsnapshot", body))


def _moved_up(values: Mapping[str, str], name: str, parent: str | None) -> dict[str, str]:
    if values.get("parent") != name:
        return dict(values)
    rest = {key: value for key, value in values.items() if key != "parent"}
    return rest if parent is None else {**rest, "parent": parent}


def rollback(job: VmJob) -> Steps:
    """``qm rollback``: pulls the plug of a running machine and leaves it stopped, unless asked to start it."""
    name = job.param["snapname"]

    def begin() -> Work:
        conf = job.load_vm()
        part = conf.snapshots.get(name)
        if part is None:
            raise Die(f"snapshot '{name}' does not exist")
        if "snapstate" in part.values:
            raise Die(f"unable to rollback to incomplete snapshot (snapstate = {part.values['snapstate']})")
        for vol in _disks(job, part.values):
            if vol.storage.kind == "zfspool" and storage.newest_snapshot(job.node, vol) != name:
                raise Die(f"can't rollback, '{name}' is not most recent snapshot on '{vol.id}'")
        job.check_free(conf)
        job.save_vm(conf.with_values(lock="rollback"))
        yield from job.took(0.05)

    def finish() -> Work:
        conf = job.load_vm()
        part = conf.snapshots[name]
        values = {key: value for key, value in part.values.items() if key not in _NOT_COPIED}
        job.save_vm(conf._replace(values={**values, "parent": name}, pending=None))
        yield from ()

    def body() -> Work:
        yield from job.held(begin)
        if vms.pid_of(job.node, job.vmid) is not None:
            yield from job.took(0.5)
            vms.stop(job.node, job.vmid)
        for vol in _disks(job, job.load_vm().snapshots[name].values):
            job.node.effect("snapshot", f"{vol.id}@{name}", "rolled back")
        yield from job.took(0.1)
        yield from job.held(finish)
        if job.flag("start"):
            yield from job.held(lambda: power_up(job))

    return (yield from job.worker("qmrollback", body))


def listsnapshot(job: VmJob) -> Steps:
    """``qm listsnapshot``: a line per generation, one blank more in front of each."""
    conf = job.load_vm()
    parents = {name: part.values.get("parent") for name, part in conf.snapshots.items()}
    parents["current"] = conf.get("parent")
    _branch(job, conf.snapshots, parents, None, "")
    return 0
    yield


def _branch(
    job: VmJob, known: Mapping[str, Section], parents: Mapping[str, str | None], above: str | None, blanks: str
) -> None:
    from datetime import UTC, datetime

    for name in sorted(
        (name for name, parent in parents.items() if parent == above), key=lambda name: (name == "current", name)
    ):
        prefix = f"{blanks}`->"
        time, said = "", "You are here!"
        if name != "current":
            at = int(known[name].values.get("snaptime", "0"))
            time = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
            said = known[name].description.split("\n")[0] or "no-description"
        job.say(f"{prefix} {name:<{30 - len(prefix)}} {time:<23} {said}\n")
        if name != "current":
            _branch(job, known, parents, name, blanks + " ")
