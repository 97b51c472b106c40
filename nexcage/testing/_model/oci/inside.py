"""Twins of the scripts that look and run programs inside containers of crun and runc."""

from __future__ import annotations

from nexcage.testing._model import find_tool
from nexcage.testing._model.guest import PROGRAMS
from nexcage.testing._model.insight import decoded, line_of, terminal
from nexcage.testing._model.node import Node
from nexcage.testing._model.oci.containers import Box, Inside
from nexcage.testing._model.oci.kept import KEPT, ROOTS, Place, place
from nexcage.testing._model.tool import Ctx, Sleep, Steps, Tool
from nexcage.tools.runtime import inside, using

__all__ = ["INSIDE"]


def _exec(ctx: Ctx) -> Steps:
    at, (_, user, cwd, size, _, *words) = place(ctx)
    if not at.ours(ctx):
        return 9
    status = Box(ctx.node, at.root, at.id).status if ctx.node.files.exists(at.box) else "stopped"
    if status == "paused":
        return _fail(ctx, 8, f"container {at.id} is paused")
    if status == "stopped":
        return _fail(ctx, 8, f"container {at.id} has no init process")
    if user and not user[0].isdigit():
        found = _user(ctx, at, user)
        if found is None:
            return _fail(ctx, 7, f"there is no user {user} in it")
        user = found
    options: list[str] = []
    while line := (yield from line_of(ctx)):
        name, _, value = line.partition(b"=")
        options += ["--env", f"{name.decode()}={decoded(value.decode('ascii'))}"]
    options += ["--user", user] if user else []
    options += ["--cwd", cwd] if cwd else []
    ctx.err("@nexcage inside\n")
    ctx.argv = (at.runtime, "--root", at.root, "exec", *options, at.id, *words)
    tool = find_tool(ctx.node, at.runtime)
    if tool is None:
        return _fail(ctx, 6, f"there is no {at.runtime}")
    ended = (yield from terminal(ctx, size, tool)) if size else (yield from tool(ctx))
    # As the script makes it of what the program says.
    return 127 if ended == 255 and words[0].rpartition("/")[2] not in PROGRAMS else ended


def _user(ctx: Ctx, at: Place, name: str) -> str | None:
    passwd = Inside(ctx, Box(ctx.node, at.root, at.id), {}).read("/etc/passwd") or b""
    known = {line.split(":")[0]: line.split(":") for line in passwd.decode().splitlines()}
    return ":".join(known[name][2:4]) if name in known else None


def _fail(ctx: Ctx, status: int, why: str) -> int:
    ctx.err(f"nexcage: {why}\n")
    return status


def _logs(ctx: Ctx) -> Steps:
    at, (_, lines, follow) = place(ctx)
    if not at.ours(ctx):
        return 9
    path = f"{at.kept}/log"
    text = ctx.node.files.read(path)
    if text is None:
        return _fail(ctx, 5, "it has not been kept")
    ctx.err("@nexcage inside\n")
    ctx.out("".join(text.splitlines(keepends=True)[-int(lines) :] if int(lines) else []))
    while follow:
        yield Sleep(0.2)
        now = ctx.node.files.read(path) or ""
        ctx.out(now[len(text) :])
        text = now
    return 0


def _processes(ctx: Ctx) -> Steps:
    at, _ = place(ctx)
    if not at.ours(ctx):
        return 9
    node, box = ctx.node, Box(ctx.node, at.root, at.id)
    lines: list[str] = []
    stat, words = "", list[str]()
    if box.status != "stopped":
        lines = [f"{box.pid}/status:{line}\n" for line in _status(node, box)]
        stat = f"{box.pid}/stat:{node.files.read(f'/proc/{box.pid}/stat') or ''}"
        words = (node.files.read(f"/proc/{box.pid}/cmdline") or "").split("\0")[:-1]
    ctx.out("@nexcage status\n" + "".join(lines) + "@nexcage stat\n" + stat + "@nexcage end\n")
    ctx.out("".join(f"{box.pid}/cmdline:{word}\0" for word in words))
    return 0
    yield


def _status(node: Node, box: Box) -> list[str]:
    return (node.files.read(f"/proc/{box.pid}/status") or "").splitlines()


def _usage(ctx: Ctx) -> Steps:
    node = ctx.node
    dirs: list[str] = []
    files: list[str] = []
    for fleet in node.files.names(KEPT):
        for id in node.files.names(f"{KEPT}/{fleet}") if not fleet.startswith(".") else ():
            text = node.files.read(f"{KEPT}/{fleet}/{id}/mark")
            if text is None:
                continue
            mark, runtime = text.split("\n")[:2]
            box = Box(node, f"{ROOTS}/{fleet}/{runtime}", id)
            if box.status != "stopped":
                vmid = mark.partition(" vmid=")[2].partition(" ")[0]
                dirs.append(f"{vmid} {box.cgroup}\n")
                files += [
                    f"{box.cgroup}/{name}\0{node.files.read(f'{box.cgroup}/{name}') or ''}"
                    for name in ("memory.current", "memory.max", "pids.current", "cpu.stat", "memory.stat")
                    if node.files.exists(f"{box.cgroup}/{name}")
                ]
    head = f"@nexcage uptime\n{node.steady() - node.booted:.2f} 0.00\n@nexcage dirs\n"
    ctx.out(head + "".join(dirs) + "@nexcage files\n" + "".join(files) + "@nexcage end\n")
    return 0
    yield


INSIDE: dict[str, Tool] = {
    inside.EXEC: _exec,
    inside.LOGS: _logs,
    using.PROCESSES: _processes,
    using.USAGE: _usage,
}
"""Script text to its twin."""
