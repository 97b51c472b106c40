"""``qm guest exec``: what a program inside prints is collected, and told as JSON at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping

from nexcage.testing._model import guest, vms
from nexcage.testing._model.guest import Guest
from nexcage.testing._model.node import Node
from nexcage.testing._model.qm.job import VmJob
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Ctx, Sleep, Steps

__all__ = ["exec_"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLL = 1.0  # seconds between two questions to the agent


class _Inside(Guest):
    """One program's view of its virtual machine, which it dies with."""

    def __init__(self, ctx: Ctx, node: Node, vmid: int, env: Mapping[str, str]) -> None:
        super().__init__(ctx, node, vmid, env)
        self.pid: int | None = vms.pid_of(node, vmid)

    def lives(self) -> bool:
        return vms.pid_of(self.node, self.vmid) == self.pid


def exec_(job: VmJob) -> Steps:
    """Exit 0 whatever the program says; one that takes too long goes on by itself."""
    _answering(job)
    given = b""
    if job.flag("pass-stdin"):
        given = yield from Guest(job.ctx, job.node, job.vmid, {}).whole()
        if len(given) > 1 << 20:
            raise Die("input-data: value may only be 1048576 characters long")
    if not job.extra:
        raise Die("missing command")
    inner = Ctx(job.node, job.extra, stdin=given)
    inside = _Inside(inner, job.node, job.vmid, {"PATH": _PATH})
    if job.extra[0].rpartition("/")[2] not in guest.PROGRAMS:
        said = f"Failed to execute child process \u201c{job.extra[0]}\u201d (No such file or directory)"
        raise Die(f"Agent error: Guest agent command failed, error was '{said}'")
    job.node.effect("exec", str(job.vmid), " ".join(job.extra)[:80])
    return (yield from _polled(job, inside))


def _answering(job: VmJob) -> None:
    conf = job.load_vm()
    if (conf.get("agent") or "0").split(",")[0] not in ("1", "enabled=1"):
        raise Die("No QEMU guest agent configured")
    if vms.pid_of(job.node, job.vmid) is None:
        raise Die(f"VM {job.vmid} is not running")
    if not vms.agent(job.node, job.vmid):
        raise Die("QEMU guest agent is not running")


def _polled(job: VmJob, inside: _Inside) -> Steps:
    """The program in pieces, until it ends or its time is over (0: never)."""
    limit = float(job.param.get("timeout", "30"))
    begun = job.node.steady()
    steps = guest.run(inside, job.extra)
    while True:
        try:
            wait = next(steps)
        except StopIteration as end:
            yield from job.took(0.05)
            _tell(job, inside.ctx, end.value)
            return 0
        if limit and job.node.steady() - begun >= limit * job.node.pace:
            job.warn("timeout reached, returning pid\n")
            job.say('{\n   "pid" : 4711\n}\n')
            return 0
        yield wait if isinstance(wait, Sleep) else Sleep(_POLL)
        if not inside.lives():
            raise Die(f"VM {job.vmid} is not running")


def _tell(job: VmJob, ctx: Ctx, status: int) -> None:
    found: dict[str, object] = {"exited": 1, "exitcode": status}
    found |= {"out-data": ctx.stdout.decode("latin-1")} if ctx.stdout else {}
    found |= {"err-data": ctx.stderr.decode("latin-1")} if ctx.stderr else {}
    text = json.dumps(found, indent=3, separators=(",", " : "), sort_keys=True, ensure_ascii=False)
    job.ctx.out(f"{text}\n".encode("latin-1"))
