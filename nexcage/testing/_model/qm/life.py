"""start, stop, shutdown, reset, reboot, suspend, resume, destroy, and the monitor."""

from __future__ import annotations

import re

from nexcage.testing._model import storage, vms
from nexcage.testing._model.files import SIM
from nexcage.testing._model.pct.job import Work
from nexcage.testing._model.qm.disks import owned
from nexcage.testing._model.qm.job import VmJob
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Sleep, Steps
from nexcage.tools.config import Config

__all__ = ["destroy", "monitor", "power_up", "reboot", "reset", "resume", "shutdown", "start", "stop", "suspend"]


def start(job: VmJob) -> Steps:
    """``qm start``."""
    job.check_quorum()
    job.load_vm()
    return (yield from job.worker("qmstart", lambda: job.held(lambda: power_up(job))))


def power_up(job: VmJob) -> Work:
    """What starting does; the caller holds the flock."""
    node, conf = job.node, job.load_vm()
    if vms.pid_of(node, job.vmid) is not None:
        raise Die(f"VM {job.vmid} already running")
    if conf.get("template") == "1":
        raise Die("you can't start a vm if it's a template")
    job.check_free(conf, "suspended")
    for key, value in conf.values.items():
        bridge = re.search(r"(?:^|,)bridge=([^,]+)", value) if re.fullmatch(r"net[0-9]+", key) else None
        if bridge is not None and not node.files.exists(f"/sys/class/net/{bridge[1]}"):
            raise Die(f"bridge '{bridge[1]}' does not exist")
    for vol in owned(node, job.vmid, conf.values):
        storage.check(node, vol.storage.id)
        if not storage.exists(node, vol):
            raise Die(f"volume '{vol.id}' does not exist")
    if any("cloudinit" in value for value in conf.values.values()):
        job.say("generating cloud-init ISO\n")
    yield from job.took(0.9)
    vms.start(node, job.vmid)
    if conf.get("lock") == "suspended":
        job.save_vm(conf.with_values(lock=None))
    yield from job.took(0.4)


def stop(job: VmJob) -> Steps:
    """``qm stop``: pulls the plug; of a stopped one it is a success."""
    job.load_vm()
    if job.flag("overrule-shutdown"):
        overruled = job.node.tasks("qmshutdown", job.vmid)
        for upid in overruled:
            job.node.abort_task(upid)
        if overruled:
            job.say(f"overruled qmshutdown tasks: {', '.join(overruled)}\n")

    def body() -> Work:
        job.check_free(job.load_vm(), "suspended")
        yield from _pull(job)

    return (yield from job.worker("qmstop", lambda: job.held(body)))


def _pull(job: VmJob) -> Work:
    if vms.pid_of(job.node, job.vmid) is None:
        return
    yield from job.took(0.3)
    vms.stop(job.node, job.vmid)
    yield from job.took(0.4)


def shutdown(job: VmJob) -> Steps:
    """``qm shutdown``: asks, and pulls the plug only with ``--forceStop``."""
    job.load_vm()

    def body() -> Work:
        node = job.node
        job.check_free(job.load_vm())
        if vms.pid_of(node, job.vmid) is None:
            return
        if vms.status(node, job.vmid) == "paused":
            if not job.flag("forceStop"):
                raise Die("VM is paused - cannot shutdown")
            job.say("VM is paused - stop instead of shutdown\n")
            yield from _pull(job)
            return
        vms.press_power(node, job.vmid)
        yield from _gone(job, float(job.param.get("timeout", "60")))
        if vms.pid_of(node, job.vmid) is None:
            return
        if not job.flag("forceStop"):
            raise Die("VM quit/powerdown failed - got timeout")
        job.say("VM quit/powerdown failed - terminating now with SIGTERM\n")
        yield from _pull(job)

    return (yield from job.worker("qmshutdown", lambda: job.held(body)))


def _gone(job: VmJob, timeout: float) -> Work:
    """Wait until it has powered down or the time is over, in steps of a second."""
    node = job.node
    end = node.steady() + timeout * node.pace
    while True:
        due = node.next_due()
        left = end - node.steady()
        if due is not None:
            left = min(left, max(0.0, due - node.steady()))
        if left > 0:
            yield Sleep(min(left, 1.0))
        node.settle()
        if job.task is not None and node.aborted(job.task):
            raise Die("got unexpected control message")
        if vms.pid_of(node, job.vmid) is None or node.steady() >= end:
            return


def reset(job: VmJob) -> Steps:
    """``qm reset``: the reset button; the process stays."""

    def body() -> Work:
        job.check_free(job.load_vm())
        job.require_running()
        yield from job.took(0.1)
        job.node.effect("signal", str(job.vmid), "reset")

    return (yield from job.worker("qmreset", lambda: job.held(body)))


def reboot(job: VmJob) -> Steps:
    """``qm reboot``: down and up again, with another process."""

    def body() -> Work:
        job.load_vm()
        job.require_running()
        vms.press_power(job.node, job.vmid)
        yield from _gone(job, float(job.param.get("timeout", "60")))
        yield from _pull(job)
        yield from power_up(job)

    return (yield from job.worker("qmreboot", lambda: job.held(body)))


def suspend(job: VmJob) -> Steps:
    """``qm suspend``: its processors stop; to disk is not simulated."""
    if job.flag("todisk"):
        raise Die("suspend to disk is not simulated")

    def body() -> Work:
        job.check_free(job.load_vm())
        job.require_running()
        yield from job.took(0.1)
        vms.pause(job.node, job.vmid, paused=True)

    return (yield from job.worker("qmpause", lambda: job.held(body)))


def resume(job: VmJob) -> Steps:
    """``qm resume``."""

    def body() -> Work:
        job.check_free(job.load_vm())
        job.require_running()
        yield from job.took(0.1)
        vms.pause(job.node, job.vmid, paused=False)

    return (yield from job.worker("qmresume", lambda: job.held(body)))


def monitor(job: VmJob) -> Steps:
    """``qm monitor``: lines of QEMU's own monitor on standard input."""
    job.load_vm()
    job.require_running()
    job.say(f"Entering QEMU Monitor for VM {job.vmid} - type 'help' for help\n")
    for line in job.ctx.stdin.decode("utf-8", "replace").splitlines():
        word = line.strip()
        if word in ("q", "quit"):
            break
        if word == "system_powerdown":
            vms.press_power(job.node, job.vmid)
        elif word == "info status":
            job.say(f"VM status: {vms.status(job.node, job.vmid)}\n")
        elif word:
            job.say(f"unknown command: '{word.split()[0]}'\n")
    yield from job.took(0.01)
    return 0


# ---- destroy -----------------------------------------------------------------------------------------------------------


def destroy(job: VmJob) -> Steps:
    """``qm destroy``: its disks go first, then its config; there is no ``--force``."""
    conf = job.load_vm()
    if conf.get("protection") == "1":
        raise Die(f"can't remove VM {job.vmid} - protection mode enabled")
    if job.node.files.exists(f"{SIM}/ha/{job.vmid}") and not job.flag("purge"):
        raise Die(f"unable to remove VM {job.vmid} - used in HA resources and purge parameter not set.")

    def body() -> Work:
        conf = job.load_vm()
        job.check_free(conf, "suspended")
        if vms.pid_of(job.node, job.vmid) is not None:
            raise Die(f"VM {job.vmid} is running - destroy failed")
        yield from _destroy(job, conf)

    return (yield from job.worker("qmdestroy", lambda: job.held(body)))


def _destroy(job: VmJob, conf: Config) -> Work:
    node, vmid = job.node, job.vmid
    volumes = {vol.id: vol for part in (conf.main, *conf.snapshots.values()) for vol in owned(node, vmid, part.values)}
    yield from job.took(0.05)
    for vol in volumes.values():
        job.say(storage.free(node, vol))
        yield from job.took(0.05)
    if job.flag("destroy-unreferenced-disks"):
        for place in storage.storages(node).values():
            for vol in storage.of_guest(node, place, vmid) if "images" in place.content else ():
                job.say(storage.free(node, vol))
    job.save_vm(Config({"lock": "destroyed"}))
    yield from job.took(0.05)
    if job.flag("purge"):
        job.say(f"purging VM {vmid} from related configurations..\n")
        node.files.remove(f"{SIM}/ha/{vmid}")
    vms.remove_config(node, vmid)
