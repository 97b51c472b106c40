"""One ``qm`` call: as a ``pct`` call, on the configs and locks of virtual machines."""

from __future__ import annotations

from nexcage.testing._model import vms
from nexcage.testing._model.pct.job import Body, Job, Work
from nexcage.testing._model.qm.options import short
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Flock, Unlock
from nexcage.tools.config import Config, parse

__all__ = ["VmJob"]


class VmJob(Job):
    """What the commands work with."""

    def load_vm(self) -> Config:
        """The machine's config."""
        text = vms.config(self.node, self.vmid)
        if text is None:
            raise Die(f"Configuration file 'nodes/{self.node.name}/qemu-server/{self.vmid}.conf' does not exist")
        return parse(text)

    def save_vm(self, conf: Config) -> None:
        """Write it back."""
        node, vmid = self.node, self.vmid
        if not node.quorate:
            path = vms.config_path(node, vmid)
            raise Die(f"unable to open file '{path}.tmp.{node.random.randrange(9999)}' - Permission denied")
        before = vms.config(node, vmid)
        vms.write_config(node, vmid, conf.render())
        old, new = (parse(before).get("lock") if before is not None else None), conf.get("lock")
        if old != new:
            node.effect("lock", str(vmid), f"set {new}" if new else f"removed {old}")

    def check_free(self, conf: Config, *passing: str) -> None:
        """Refuse while the config is locked, except by ``passing`` or with ``--skiplock``."""
        lock = conf.get("lock")
        if lock is not None and lock not in passing and not self.flag("skiplock"):
            raise Die(f"VM is locked ({lock})")

    def require_running(self) -> None:
        """Refuse what only a running machine can do."""
        if vms.pid_of(self.node, self.vmid) is None:
            raise Die(f"VM {self.vmid} not running")

    def held(self, body: Body, timeout: float = 10.0) -> Work:
        """Run ``body`` with the machine's flock held."""
        path = f"/var/lock/qemu-server/lock-{self.vmid}.conf"
        if not (yield Flock(path, 0.0)):
            self.warn("trying to acquire lock...\n")
            if not (yield Flock(path, timeout)):
                raise Die(f"can't lock file '{path}' - got timeout")
            self.warn(" OK\n")
        yield from body()
        yield Unlock(path)

    def usage(self) -> str:
        """The short usage of the command."""
        return short(self.command)
