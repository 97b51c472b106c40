"""Twins of the scripts that lead into containers and look into them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise
from typing import Any

from nexcage.testing._model import inside
from nexcage.testing._model.attach import lxc_attach
from nexcage.testing._model.guest import Guest
from nexcage.testing._model.node import Node
from nexcage.testing._model.tool import Ctx, Input, Sleep, Steps, Tool, Wait
from nexcage.tools import attach, cgroup, console, network, pty

__all__ = ["INSIDE", "decoded", "line_of", "terminal"]


def _carries(ctx: Ctx, mark: str, vmid: str) -> bool:
    text = ctx.node.files.read(f"/etc/pve/nodes/{ctx.node.name}/lxc/{vmid}.conf")
    return text is not None and f"#{mark}" in text.split("\n[")[0].split("\n")


def _refused(ctx: Ctx, status: int, why: str) -> int:
    ctx.err(f"nexcage: {why}\n")
    return status


_ANOTHER = "the container does not carry our mark"


def _attach(ctx: Ctx) -> Steps:
    mark, vmid, user, size, _, *words = ctx.argv[1:]
    if not _carries(ctx, mark, vmid):
        return _refused(ctx, 9, _ANOTHER)
    if ctx.node.init_pid(int(vmid)) is None:
        return _refused(ctx, 8, f"container {vmid} has no init process")
    who, home = ("0", ""), "/root" if user in ("", "0") else "/"
    if user and not user[0].isdigit():
        passwd = Guest(ctx, ctx.node, int(vmid), {}).read("/etc/passwd") or b""
        known = {line.split(":")[0]: line.split(":") for line in passwd.decode().splitlines()}
        if user not in known:
            return _refused(ctx, 7, f"there is no user {user} in it")
        who, home = (known[user][2], known[user][3]), known[user][5]
    elif user:
        who = (user.partition(":")[0], user.partition(":")[2])
    env = {"HOME": home}
    options = ["--keep-var", "HOME", "--uid", who[0], *(("--gid", who[1]) if who[1] else ())]
    while line := (yield from line_of(ctx)):
        name, _, value = line.partition(b"=")
        coded = value.decode("ascii")
        env[name.decode()] = decoded(coded)
        options += ["--keep-var", name.decode()]
    ctx.err("@nexcage inside\n")
    ctx.argv = ("lxc-attach", "-n", vmid, "--clear-env", *options, *words)
    ctx.env = {**ctx.env, **env}
    return (yield from terminal(ctx, size, lxc_attach) if size else lxc_attach(ctx))


def line_of(ctx: Ctx) -> Generator[Wait, Any, bytes]:  # Any: see tool.Steps
    while b"\n" not in ctx.stdin and not ctx.eof:
        yield Input()
    line, _, ctx.stdin = ctx.stdin.partition(b"\n")
    return line


def decoded(coded: str) -> str:
    parts = coded.split("\\0")
    data = parts[0].encode() + b"".join(bytes([int(part[:3], 8)]) + part[3:].encode() for part in parts[1:])
    return data.decode("utf-8", "surrogateescape")


def terminal(ctx: Ctx, size: str, tool: Tool) -> Steps:
    """A terminal between: echo, line ends, one stream for both."""

    def printed(data: bytes) -> None:
        ctx.out(data.replace(b"\n", b"\r\n"))

    inner = Ctx(ctx.node, ctx.argv, env={**ctx.env, "NEXCAGE_SIZE": size.replace("x", " ")}, out=printed, err=printed)
    inner.eof = False
    steps = tool(inner)
    answer: object = None
    while True:
        try:
            wait = steps.send(answer)
        except StopIteration as end:
            status: int = end.value
            return status
        answer = None
        if not isinstance(wait, Input):
            answer = yield wait
            continue
        while not inner.stdin and not inner.eof:
            frames, ctx.stdin = pty.unframed(ctx.stdin)
            for kind, payload in frames:
                if kind == b"w":
                    inner.env = {**inner.env, "NEXCAGE_SIZE": payload.decode()}
                    continue
                ctx.out(payload.replace(b"\n", b"\r\n"))
                if b"\x04" in payload:
                    inner.eof = True
                inner.stdin += payload.partition(b"\x04")[0]
            if ctx.eof:
                inner.eof = True
            elif not frames:
                yield Input()


def _usage(ctx: Ctx) -> Steps:
    node = ctx.node
    ctx.out(f"@nexcage uptime\n{node.steady() - node.booted:.2f} 0.00\n@nexcage files\n")
    for vmid in node.running():
        for name, text in inside.usage_files(node, vmid, node.init_pid(vmid) or 0):
            ctx.out("".join(f"{vmid}/{name}:{line}\n" for line in text.splitlines() if _counts(name, line)))
    ctx.out("@nexcage end\n")
    return 0
    yield


def _counts(name: str, line: str) -> bool:
    first = {"cpu.stat": "usage_usec ", "memory.stat": "inactive_file "}.get(name, "")
    return line.startswith(first)


def _network(ctx: Ctx) -> Steps:
    pids = {vmid: pid for vmid in ctx.node.running() if (pid := ctx.node.init_pid(vmid)) is not None}
    ctx.out("@nexcage running\n" + "".join(f"{vmid} {pid}\n" for vmid, pid in pids.items()))
    found: dict[str, str] = dict.fromkeys(("four", "six", "ports"), "")
    for kind, line in _network_lines(ctx.node, pids):
        found[kind] += f"{line}\n"
    ctx.out("".join(f"@nexcage {kind}\n{text}" for kind, text in found.items()) + "@nexcage end\n")
    return 0
    yield


def _network_lines(node: Node, pids: dict[int, int]) -> Iterator[tuple[str, str]]:
    for vmid, pid in pids.items():
        for path, text in inside.network_files(node, vmid, pid):
            place, lines = path.removeprefix("/proc/"), text.splitlines()
            if path.endswith("fib_trie"):
                for before, line in pairwise(lines):
                    if "/32 host LOCAL" in line:
                        yield "four", f"{place}:{before.split()[-1]}"
            elif path.endswith("if_inet6"):
                yield from (("six", f"{place}:{line}") for line in lines)
            else:
                yield from (("ports", f"{place}:{line}") for line in lines if " 0A " in line)


def _processes(ctx: Ctx) -> Steps:
    mark, vmid = ctx.argv[1:]
    if not _carries(ctx, mark, vmid):
        return _refused(ctx, 9, _ANOTHER)
    node, pid = ctx.node, ctx.node.init_pid(int(vmid))
    files = dict(inside.process_files(node, int(vmid), pid)) if pid is not None else {}
    stat = (node.files.read(f"/proc/{pid}/stat") or "").splitlines() if pid is not None else []
    status = files.get(f"/proc/{pid}/status", "").splitlines()
    ctx.out("@nexcage status\n" + "".join(f"{pid}/status:{line}\n" for line in status))
    ctx.out("@nexcage stat\n" + "".join(f"{pid}/stat:{line}\n" for line in stat) + "@nexcage end\n")
    words = files.get(f"/proc/{pid}/cmdline", "").split("\0")[:-1]
    ctx.out("".join(f"{pid}/cmdline:{word}\0" for word in words))
    return 0
    yield


def _logs(ctx: Ctx) -> Steps:
    mark, vmid, lines, follow, script = ctx.argv[1:]
    if not _carries(ctx, mark, vmid):
        return _refused(ctx, 9, _ANOTHER)
    conf = (ctx.node.config(int(vmid)) or "").split("\n[")[0].splitlines()
    named = [line.partition(":")[2].strip() for line in conf if line.startswith("lxc.console.logfile")]
    if named:
        return (yield from _tail(ctx, named[-1], int(lines), bool(follow)))
    if ctx.node.init_pid(int(vmid)) is None:
        why = "its config has no lxc.console.logfile, and it does not run, so that its own journal cannot be read"
        return _refused(ctx, 5, why)
    ctx.err("@nexcage inside\n")
    ctx.argv = ("lxc-attach", "-n", vmid, "--clear-env", "--", "sh", "-c", script, "logs", lines, follow)
    return (yield from lxc_attach(ctx))


def _tail(ctx: Ctx, path: str, lines: int, follow: bool) -> Steps:
    text = ctx.node.files.read(path)
    if text is None:
        return _refused(ctx, 5, f"its console's log {path} is not there yet")
    ctx.err("@nexcage inside\n")
    ctx.out("".join(text.splitlines(keepends=True)[-lines:] if lines else []))
    while follow:
        yield Sleep(0.2)
        now = ctx.node.files.read(path) or ""
        if len(now) > len(text):
            ctx.out(now[len(text) :])
        text = now
    return 0


INSIDE: dict[str, Tool] = {
    attach.ATTACH: _attach,
    cgroup.USAGE: _usage,
    cgroup.PROCESSES: _processes,
    network.NETWORK: _network,
    console.LOGS: _logs,
}
"""Script text to its twin."""
