"""The twin of the script around ``qm guest exec``."""

from __future__ import annotations

import json

from nexcage.testing._model import find_tool, vms
from nexcage.testing._model.guest import Guest
from nexcage.testing._model.tool import Ctx, Steps, Tool
from nexcage.tools import agent

__all__ = ["AGENTS"]


def _guest_exec(ctx: Ctx) -> Steps:
    mark, vmid, _, seconds, given, *words = ctx.argv[1:]
    if f"#{mark}" not in (vms.config(ctx.node, int(vmid)) or "").split("\n[")[0].split("\n"):
        return _refused(ctx, 9, "the container does not carry our mark")
    if vms.pid_of(ctx.node, int(vmid)) is None:
        return _refused(ctx, 8, f"virtual machine {vmid} has no process")
    tool = find_tool(ctx.node, "qm")
    if tool is None:
        return _refused(ctx, 6, "there is no qm")
    data = (yield from Guest(ctx, ctx.node, int(vmid), {}).whole()) if given else b""
    options = ("--timeout", seconds, *(("--pass-stdin", "1") if given else ()), "--")
    inner = Ctx(ctx.node, ("qm", "guest", "exec", vmid, *options, *words), stdin=data, env=ctx.env)
    inner.claim = ctx.claim
    status = yield from tool(inner)
    return _told(ctx, inner, status)


def _told(ctx: Ctx, inner: Ctx, status: int) -> int:
    found: dict[str, str | int] = json.loads(inner.stdout.decode("latin-1")) if status == 0 else {}
    if "exitcode" in found:
        ctx.err(b"@nexcage inside\n" + str(found.get("err-data", "")).encode("latin-1"))
        ctx.out(str(found.get("out-data", "")).encode("latin-1"))
        return int(found["exitcode"])
    if "pid" in found:
        return _refused(ctx, 4, f"it still runs in the guest as pid {found['pid']}")
    ctx.err(b"nexcage: qm: " + bytes(inner.stderr))
    return 5


def _refused(ctx: Ctx, status: int, why: str) -> int:
    ctx.err(f"nexcage: {why}\n")
    return status


AGENTS: dict[str, Tool] = {agent.GUEST_EXEC: _guest_exec}
"""Script text to its twin."""
