"""One ``pct`` call: its options, its two streams, the container's lock, and the worker that does the changing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeAlias

from nexcage.testing._model.node import Node, Task
from nexcage.testing._model.pct import conf as configs
from nexcage.testing._model.pct import usage
from nexcage.testing._model.pct.conf import Conf
from nexcage.testing._model.schema import Errors, Refused, verification_failed
from nexcage.testing._model.storage import Die
from nexcage.testing._model.tool import Ctx, Flock, Interrupted, Sleep, Unlock, Wait

__all__ = ["BadParameter", "Body", "Job", "Work"]

Work: TypeAlias = Generator[Wait, Any, None]  # Any: what a wait is answered with depends on the wait
Body: TypeAlias = Callable[[], Work]


class BadParameter(Die):
    """Some options are refused; PVE prints one line for each and then the usage."""

    def __init__(self, errors: Errors) -> None:
        super().__init__("400 Parameter verification failed.")
        self.errors: Errors = errors


class Job:
    """What the commands work with."""

    def __init__(self, ctx: Ctx, command: str, param: dict[str, str], extra: tuple[str, ...] = ()) -> None:
        self.ctx: Ctx = ctx
        self.node: Node = ctx.node
        self.command: str = command
        self.param: dict[str, str] = param
        self.extra: tuple[str, ...] = extra
        self.vmid: int = int(param["vmid"]) if "vmid" in param else 0
        self.merged: bool = False
        """True inside a worker: its standard error comes out on standard output."""
        self.task: Task | None = None
        self._warned: dict[int, str] = {}

    def flag(self, name: str) -> bool:
        """Whether a boolean option is on."""
        return self.param.get(name) == "1"

    def say(self, text: str) -> None:
        """Write to standard output."""
        self.ctx.out(text)
        if self.task is not None:
            self.node.files.append(self.task.log, text)

    def warn(self, text: str) -> None:
        """Write to standard error, which a worker does not have."""
        if self.merged:
            self.say(text)
        else:
            self.ctx.err(text)

    def took(self, seconds: float) -> Generator[Wait, Any, None]:  # Any: see Work
        """Let the time of real work pass."""
        cost = self.node.cost(seconds)
        if cost or self.ctx.watched:
            yield Sleep(cost)

    # --- configs ------------------------------------------------------------------------------------------------------

    def load(self, vmid: int | None = None) -> Conf:
        """The container's config; warnings are printed once for each version of the file, as PVE caches it."""
        vmid = self.vmid if vmid is None else vmid
        text = self.node.config(vmid)
        if text is None:
            raise Die(f"Configuration file 'nodes/{self.node.name}/lxc/{vmid}.conf' does not exist")
        conf, warnings = configs.read(vmid, text)
        if warnings and self._warned.get(vmid) != text:
            self.warn("".join(warnings))
        self._warned[vmid] = text
        return conf

    def save(self, conf: Conf, vmid: int | None = None) -> None:
        """Write it back; reading it again warns again."""
        vmid = self.vmid if vmid is None else vmid
        if not self.node.quorate:
            path = f"/etc/pve/nodes/{self.node.name}/lxc/{vmid}.conf"
            raise Die(f"unable to open file '{path}.tmp.{self.node.random.randrange(9999)}' - Permission denied")
        before = self.node.config(vmid)
        self.node.write_config(vmid, conf.render())
        old_lock = configs.read(vmid, before)[0].lock if before is not None else None
        if old_lock != conf.lock:
            self.node.effect("lock", str(vmid), f"set {conf.lock}" if conf.lock else f"removed {old_lock}")
        self._warned.pop(vmid, None)

    def check_quorum(self) -> None:
        """Changing anything needs the majority."""
        if not self.node.quorate:
            raise Die("cluster not ready - no quorum?")

    def check_lock(self, conf: Conf, passing: str = "") -> None:
        """Refuse while the config is locked, except by ``passing``."""
        if conf.lock is not None and conf.lock != passing:
            raise Die(f"CT is locked ({conf.lock})")

    def check_digest(self, option: str = "digest", vmid: int | None = None) -> None:
        """Refuse when the file is not the one that the caller has read."""
        from hashlib import sha1  # few calls give one

        wanted = self.param.get(option)
        text = self.node.config(self.vmid if vmid is None else vmid) or ""
        if wanted and wanted != sha1(text.encode("utf-8", "surrogateescape")).hexdigest():  # noqa: S324 (what PVE takes)
            raise Die("detected modified configuration - file changed by other user? Try again.")

    def check_protection(self, conf: Conf, message: str) -> None:
        """Refuse what the protection flag forbids."""
        if conf.values.get("protection") == "1":
            raise Die(f"{message} - protection mode enabled")

    # --- locks and workers --------------------------------------------------------------------------------------------

    def locked(self, body: Body, timeout: float = 10.0, vmid: int | None = None) -> Work:
        """Run ``body`` with the container's flock held."""
        path = f"/run/lock/lxc/pve-config-{self.vmid if vmid is None else vmid}.lock"
        if not (yield Flock(path, 0.0)):
            self.warn("trying to acquire lock...\n")
            if not (yield Flock(path, timeout)):
                raise Die(f"can't lock file '{path}' - got timeout")
            self.warn(" OK\n")
        yield from body()
        yield Unlock(path)

    def worker(self, kind: str, body: Body, keeps_status: bool = True) -> Generator[Wait, Any, int]:  # Any: see Work
        """Run ``body`` as a task; the exit status. Some commands report success whatever the task said."""
        self.merged = True
        self.task = self.node.begin_task(kind, self.vmid)
        try:
            yield from body()
        except (Die, Refused) as error:
            text = error.text.rstrip("\n")
        except Interrupted:
            text = "received interrupt"
        else:
            self.node.end_task(self.task, "OK")
            self.task = None
            return 0
        self.node.end_task(self.task, text)
        self.task = None
        self.ctx.err(text.replace("\n", " ") + "\n" if "format error" not in text else text + "\n")
        return 255 if keeps_status else 0

    def usage(self) -> str:
        """The short usage of the command."""
        return usage.short(self.command)

    def refused(self, errors: Errors, what: str = "Parameter verification failed.") -> str:
        """The text for bad options."""
        return verification_failed(errors, self.usage(), what)


Options: TypeAlias = Mapping[str, str]
