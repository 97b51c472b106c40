"""The twin of the script that removes what is half made or half deleted."""

from __future__ import annotations

from typing import NamedTuple

from nexcage.testing._model import TOOLS
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Steps
from nexcage.tools.mending import MEND

__all__ = ["MENDING"]


def _mend(ctx: Ctx) -> Steps:
    vmid, lock, kind, at, started, mark, making, again = (*ctx.argv[1:], "", "", "")[:8]
    place = "qemu-server" if kind.startswith("qm") else "lxc"
    text = ctx.node.files.read(f"/etc/pve/nodes/{ctx.node.name}/{place}/{vmid}.conf")
    if text is None:
        return 0
    main = text.split("\n[")[0].split("\n")
    marked = mark != "" and f"#{mark}" in main and f"lock: {lock}" in text.split("\n")
    said = f"lock: {lock}" if marked else text.rstrip("\n")
    sure = bool(making) and text.strip() != f"lock: {lock}"
    log = _Log(kind, int(at), int(started), tuple(again.split()))
    why = _not_ours(ctx.node, said, vmid, lock, log, sure=sure)
    if why:
        ctx.err(f"nexcage: {vmid} is not provably ours: {why}\n")
        return 9
    if place == "qemu-server":
        words = ("qm", "destroy", vmid, "--skiplock", "1", "--destroy-unreferenced-disks", "1")
        return (yield from TOOLS["qm"](_call(ctx, *words)))
    if making and text.strip() not in ("", f"lock: {lock}"):
        ctx.node.write_config(int(vmid), f"lock: {lock}\n")
    if text.strip():
        status = yield from TOOLS["pct"](_call(ctx, "pct", "unlock", vmid))
        if status:
            return status
    force = ("--force", "1") if making else ()
    return (yield from TOOLS["pct"](_call(ctx, "pct", "destroy", vmid, *force, "--destroy-unreferenced-disks", "1")))


def _call(ctx: Ctx, *argv: str) -> Ctx:
    ctx.argv = argv
    return ctx


class _Log(NamedTuple):
    """What the task log may show of us: a task of that kind since then, and one while each command ran that was to remove it again."""

    kind: str
    at: int
    started: int
    again: tuple[str, ...]

    def turn(self, kind: str, start: int, at: int) -> str | None:
        """Which of our commands would have run this task."""
        same = kind == self.kind or (self.kind, kind) == ("vzcreate", "vzrestore")
        if not same or (at < self.at - 1 and start < self.started):
            return None
        while_ = [ran for ran in self.again if int(ran.split("-")[0]) <= start <= int(ran.split("-")[1])]
        return while_[-1] if while_ else ""

    def made(self, kind: str, start: int, at: int) -> bool:
        """Whether somebody has made another one meanwhile."""
        return bool(self.again) and kind.endswith(("create", "restore")) and at >= self.at and start >= self.started


def _not_ours(node: Node, text: str, vmid: str, lock: str, log: _Log, *, sure: bool) -> str:
    if text not in (f"lock: {lock}", ""):
        return "its config has more than a lock"
    turns: list[str] = []
    logs = [node.files.read(f"/var/log/pve/tasks/{name}") or "" for name in ("active", "index")]
    for upid in sorted({line.split(" ")[0] for text in logs for line in text.splitlines() if line.startswith("UPID:")}):
        parts = upid.split(":")
        if parts[6] != vmid:
            continue
        if node.alive(int(parts[2], 16)):
            return "a task works on it"
        task = (parts[5], int(parts[3], 16), int(parts[4], 16))
        if log.made(*task):
            return "somebody has made another one since"
        turn = log.turn(*task)
        turns += [] if turn is None else [turn]
    return "another task of that kind came after ours" if len(set(turns)) < len(turns) and not sure else ""


MENDING = {MEND: _mend}
