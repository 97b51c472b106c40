"""Containers that wait at the gate before their program, and the twins of the scripts that let them pass (`nexcage.tools.gate`)."""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress

from nexcage.testing._model.files import SIM, DiskFiles
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Flock, Steps, Unlock
from nexcage.tools.gate import OPEN, REACHED, READ, SEAL, START
from nexcage.tools.hook import HOOK

__all__ = ["GATES", "pass_gates", "stand", "waits"]

_ENTRY = re.compile(r"^lxc\.mount\.entry: (/\S+/inside) \.nexcage none bind", re.MULTILINE)


def _gate(node: Node, vmid: int) -> str:
    found = _ENTRY.search((node.config(vmid) or "").split("\n[")[0])
    return found[1] if found else ""


def waits(node: Node, vmid: int) -> bool:
    """Whether it is at its gate."""
    return node.is_running(vmid) and node.files.read(f"{SIM}/gate/{vmid}") == str(node.init_pid(vmid))


def stand(node: Node, vmid: int, pid: int) -> None:
    """It has just been started: one that has an init of the library waits, unless it was started before."""
    gate = _gate(node, vmid)
    if not gate or node.files.exists(f"{gate}/open"):
        return
    node.files.write(f"{SIM}/gate/{vmid}", str(pid))
    node.files.write(f"/proc/{pid}/comm", "nexcage-gate\n")
    if isinstance(node.files, DiskFiles):  # as scripts see it; what else the process has is written with the step
        root = node.files.root
        os.makedirs(f"{root}/proc/{pid}", exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(f"{root}{gate}/init", f"{root}/proc/{pid}/exe")


def pass_gates(node: Node) -> None:
    """Those that were let through run their program."""
    for name in node.files.names(f"{SIM}/gate"):
        gate = _gate(node, int(name))
        if not gate or node.files.exists(f"{gate}/open") or not waits(node, int(name)):
            _let_pass(node, int(name))


def _let_pass(node: Node, vmid: int) -> None:
    pid = node.files.read(f"{SIM}/gate/{vmid}")
    node.files.remove(f"{SIM}/gate/{vmid}")
    if pid is None or str(node.init_pid(vmid)) != pid:
        return
    node.files.write(f"/proc/{pid}/comm", "init\n")
    if isinstance(node.files, DiskFiles):
        with suppress(FileNotFoundError):
            os.unlink(f"{node.files.root}/proc/{pid}/exe")
    node.effect("process", str(vmid), f"passed {pid}")


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
    ctx.node.files.write(f"{directory}/inside/open", f"{ctx.env.get('NEXCAGE_OP_ID', 'start')}\n")
    if waits(ctx.node, int(vmid)):
        _let_pass(ctx.node, int(vmid))
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
        ctx.err("nexcage: it was begun before, and is not run again\n")
        return 0
    if once:
        node.files.write(once, "")
    text = node.files.read(path)
    status = re.findall(r"exit ([0-9]+)", text or "exit 0")[-1:] or ["0"]
    node.effect("hook", path, given[b"n"])
    why = "no such file or directory" if text is None else f"exit status {status[0]}" if status[0] != "0" else ""
    if why:
        ctx.err(f'nexcage: {given[b"n"]} hook "{path}" failed: {why}\n')
        return 7
    return 0
    yield


GATES = {START: _start, REACHED: _reached, OPEN: _open, SEAL: _seal, READ: _read, HOOK: _hook}
"""The scripts to their twins."""
