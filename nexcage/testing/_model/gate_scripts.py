"""The twins of the scripts of the gate (`nexcage.tools.gate`) and of hooks (`nexcage.tools.hook`)."""

from __future__ import annotations

import re
import struct

from nexcage.testing._model.gates import let_pass, waits
from nexcage.testing._model.tool import Ctx, Flock, Steps, Unlock
from nexcage.tools.gate import OPEN, REACHED, READ, SEAL, START
from nexcage.tools.hook import HOOK

__all__ = ["GATES"]


def _carries(ctx: Ctx, vmid: int, line: str) -> bool:
    return line in (ctx.node.config(vmid) or "").split("\n[")[0].split("\n")


def _no(ctx: Ctx, status: int, why: str) -> int:
    ctx.err(f"nexcage: {why}\n")
    return status


def _start(ctx: Ctx) -> Steps:
    from nexcage.testing._model import TOOLS

    mark, vmid = ctx.argv[1:3]
    if not (_carries(ctx, int(vmid), f"#making {mark}") or _carries(ctx, int(vmid), f"#{mark}")):
        return _no(ctx, 9, "the container does not carry our mark")
    ctx.node.files.remove(f"{ctx.argv[3]}/inside/open")
    ctx.argv = ("pct", "start", vmid, *(("--skiplock", "1") if _carries(ctx, int(vmid), "lock: create") else ()))
    return (yield from TOOLS["pct"](ctx))


def _reached(ctx: Ctx) -> Steps:
    vmid = int(ctx.argv[2])
    pid = ctx.node.init_pid(vmid)
    if pid is None:
        return _no(ctx, 8, "its init ended before it came to the gate")
    if not waits(ctx.node, vmid):
        return _no(ctx, 5, "its init did not come to the gate")
    ctx.out(f"{pid}\n")
    return 0
    yield


def _open(ctx: Ctx) -> Steps:
    mark, vmid, directory = ctx.argv[1:4]
    if not _carries(ctx, int(vmid), f"#{mark}"):
        return _no(ctx, 9, "the container does not carry our mark")
    pid = ctx.node.init_pid(int(vmid))
    if pid is None:
        return _no(ctx, 8, f"container {vmid} has no init process")
    for name in ctx.node.files.names(directory):
        if name.startswith("begun.poststart."):
            ctx.node.files.remove(f"{directory}/{name}")
    ctx.node.files.write(f"{directory}/inside/open", f"{ctx.env.get('NEXCAGE_OP_ID', 'start')}\n")
    if waits(ctx.node, int(vmid)):
        let_pass(ctx.node, int(vmid))
    ctx.out(f"{pid}\n")
    return 0
    yield


def _seal(ctx: Ctx) -> Steps:
    mark, vmid = ctx.argv[1], int(ctx.argv[2])
    path = f"/run/lock/lxc/pve-config-{vmid}.lock"
    if not (yield Flock(path, 10.0)):
        return _no(ctx, 75, f"can't lock the config of {vmid}")
    status = _sealed(ctx, mark, vmid)
    yield Unlock(path)
    return status


def _sealed(ctx: Ctx, mark: str, vmid: int) -> int:
    if _carries(ctx, vmid, f"#{mark}") and not _carries(ctx, vmid, "lock: create"):
        return 0
    if not (_carries(ctx, vmid, f"#making {mark}") and _carries(ctx, vmid, "lock: create")):
        return _no(ctx, 9, "somebody has changed it since it was made")
    if not ctx.node.quorate:
        return _no(ctx, 73, f"{ctx.node.config_path(vmid)} cannot be written")
    lines = (ctx.node.config(vmid) or "").removesuffix("\n").split("\n")
    made = [f"#{mark}" if line == f"#making {mark}" else line for line in lines if line != "lock: create"]
    ctx.node.write_config(vmid, "".join(f"{line}\n" for line in made))
    ctx.node.effect("lock", str(vmid), "removed create")
    return 0


def _read(ctx: Ctx) -> Steps:
    mark, _, directory, name = ctx.argv[1:5]
    data = ctx.node.files.read(f"{directory}/{name}")
    if data and (ctx.node.files.read(f"{directory}/mark") or "").strip() == mark:
        ctx.out(f"@nexcage kept\n{data}")
    else:
        ctx.out("@nexcage none\n")
    return 0
    yield


def _hook(ctx: Ctx) -> Steps:
    """A hook of a node in memory is a file whose last ``exit N`` is how it ends."""
    given: dict[bytes, str] = {}
    data = ctx.stdin
    while len(data) >= 6:
        tag, (size,) = data[:1], struct.unpack_from("<I", data, 1)
        given[tag] = data[5 : 5 + size].decode("utf-8", "surrogateescape")
        data = data[6 + size :]
    node, path, once = ctx.node, given[b"H"], given[b"o"]
    if once and node.files.exists(once):
        said = node.files.read(once)
        ctx.err(said or "nexcage: it was begun before, and is not run again\n")
        return 7 if said else 0
    if once:
        node.files.write(once, "")
    text = node.files.read(path)
    status = re.findall(r"exit ([0-9]+)", text or "exit 0")[-1:] or ["0"]
    node.effect("hook", path, given[b"n"])
    why = "no such file or directory" if text is None else f"exit status {status[0]}" if status[0] != "0" else ""
    if why:
        said = f'nexcage: {given[b"n"]} hook "{path}" failed: {why}\n'
        if once:
            node.files.write(once, said)
        ctx.err(said)
        return 7
    return 0
    yield


GATES = {START: _start, REACHED: _reached, OPEN: _open, SEAL: _seal, READ: _read, HOOK: _hook}
"""The scripts to their twins."""
