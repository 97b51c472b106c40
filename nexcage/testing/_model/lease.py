"""The twins of the scripts of `nexcage.tools.lease`, and what pmxcfs does with a lock directory.

Such a directory is a file here that says which node made it and when it was last touched; all of ``/etc/pve`` is one tree for the
whole cluster, so they exclude each other as there. It is let go when somebody asks more than 120 s after that.
"""

from __future__ import annotations

from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Sleep, Steps, Tool
from nexcage.tools.lease import HOLD, RELEASE

__all__ = ["LEASE", "expire_lock"]

_PRIV = "/etc/pve/priv"
_EXPIRY = 120.0


class _Found:
    """The file of the highest epoch, and how many have that epoch."""

    def __init__(self, node: Node, fleet: str) -> None:
        self.epoch, self.holder, self.host, self.many = -1, "none", "none", 0
        self.all: dict[str, int] = {}
        prefix = f"nexcage-{fleet}.lease."
        for name in node.files.names(_PRIV):
            parts = name.removeprefix(prefix).split(".")
            if not name.startswith(prefix) or len(parts) != 3 or not parts[0].isdigit() or not parts[2]:
                continue
            epoch = self.all[name] = int(parts[0])
            if epoch > self.epoch:
                self.epoch, self.holder, self.host, self.many = epoch, parts[1], parts[2], 1
            elif epoch == self.epoch:
                self.many += 1

    @property
    def name(self) -> str:
        return f"{self.epoch}.{self.holder}.{self.host}"

    def says(self, kind: str, *, renewed: bool = False) -> str:
        return f"@nexcage lease {kind} {int(renewed)} {self.epoch} {self.holder} {self.host}\n"


def _mkdir(node: Node, path: str) -> bool:
    if not node.quorate or node.files.exists(path):
        return False
    node.files.write(path, f"{node.name} {node.now()!r}")
    return True


def _touch(node: Node, path: str) -> bool:
    """Only the node that made it may, and only forwards."""
    maker, _, at = (node.files.read(path) or "").partition(" ")
    if not node.quorate or maker != node.name or node.now() < float(at):
        return False
    node.files.write(path, f"{node.name} {node.now()!r}")
    return True


def expire_lock(node: Node, path: str) -> None:
    """What ``utime(0, 0)`` asks for."""
    _, _, at = (node.files.read(path) or "").partition(" ")
    if node.quorate and at and node.now() - float(at) > _EXPIRY:
        node.files.remove(path)


def _lock(node: Node, path: str) -> Steps:
    """Its end is an exit status: 0 when the directory was made."""
    if _mkdir(node, path):
        return 0
    expire_lock(node, path)
    yield Sleep(0.3)
    return 0 if _mkdir(node, path) else 1


def _hold(ctx: Ctx) -> Steps:
    node = ctx.node
    fleet, holder, host, highest, now = ctx.argv[1:]
    path = f"{_PRIV}/lock/nexcage-{fleet}"
    if not node.quorate:
        ctx.out("@nexcage lease noquorum\n")
        return 0
    found = _Found(node, fleet)
    if found.holder == holder and found.many == 1 and found.epoch >= int(highest):
        renewed = _touch(node, path) or (yield from _lock(node, path)) == 0
        found = _Found(node, fleet)
        ctx.out(found.says("mine", renewed=renewed) if found.holder == holder else found.says("held"))
        return 0
    renewed = (yield from _lock(node, path)) == 0
    if not renewed:
        found = _Found(node, fleet)
        if not node.files.exists(path) or found.holder != holder or found.many != 1:
            ctx.out(found.says("held") if node.files.exists(path) else "@nexcage lease failed\n")
            return 0
        renewed = _touch(node, path)  # its own, and it needs a higher epoch
    yield Sleep(0.001)  # a taker can be overtaken here
    _move(node, fleet, holder, host, int(highest), int(now))
    mine = _Found(node, fleet)
    ctx.out(mine.says("mine", renewed=renewed) if mine.holder == holder else mine.says("held"))
    return 0


def _move(node: Node, fleet: str, holder: str, host: str, highest: int, now: int) -> None:
    """The step that counts: one rename."""
    found = _Found(node, fleet)
    following = max(found.epoch + 1, highest + 1, now if found.epoch <= 0 else 0)
    node.files.write(f"{_PRIV}/nexcage-{fleet}.lease.{following}.{holder}.{host}", "")
    for name in found.all:
        node.files.remove(f"{_PRIV}/{name}")


def _release(ctx: Ctx) -> Steps:
    fleet, holder = ctx.argv[1:]
    if ctx.node.quorate and _Found(ctx.node, fleet).holder == holder:
        ctx.node.files.remove(f"{_PRIV}/lock/nexcage-{fleet}")
    return 0
    yield


LEASE: dict[str, Tool] = {HOLD: _hold, RELEASE: _release}
"""Script text to its twin."""
