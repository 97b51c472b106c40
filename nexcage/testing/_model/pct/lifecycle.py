"""start, stop, shutdown, reboot, suspend, resume, destroy."""

from __future__ import annotations

from nexcage.testing._model import storage
from nexcage.testing._model.files import SIM
from nexcage.testing._model.pct.conf import Conf, mounts
from nexcage.testing._model.pct.generated import write_lxc_config
from nexcage.testing._model.pct.job import Job, Work
from nexcage.testing._model.pct.settings import apply_pending
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Sleep, Steps

__all__ = [
    "destroy",
    "halt",
    "halt_seconds",
    "managed",
    "reaction",
    "reboot",
    "request",
    "resume",
    "shutdown",
    "start",
    "start_container",
    "stop",
    "suspend",
    "volumes_of",
]


def start(job: Job) -> Steps:
    """``pct start``."""
    if job.node.is_running(job.vmid):
        raise Die(f"CT {job.vmid} already running")
    job.check_quorum()
    if managed(job):
        kind = reaction(job, job.load())
        return (yield from request(job, "hastart", "start", f"ha-start {kind}"))
    return (yield from job.worker("vzstart", lambda: job.locked(lambda: _start(job))))


def managed(job: Job) -> bool:
    """Whether the HA manager has it."""
    return job.node.files.exists(f"{SIM}/ha/{job.vmid}")


def request(job: Job, task: str, what: str, due: str, where: str = "") -> Steps:
    """Ask the HA manager and return; it comes round later."""

    def body() -> Work:
        job.say(f"Requesting HA {what} for CT {job.vmid}{where}\n")
        yield from job.took(0.8)
        node = job.node
        if what != "migration":
            node.files.write(f"{SIM}/ha/{job.vmid}", "started" if what == "start" else "stopped")
        delay = float(node.files.read(f"{SIM}/ha-delay") or 10.0) * node.pace
        node.effect("ha", str(job.vmid), f"requested {what}")
        node.later(delay, due, job.vmid, 0)

    return (yield from job.worker(task, body))


def _start(job: Job) -> Work:
    if job.node.is_running(job.vmid):
        raise Die(f"CT {job.vmid} already running")
    conf = job.load()
    if conf.values.get("template") == "1":
        raise Die("you can't start a CT if it's a template")
    if not job.flag("skiplock"):
        job.check_lock(conf, passing="mounted")
    yield from start_container(job, job.flag("skiplock"))


def start_container(job: Job, skip_lock: bool = False) -> Work:
    """What starting does once it is allowed; the caller holds the flock."""
    conf = job.load()
    node = job.node
    if conf.pending:
        apply_pending(job, conf, None, {})
        job.save(conf)
    write_lxc_config(job, conf)
    _check_volumes(job, conf)
    if conf.lock not in (None, "mounted") and not skip_lock:
        yield from job.took(0.6)
        job.say(_HOOK_FAILED.format(job.vmid))
        raise Die(f"startup for container '{job.vmid}' failed")
    yield from job.took(0.5)
    kind = reaction(job, conf)
    if kind == "broken":
        job.say("sync_wait: 34 An error occurred in another process (expected sequence number 7)\n")
        raise Die(f"startup for container '{job.vmid}' failed")
    node.start_container(job.vmid, kind)
    yield from job.took(0.4)


_HOOK_FAILED = (
    "run_buffer: 571 Script exited with status 255\n"
    'lxc_init: 845 Failed to run lxc.hook.pre-start for container "{0}"\n'
    '__lxc_start: 2047 Failed to initialize container "{0}"\n'
)


def _check_volumes(job: Job, conf: Conf) -> None:
    for mount in mounts(conf.values):
        if mount.kind == "volume":
            vol = storage.volume(job.node, mount.volume)
            storage.check(job.node, vol.storage.id)
            if not storage.exists(job.node, vol):
                if vol.storage.kind == "zfspool":
                    raise Die(f"zfs error: cannot open '{storage.dataset_of(vol)}': dataset does not exist")
                raise Die(f"volume '{mount.volume}' does not exist")


def reaction(job: Job, conf: Conf) -> str:
    """How this container's init takes signals: as the settings say, else by what runs as init."""
    chosen = job.node.settings.get("init", {})
    for key in (str(job.vmid), conf.values.get("hostname", "")):
        if key in chosen:
            return str(chosen[key])
    if conf.values.get("entrypoint", "/sbin/init").split(" ")[0] != "/sbin/init":
        return "stubborn"  # a plain program as PID 1 ignores what it does not handle
    if "default" in chosen:
        return str(chosen["default"])
    return "busybox" if conf.values.get("ostype") == "alpine" else "systemd"


def halt_seconds(job_random: float) -> float:
    """How long an init takes to halt, from a number of the dice."""
    return 0.8 + 1.6 * job_random


# --- stopping ---------------------------------------------------------------------------------------------------------


def _kill(job: Job) -> Work:
    yield from job.took(0.3)
    job.node.end_container(job.vmid)
    yield from job.took(0.9)


def halt(job: Job, timeout: float, kill: bool) -> Work:
    """Ask init to halt and wait; when it does not, kill it, or give up after about twice the time."""
    node, vmid = job.node, job.vmid
    init = node.files.read(f"{SIM}/init/{vmid}") or "systemd"
    pid = node.init_pid(vmid)
    if pid is not None:
        node.effect("signal", str(vmid), "halt")
    if pid is not None and not node.asked_to_halt(vmid) and init not in ("stubborn", "broken"):
        delay = halt_seconds(node.random.random())
        node.later(delay * node.pace, "halt", vmid, pid)
    yield from _wait_gone(job, timeout)
    if not node.is_running(vmid):
        yield from job.took(0.5)
        return
    if kill:
        yield from _kill(job)
        return
    job.say(f"command 'lxc-stop -n {vmid} --nokill --timeout {timeout:g}' failed: exit code 1\n")
    yield from _wait_gone(job, timeout + 5)
    if node.is_running(vmid):
        raise Die("container did not stop")


def _wait_gone(job: Job, timeout: float) -> Work:
    """Wait until the monitor is gone or the time is over, in steps of a second."""
    node = job.node
    end = node.steady() + timeout * node.waits
    while True:
        due = node.next_due()
        left = end - node.steady()
        if due is not None:
            left = min(left, max(0.0, due - node.steady()))
        if left > 0:
            yield Sleep(min(left, node.nap))
        node.settle()
        if job.task is not None and node.aborted(job.task):
            raise Die("got unexpected control message")
        if not node.is_running(job.vmid) or node.steady() >= end:
            return


def _require_running(job: Job, kind: str = "CT") -> None:
    if not job.node.is_running(job.vmid):
        raise Die(f"{kind} {job.vmid} not running")


def stop(job: Job) -> Steps:
    """``pct stop``: kill it."""
    _require_running(job)
    if managed(job):
        return (yield from request(job, "hastop", "stop", "ha-stop"))
    if job.flag("overrule-shutdown"):
        overruled = job.node.tasks("vzshutdown", job.vmid)
        for upid in overruled:
            job.node.abort_task(upid)
        if overruled:
            job.say(f"overruled vzshutdown tasks: {', '.join(overruled)}\n")

    def body() -> Work:
        _require_running(job)
        conf = job.load()
        if not job.flag("skiplock"):
            job.check_lock(conf, passing="mounted")
        yield from _kill(job)

    return (yield from job.worker("vzstop", lambda: job.locked(body)))


def shutdown(job: Job) -> Steps:
    """``pct shutdown``: ask, and kill only with ``--forceStop``."""
    _require_running(job)
    if managed(job):
        return (yield from request(job, "hastop", "stop", "ha-stop"))

    def body() -> Work:
        _require_running(job)
        job.check_lock(job.load())
        yield from halt(job, float(job.param.get("timeout", "60")), job.flag("forceStop"))

    return (yield from job.worker("vzshutdown", lambda: job.locked(body)))


def reboot(job: Job) -> Steps:
    """``pct reboot``: halt and start. It looks at the config lock only when it starts, so a locked one stays stopped."""
    _require_running(job, "VM")

    def body() -> Work:
        _require_running(job, "VM")
        job.load()
        yield from halt(job, float(job.param.get("timeout", "60")), kill=True)
        yield from start_container(job)

    return (yield from job.worker("vzreboot", lambda: job.locked(body)))


def suspend(job: Job) -> Steps:
    """``pct suspend`` needs CRIU, which PVE does not install."""
    _require_running(job)

    def body() -> Work:
        job.check_lock(job.load())
        yield from job.took(0.2)
        prefix = f"lxc-checkpoint: {job.vmid}: ../src/lxc"
        job.say(f"{prefix}/criu.c: do_dump: 1292 dump failed with 1\n")
        job.say(f"{prefix}/criu.c: do_dump: 1306 criu output: \n")
        job.say(f"{prefix}/tools/lxc_checkpoint.c: checkpoint: 182 Checkpointing {job.vmid} failed\n")
        raise Die(f"command 'lxc-checkpoint -n {job.vmid} -s -D /var/lib/vz/dump' failed: exit code 1")

    return (yield from job.worker("vzsuspend", lambda: job.locked(body)))


def resume(job: Job) -> Steps:
    """``pct resume`` is CRIU too."""
    if job.node.is_running(job.vmid):
        raise Die(f"CT {job.vmid} already running")

    def body() -> Work:
        yield from job.took(0.1)
        prefix = f"lxc-checkpoint: {job.vmid}: ../src/lxc/tools/lxc_checkpoint.c"
        if job.node.files.exists(f"/var/lib/lxc/{job.vmid}/config"):
            job.say(f"{prefix}: restore_finalize: 224 Restoring {job.vmid} failed\n")
        else:
            job.say(f"{prefix}: lxc_checkpoint_main: 299 {job.vmid} is not defined\n")
        raise Die(f"command 'lxc-checkpoint -n {job.vmid} -r --foreground -D /var/lib/vz/dump' failed: exit code 1")

    return (yield from job.worker("vzresume", body))


# --- destroy ----------------------------------------------------------------------------------------------------------


def destroy(job: Job) -> Steps:
    """``pct destroy``."""
    conf = job.load()
    job.check_protection(conf, f"can't remove CT {job.vmid}")
    if job.node.files.exists(f"{SIM}/ha/{job.vmid}") and not job.flag("purge"):
        raise Die(f"unable to remove CT {job.vmid} - used in HA resources and purge parameter not set.")
    running = f"unable to destroy CT {job.vmid} - container is running"
    if job.node.is_running(job.vmid) and not job.flag("force"):
        raise Die(running)

    def body() -> Work:
        conf = job.load()
        job.check_lock(conf)
        if job.node.is_running(job.vmid):
            if not job.flag("force"):
                raise Die(running)
            job.say(f"forced to stop CT {job.vmid} before destroying!\n")
            yield from _kill(job)
        yield from _destroy(job)

    return (yield from job.worker("vzdestroy", lambda: job.locked(body)))


def volumes_of(job: Job, conf: Conf) -> dict[str, storage.Volume]:
    """Every volume that a config names anywhere, by volume id."""
    found: dict[str, storage.Volume] = {}
    for values in (conf.values, conf.pending, *(part.values for part in conf.snapshots.values())):
        for mount in mounts(values, unused=True):
            if mount.kind == "volume":
                found.setdefault(mount.volume, storage.volume(job.node, mount.volume))
    return found


def _destroy(job: Job) -> Work:
    node, vmid = job.node, job.vmid
    volumes = volumes_of(job, job.load())
    for vol in volumes.values():
        storage.check(node, vol.storage.id)
    for vol in volumes.values():
        if vol.owner != vmid:
            job.say(f"ignore deletion of '{vol.id}', CT {vmid} isn't the owner!\n")
    yield from job.took(0.05)
    job.save(Conf({"lock": "destroyed"}))
    yield from job.took(0.05)
    for vol in volumes.values():
        if vol.owner == vmid:
            job.say(storage.free(node, vol))
    if job.flag("destroy-unreferenced-disks"):
        for place in storage.storages(node).values():
            for vol in storage.of_guest(node, place, vmid) if "rootdir" in place.content else ():
                job.say(storage.free(node, vol))
    yield from job.took(0.05)
    node.files.remove(f"/var/lib/lxc/{vmid}")
    if job.flag("purge"):
        job.say(f"purging CT {vmid} from related configurations..\n")
        node.files.remove(f"{SIM}/ha/{vmid}")
    node.remove_config(vmid)
