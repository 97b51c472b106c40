"""The pretend ``vzdump``: one container at a time, into a directory storage, in a form that the pretend ``pct restore`` reads."""

from __future__ import annotations

from datetime import UTC, datetime

from nexcage.testing._model import storage
from nexcage.testing._model.pct.conf import mounts
from nexcage.testing._model.pct.job import Job, Work
from nexcage.testing._model.pct.lifecycle import start_container
from nexcage.testing._model.pct.restore import Backup
from nexcage.testing._model.pve import START_UP, split, took, wrong
from nexcage.testing._model.storage import Die, Storage
from nexcage.testing._model.tool import Ctx, Steps

__all__ = ["vzdump"]

_ENDINGS = {"zstd": ".tar.zst", "gzip": ".tar.gz", "lzo": ".tar.lzo", "0": ".tar"}
_MODES = ("snapshot", "suspend", "stop")


def vzdump(ctx: Ctx) -> Steps:
    """``vzdump VMID --storage S --mode M --compress C``."""
    yield from took(ctx.node, START_UP)
    options, rest = split(ctx.argv[1:], ("storage", "mode", "compress"))
    if len(rest) != 1 or not rest[0].isdigit():
        ctx.err("400 wrong number of arguments\nvzdump {<vmid>} [OPTIONS]\n")
        return 255
    mode, compress = options.get("mode", "snapshot"), options.get("compress", "0")
    if mode not in _MODES or compress not in _ENDINGS:
        ctx.err("400 Parameter verification failed.\nvzdump {<vmid>} [OPTIONS]\n")
        return 255
    job = Job(ctx, "vzdump", {"vmid": rest[0]})
    try:
        place = _place(job, options.get("storage", "local"))
    except Die as error:
        return wrong(ctx, error)
    return (yield from job.worker("vzdump", lambda: _dump(job, place, mode, _ENDINGS[compress])))


def _place(job: Job, name: str) -> Storage:
    place = storage.check(job.node, name)
    if "backup" not in place.content or place.kind == "zfspool":
        raise Die(f"ERROR: could not activate storage '{name}': storage does not support backups")
    return place


def _dump(job: Job, place: Storage, mode: str, ending: str) -> Work:
    job.say(f"INFO: starting new backup job: {' '.join(job.ctx.argv)}\nINFO: Starting Backup of VM {job.vmid} (lxc)\n")
    try:
        job.check_quorum()
        yield from job.locked(lambda: _lock(job))
        try:
            yield from _saved(job, place, mode, ending)
        finally:
            _unlock(job)
    except Die as error:
        job.say(f"ERROR: Backup of VM {job.vmid} failed - {error.text}\nINFO: Backup job finished with errors\n")
        raise Die("job errors") from None
    job.say(f"INFO: Finished Backup of VM {job.vmid}\nINFO: Backup job finished successfully\n")


def _lock(job: Job) -> Work:
    if job.node.config(job.vmid) is None:
        raise Die(f"unable to find VM '{job.vmid}'")
    conf = job.load()
    job.check_lock(conf)
    conf.values["lock"] = "backup"
    job.save(conf)
    yield from ()


def _unlock(job: Job) -> None:
    if job.node.config(job.vmid) is None:
        return
    conf = job.load()
    if conf.values.get("lock") == "backup":
        del conf.values["lock"]
        job.save(conf)


def _saved(job: Job, place: Storage, mode: str, ending: str) -> Work:
    node, vmid = job.node, job.vmid
    running = node.is_running(vmid)
    used = _mode(job, mode) if running else "stop"
    job.say(f"INFO: status = {'running' if running else 'stopped'}\nINFO: backup mode: {used}\n")
    file = f"vzdump-lxc-{vmid}-{datetime.fromtimestamp(node.now(), UTC):%Y_%m_%d-%H_%M_%S}{ending}"
    if running and used == "stop":
        node.end_container(vmid)
    backup = Backup.of(node, vmid)
    yield from job.took(0.2)
    job.say(f"INFO: creating vzdump archive '{place.path}/dump/{file}'\n")
    yield from job.took(3.0)
    if storage.full(node, place):
        raise Die("command 'tar cpf -' failed: No space left on device")
    node.files.write(f"{place.path}/dump/{file}", str(backup))
    node.effect("backup", f"{place.id}:backup/{file}", "made")
    if running and used == "stop":
        yield from start_container(job, skip_lock=True)


def _mode(job: Job, mode: str) -> str:
    volumes = [storage.volume(job.node, m.volume) for m in mounts(job.load().values) if m.kind == "volume"]
    if mode == "snapshot" and not all(storage.can_snapshot(vol) for vol in volumes):
        job.say("INFO: mode failure - some volumes do not support snapshots\nINFO: trying 'suspend' mode instead\n")
        return "suspend"
    return mode
