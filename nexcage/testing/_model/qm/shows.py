"""config, list, status, set, unlock."""

from __future__ import annotations

from nexcage.testing._model import vms
from nexcage.testing._model.qm.create import settings
from nexcage.testing._model.qm.job import VmJob
from nexcage.testing._model.schema import parse_size
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Steps
from nexcage.tools.config import encode_text, parse

__all__ = ["config", "list_", "set_", "status", "unlock"]


def config(job: VmJob) -> Steps:
    """``qm config``: sorted keys, the description encoded on one line."""
    conf = job.load_vm()
    part = conf.main
    if "snapshot" in job.param:
        if job.param["snapshot"] not in conf.snapshots:
            raise Die(f"snapshot '{job.param['snapshot']}' does not exist")
        part = conf.snapshots[job.param["snapshot"]]
    lines = dict(part.values)
    if part.description:
        lines["description"] = encode_text(part.description).replace("\n", "%0A")
    job.say("".join(f"{key}: {lines[key]}\n" for key in sorted(lines)))
    return 0
    yield


def list_(job: VmJob) -> Steps:
    """``qm list``: a paused one is called running here."""
    node, rows = job.node, [("VMID", "NAME", "STATUS", "MEM(MB)", "BOOTDISK(GB)", "PID")]
    for vmid in vms.machines(node):
        values = parse(vms.config(node, vmid) or "").values
        pid = vms.pid_of(node, vmid)
        disk = next((part[5:] for part in values.get("scsi0", "").split(",") if part.startswith("size=")), "0")
        gib = (parse_size(disk) or 0) / 1024**3
        state = "running" if pid else "stopped"
        rows.append(
            (
                str(vmid),
                values.get("name", f"VM {vmid}"),
                state,
                values.get("memory", "512"),
                f"{gib:.2f}",
                str(pid or 0),
            )
        )
    if len(rows) > 1:
        job.say("".join("{:>10} {:<20} {:<10} {:<10} {:>12} {:<10}\n".format(*row) for row in rows))
    return 0
    yield


def status(job: VmJob) -> Steps:
    """``qm status``: what its QEMU says."""
    conf = job.load_vm()
    state = vms.status(job.node, job.vmid)
    if not job.flag("verbose"):
        job.say(f"status: {state}\n")
        return 0
    pid = vms.pid_of(job.node, job.vmid)
    facts = {"name": conf.get("name") or f"VM {job.vmid}", "qmpstatus": state, "vmid": str(job.vmid)}
    facts |= {"status": "running" if pid else "stopped", "maxmem": str(int(conf.get("memory") or 512) << 20)}
    facts |= {"pid": str(pid)} if pid else {}
    job.say("".join(f"{key}: {facts[key]}\n" for key in sorted(facts)))
    return 0
    yield


def set_(job: VmJob) -> Steps:
    """``qm set``: direct, and says what it does."""
    job.check_quorum()
    conf = job.load_vm()
    job.check_free(conf)
    changes = settings(job)
    gone = [key for key in job.param.get("delete", "").replace(";", ",").split(",") if key]
    if not changes and not gone and "description" not in job.param:
        raise Die("no options specified")
    job.say(
        f"update VM {job.vmid}: {' '.join(f'-{key} {value}' for key, value in sorted(job.param.items()) if key != 'vmid')}\n"
    )
    values = {**{key: value for key, value in conf.values.items() if key not in gone}, **changes}
    job.save_vm(conf._replace(values=values, description=job.param.get("description", conf.description)))
    yield from job.took(0.1)
    return 0


def unlock(job: VmJob) -> Steps:
    """``qm unlock``."""
    conf = job.load_vm()
    if conf.get("lock") is None:
        raise Die("no lock found trying to remove any lock")
    job.save_vm(conf.with_values(lock=None))
    return 0
    yield
